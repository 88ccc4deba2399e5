"""The schemes of compressed-tensors, and the compute capability that each needs.

layers/quantization/compressed_tensors/compressed_tensors.py (_get_scheme_from_parts, _check_scheme_supported) and
schemes/*.py (get_min_capability). Each linear layer's scheme is checked while the model is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runners.engines.vllm.releases import Release
from runners.modelfacts.facts import Quantization

_SINCE = Release((0, 5, 3))
_A_SENTENCE_SINCE = Release((0, 29, 0))
_MINIMUM: Mapping[str, tuple[tuple[Release, int], ...]] = {
    # scheme: (since the release, compute capability × 10)
    "WNA16": ((_SINCE, 80), (Release((0, 11, 3)), 75)),
    "W8A16 fp8": ((_SINCE, 80), (Release((0, 14, 1)), 75)),
    "W8A8 int8": ((_SINCE, 75),),
    "W4A16 nvfp4": ((_SINCE, 80), (Release((0, 14, 1)), 75)),
}


def scheme_needed(quantization: Quantization, number: Release) -> tuple[str, int] | None:
    """The scheme that asks for the least, and the compute capability × 10 that it asks for; None if nobody can say."""
    if quantization.method != "compressed-tensors" or number < _SINCE:
        return None
    names = list(_schemes(quantization.raw))
    if not names or None in names:
        return None
    needed = {name: [tenths for since, tenths in _MINIMUM[name] if number >= since][-1] for name in names if name}
    least = min(needed, key=lambda name: needed[name])
    return least, needed[least]


def scheme_refusal(needed: int, have: int, number: Release) -> str:
    parts = (
        "Quantization scheme is not supported for ",
        f"the current GPU. Min capability: {needed}. ",
        f"Current capability: {have}.",
    )
    return "".join(parts) if number >= _A_SENTENCE_SINCE else str(parts)


def _schemes(raw: Mapping[str, Any]) -> Iterator[str | None]:
    groups = raw.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        if isinstance(group, Mapping):
            yield _scheme(group, str(group.get("format") or raw.get("format") or ""))


def _scheme(group: Mapping[str, Any], form: str) -> str | None:
    weights, inputs = group.get("weights"), group.get("input_activations")
    if not isinstance(weights, Mapping):
        return None
    inner = inputs if isinstance(inputs, Mapping) else {}
    match weights.get("type"), weights.get("num_bits"), inner.get("num_bits"):
        case "float", 8, _:
            return "W8A16 fp8"  # where W8A8 has no kernels, too
        case "int", 8, 8:
            return "W8A8 int8"
        case "int", 4 | 8, None if form == "pack-quantized":
            return "WNA16"
        case "float", 4, _ if form == "nvfp4-pack-quantized":
            return "W4A16 nvfp4"
    return None

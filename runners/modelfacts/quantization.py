"""How a checkpoint says that its weights are quantized: the several forms of quantization_config, as one value."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from runners.modelfacts.clean import name_of
from runners.modelfacts.facts import Quantization

_IGNORED = (
    "ignore", "modules_to_not_convert", "ignored_layers", "llm_int8_skip_modules", "exclude_modules", "exclude",
    "packed_modules_to_not_convert",
)  # fmt: skip
_ENDLESS = re.compile(r"\)[*+{]|(?:[*+}].*?){6}|\\[1-9]")
"""A stranger's pattern that may take for ever: repeated groups, many repetitions, references back."""
_SAME_STORAGE = {
    "auto-round": "gptq", "auto_round": "gptq", "intel/auto-round": "gptq", "gptq_marlin": "gptq", "awq_marlin": "awq",
    "gptq_marlin_24": "gptq", "compressed_tensors": "compressed-tensors", "sparseml": "compressed-tensors",
    "modelopt_fp4": "modelopt", "nvfp4": "modelopt", "marlin": "gptq", "gptqmodel": "gptq",
}  # fmt: skip
_LARGEST = 1_000_000
"""Weights in a group, or on a side of a block."""
_BITS = {"fp8": 8, "fbgemm_fp8": 8, "mxfp4": 4, "gpt_oss_mxfp4": 4, "mxfp8": 8, "eetq": 8, "int8": 8}


def quantization_of(config: Mapping[str, Any], side: Mapping[str, Any] | None = None) -> Quantization | None:
    """From config.json and, if there is one, hf_quant_config.json (modelopt) or quantize_config.json (gptq, awq)."""
    raw = _stated(config) or _of_side_file(side or {})
    if not raw:
        return None
    method = (name_of(raw.get("quant_method")) or name_of(raw.get("quant_library"))).lower()
    if not method:
        method = "modelopt" if "quant_algo" in raw or raw.get("producer") else "gptq" if "desc_act" in raw else "awq"
    method = _SAME_STORAGE.get(method, method)
    weights = _weights_of_first_group(raw)
    return Quantization(
        method=method,
        bits=_bits(raw, method, weights),
        group_size=_group_size(raw, weights),
        block=_block(raw, weights),
        kv_cache=_kv_cache(raw),
        ignored=tuple(str(name) for key in _IGNORED for name in _names(raw.get(key))),
        raw=raw,
    )


def is_ignored(quantization: Quantization, name: str) -> bool:
    """Whether the list of unquantized modules holds this one, or a part of the model that it lies in."""
    if not quantization.ignored:
        return False
    names, patterns = _sorted_out(quantization.ignored)
    plain = _plain(name)
    parts = plain.split(".")
    pieces = (".".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1))
    return any(piece in names for piece in pieces) or any(matches(pattern, plain) for pattern in patterns)


@lru_cache(maxsize=8)
def _sorted_out(ignored: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """The names of a list, of which there may be hundreds, and the patterns, of which there are few."""
    plain = [_plain(one) for one in ignored]
    patterns = tuple(one for one in plain if one.startswith("re:") or any(sign in one for sign in "*?["))
    return frozenset(one.strip(".") for one in plain if one not in patterns), patterns


def matches(pattern: str, name: str) -> bool:
    """A name in the ways that these lists write it: exact, an end, a beginning, a part, "re:…", or with *."""
    if pattern.startswith("re:"):
        if _ENDLESS.search(pattern):
            return False
        try:
            return re.match(pattern[3:], name) is not None
        except re.error:
            return False
    if any(sign in pattern for sign in "*?["):
        return fnmatch.fnmatch(name, pattern)
    return f".{pattern.strip('.')}." in f".{name}."


def _plain(name: str) -> str:
    """Without the prefix that multimodal models give their language model."""
    return re.sub(r"^(model\.)?language_model\.(model\.)?", "model.", name) if "language_model" in name else name


def _stated(config: Mapping[str, Any]) -> Mapping[str, Any]:
    for place in (config, config.get("text_config"), config.get("llm_config"), config.get("language_config")):
        if not isinstance(place, Mapping):
            continue
        for key in ("quantization_config", "compression_config"):
            if isinstance(found := place.get(key), Mapping) and found:
                return found
    return {}


def _of_side_file(side: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = side.get("quantization")
    if isinstance(inner, Mapping):
        return {"quant_method": "modelopt", **inner} if inner.get("quant_algo") else {}
    return side if "bits" in side or "w_bit" in side else {}


def _weights_of_first_group(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    groups = raw.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        if isinstance(group, Mapping) and isinstance(weights := group.get("weights"), Mapping):
            return weights
    return {}


def algorithm(raw: Mapping[str, Any]) -> str:
    """modelopt's algorithm: FP8, NVFP4, W4A16_AWQ, …"""
    return str(raw.get("quant_algo") or "").upper()


def whole(value: Any, most: int = _LARGEST) -> int | None:
    """A number from 1 up to `most`; None for everything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most else None


def _bits(raw: Mapping[str, Any], method: str, weights: Mapping[str, Any]) -> int | None:
    for value in (weights.get("num_bits"), raw.get("bits"), raw.get("w_bit"), raw.get("nbits"), _BITS.get(method)):
        if (bits := whole(value, 32)) is not None:
            return bits
    if method == "bitsandbytes":
        return 4 if raw.get("load_in_4bit") else 8
    if "FP8" in algorithm(raw):
        return 8
    return 4 if "4" in algorithm(raw) else None


def _group_size(raw: Mapping[str, Any], weights: Mapping[str, Any]) -> int | None:
    for value in (weights.get("group_size"), raw.get("group_size"), raw.get("q_group_size")):
        if isinstance(value, int) and (value == -1 or whole(value) is not None):
            return value
    return None


def _block(raw: Mapping[str, Any], weights: Mapping[str, Any]) -> tuple[int, int] | None:
    for value in (raw.get("weight_block_size"), weights.get("block_structure")):
        if isinstance(value, list | tuple) and len(value) == 2 and all(whole(n) is not None for n in value):
            return (value[0], value[1])
    return None


def _kv_cache(raw: Mapping[str, Any]) -> str | None:
    scheme = raw.get("kv_cache_scheme")
    if isinstance(scheme, Mapping):
        bits, kind = whole(scheme.get("num_bits"), 32), scheme.get("type")
        return None if bits is None else f"fp{bits}" if kind == "float" else f"int{bits}"
    stated = raw.get("kv_cache_quant_algo")
    return name_of(stated).lower() or None


def _names(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []

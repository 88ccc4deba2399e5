"""Quantization methods: which releases know which, and what they refuse whatever the accelerator.

layers/quantization/__init__.py (QUANTIZATION_METHODS, before 0.4.3 its registry), config/model.py
(_verify_quantization), model_loader/bitsandbytes_loader.py, layers/quantization/fp8.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from provisioners.contract import Finding
from runners.engines.vllm.flags import Flags
from runners.engines.vllm.releases import Release
from runners.modelfacts.facts import ModelFacts

_FIRST = (0, 0, 0)
_Number = tuple[int, int, int]

_KNOWN: dict[str, tuple[_Number, _Number | None]] = {
    # method: (since, until before)
    "awq": (_FIRST, None),
    "squeezellm": (_FIRST, (0, 6, 1)),
    "gptq": ((0, 2, 6), None),
    "marlin": ((0, 3, 1), (0, 10, 2)),
    "fp8": ((0, 4, 1), None),
    "aqlm": ((0, 4, 1), (0, 10, 1)),
    "gptq_marlin": ((0, 4, 2), None),
    "gptq_marlin_24": ((0, 4, 3), (0, 16, 0)),
    "deepspeedfp": ((0, 4, 3), (0, 16, 0)),
    "bitsandbytes": ((0, 5, 0), (0, 28, 0)),
    "compressed-tensors": ((0, 4, 3), None),
    "awq_marlin": ((0, 5, 3), None),
    "fbgemm_fp8": ((0, 5, 3), None),
    "qqq": ((0, 5, 4), (0, 10, 2)),
    "gguf": ((0, 5, 5), (0, 24, 0)),
    "experts_int8": ((0, 5, 5), None),
    "modelopt": ((0, 6, 1), None),
    "hqq": ((0, 6, 5), (0, 16, 0)),
    "quark": ((0, 7, 0), None),
    "moe_wna16": ((0, 7, 3), None),
    "ptpc_fp8": ((0, 7, 3), (0, 19, 0)),
    "torchao": ((0, 8, 4), None),
    "modelopt_fp4": ((0, 8, 0), None),
    "bitblas": ((0, 8, 5), (0, 16, 0)),
    "rtn": ((0, 9, 2), (0, 16, 0)),
    "mxfp4": ((0, 10, 1), None),
    "modelopt_mxfp8": ((0, 16, 0), None),
    "auto_gptq": ((0, 22, 0), None),
    "auto_awq": ((0, 24, 0), None),
    "fp8_per_tensor": ((0, 20, 0), None),
    "fp8_per_block": ((0, 20, 0), None),
    "fp8_per_channel": ((0, 24, 0), None),
    "int8_per_channel_weight_only": ((0, 20, 0), None),
}
"""Methods that recipe knows; one that is not here may still be vLLM's."""
_RUNS_OTHERS = {"moe_wna16", "humming", "inc", "online", "auto-round", "auto_round"}
"""Take checkpoints of other methods."""
_ONLINE_FP8_UNTIL = Release((0, 31, 0))
_PREQUANTIZED_SINCE = Release((0, 6, 2))
_PATH = "engine.args.quantization"


def method_findings(model: ModelFacts, flags: Flags, method: str | None, release: Release) -> Iterator[Finding]:
    """What a release says of a quantization method before it looks at the accelerator."""
    if method is None:
        return
    since, until = _KNOWN.get(method, (_FIRST, None))
    if release.number < since or (until and release.number >= until):
        span = f"did before {_short(until)}" if until and release.number >= until else f"does since {_short(since)}"
        message = f"vLLM {release} does not know {method}; it {span}"
        yield _block(message, f"Unknown quantization method: {method}.")
        return
    own = model.quantization.method if model.quantization else None
    if (
        own
        and flags.quantization in _KNOWN
        and _family(own) != _family(flags.quantization)
        and not ({own, flags.quantization} & _RUNS_OTHERS)
    ):
        yield _block(
            f"the model is quantized as {own}, and the recipe asks for {flags.quantization}",
            f"Quantization method specified in the model config ({own}) does not match the quantization method "
            f"specified in the `quantization` argument ({flags.quantization}).",
        )
    if method == "fp8" and own is None and release >= _ONLINE_FP8_UNTIL:
        yield _block(
            f"vLLM {release} quantizes to fp8 while loading under another name",
            "The `fp8` quantization method no longer supports online quantization. Please use `--quantization "
            "fp8_per_tensor` instead.",
            suggestion="engine.args.quantization: fp8_per_tensor",
        )
    if own == "bitsandbytes" and flags.tensor_parallel_size > 1 and release >= _PREQUANTIZED_SINCE:
        words = (
            "TP is not supported.Please try with PP."
            if release < Release((0, 7, 0))
            else "tensor parallelism is not supported. Please try with pipeline parallelism."
        )
        yield _block(
            "a model that is stored in bitsandbytes cannot be split by tensor parallelism",
            f"Prequant BitsAndBytes models with {words}",
            suggestion=f"engine.tensor_parallel_size: 1 with pipeline_parallel_size: {flags.tensor_parallel_size}",
            path="engine.tensor_parallel_size",
        )


def _block(message: str, quote: str, *, suggestion: str = "", path: str = _PATH) -> Finding:
    return Finding(level="block", code="quantization", message=message, quote=quote, suggestion=suggestion, path=path)


def _short(number: _Number) -> str:
    return ".".join(map(str, number))


def _family(method: str) -> str:
    for family in ("awq", "gptq", "modelopt", "mxfp4"):
        if family in method:
            return family
    return "gptq" if method == "marlin" else method.replace("_", "-")

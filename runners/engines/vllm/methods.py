"""Quantization methods: which releases know which, and what they refuse whatever the accelerator.

layers/quantization/__init__.py (QUANTIZATION_METHODS, before 0.4.3 its registry), from which methods.csv was made;
config/model.py (_verify_quantization), model_loader/weight_utils.py (get_quant_config),
model_loader/bitsandbytes_loader.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from provisioners.contract import Finding
from runners.engines.vllm.flags import Flags
from runners.engines.vllm.releases import Release
from runners.engines.vllm.spans import spans
from runners.modelfacts.facts import ModelFacts, Quantization

_RUNS_OTHERS = {"moe_wna16", "humming", "inc", "online", "auto-round", "auto_round"}
"""Take checkpoints of other methods."""
_NAMES_ARE_CHOICES_UNTIL = Release((0, 12, 0))
"""Until here the command line itself lists the methods; later the configuration refuses what it does not know."""
_ONLINE_FP8_HAS_ITS_NAME = Release((0, 31, 0))
"""From here on fp8 still means fp8_per_tensor for a checkpoint that is not quantized, with a warning."""
_PREQUANTIZED_SINCE = Release((0, 6, 2))
_NEEDS_A_FILE = {
    *("awq", "awq_marlin", "auto_awq", "gptq", "gptq_marlin", "gptq_marlin_24", "auto_gptq", "marlin", "squeezellm"),
    *("hqq", "qqq", "deepspeedfp", "ipex", "moe_wna16", "bitblas", "gptq_bitblas", "auto-round", "petit_nvfp4"),
    *("modelopt", "modelopt_fp4"),
}
"""Methods that read a file of their own (get_config_filenames) where config.json says nothing; model facts know such
files, so that a model without them is not quantized."""
_NEEDS_ARGUMENTS: Mapping[str, tuple[Release, str]] = {
    # method: (since, what Python says)
    "compressed-tensors": (Release((0, 4, 3)), "CompressedTensorsConfig.__init__() missing"),
    "quark": (Release((0, 7, 0)), "QuarkConfig.__init__() missing 1 required positional argument: 'quant_config'"),
    "torchao": (Release((0, 11, 2)), "TorchAOConfig.__init__() missing 1 required positional argument"),
}
"""Methods that nothing but the config's own words can make."""
_LOAD_FORMAT_FOLLOWS = Release((0, 8, 4))
"""quantization bitsandbytes also sets load_format (engine/arg_utils.py); before 0.8.1 it had to be said."""
_LOAD_FORMAT_MUST_BE_SAID_UNTIL = Release((0, 8, 0))
_DEPRECATED: Mapping[str, tuple[Release, Release | None]] = {
    # method: (refused since, until before)
    "fbgemm_fp8": (Release((0, 14, 0)), None),
    "fp_quant": (Release((0, 14, 0)), None),
    "ptpc_fp8": (Release((0, 14, 0)), None),
    "experts_int8": (Release((0, 14, 0)), Release((0, 20, 0))),
}
_PATH = "engine.args.quantization"


def quantizations(number: Release) -> Mapping[str, Mapping[str, JsonValue]]:
    """What a release quantizes to while it loads, under the names that people use."""
    table = spans("methods")
    found: dict[str, Mapping[str, JsonValue]] = {}
    if table["fp8"].why_not(number) is None:
        found["fp8"] = {"quantization": "fp8_per_tensor" if number >= _ONLINE_FP8_HAS_ITS_NAME else "fp8"}
    if table["bitsandbytes"].why_not(number) is None:
        both: dict[str, JsonValue] = {} if number >= _LOAD_FORMAT_FOLLOWS else {"load_format": "bitsandbytes"}
        found["bitsandbytes 4 bit"] = {"quantization": "bitsandbytes", **both}
    return found


def method_findings(
    model: ModelFacts, flags: Flags, method: str | None, number: Release, *, certain: bool
) -> Iterator[Finding]:
    """What a release says of a quantization method before it looks at the accelerator.

    `certain` is whether the recipe's release is one that the table was made from.
    """
    own = model.quantization
    if method is None or (method == "gguf" and model.form == "gguf"):
        return
    path = "model" if flags.quantization is None else _PATH
    if unknown := _unknown(method, number, path, certain=certain):
        yield unknown
        return
    if own and flags.quantization and _differ(own, flags.quantization):
        yield _block(
            f"the model is quantized as {own.method}, and the recipe asks for {flags.quantization}",
            f"Quantization method specified in the model config ({own.method}) does not match the quantization "
            f"method specified in the `quantization` argument ({flags.quantization}).",
            suggestion="leave engine.args.quantization out",
        )
    elif own is None and flags.quantization and (quote := _cannot_make(flags.quantization, flags, number)):
        yield _block(
            f"the model is not quantized, and vLLM {number} only loads {flags.quantization}, but does not make it",
            quote,
            suggestion="leave engine.args.quantization out, or choose a model that is quantized so",
        )
    yield from _deprecated(method, flags, number, path)
    yield from _load_format(flags, number)
    if own and own.method == "bitsandbytes" and flags.tensor_parallel_size > 1 and number >= _PREQUANTIZED_SINCE:
        words = (
            "TP is not supported.Please try with PP."
            if number < Release((0, 7, 0))
            else "tensor parallelism is not supported. Please try with pipeline parallelism."
        )
        yield _block(
            "a model that is stored in bitsandbytes cannot be split by tensor parallelism",
            f"Prequant BitsAndBytes models with {words}",
            suggestion=f"engine.tensor_parallel_size: 1 with pipeline_parallel_size: {flags.tensor_parallel_size}",
            path="engine.tensor_parallel_size",
        )


def _unknown(method: str, number: Release, path: str, *, certain: bool) -> Finding | None:
    """A method that the release does not have; in doubt of the release, only a warning."""
    table = spans("methods")
    if method in _RUNS_OTHERS and method not in table:
        return None
    why = table[method].why_not(number) if method in table else "is none that any release knows"
    if why is None:
        return None
    by_command_line = path == _PATH and number <= _NAMES_ARE_CHOICES_UNTIL
    return Finding(
        level="block" if certain else "warn",
        code="quantization",
        message=f"vLLM {number} does not know the quantization {method}; it {why}",
        quote=f"argument --quantization/-q: invalid choice: '{method}' (choose from"
        if by_command_line
        else f"Unknown quantization method: {method}. Must be one of",
        suggestion="another engine.version" if method in table else "",
        path=path,
    )


def _differ(own: Quantization, asked: str) -> bool:
    return (
        asked in spans("methods") and _family(own.method) != _family(asked) and not {own.method, asked} & _RUNS_OTHERS
    )


def _cannot_make(asked: str, flags: Flags, number: Release) -> str:
    """What vLLM says if it is to load a checkpoint as quantized that is not; empty if it may quantize it itself."""
    if flags.hf_overrides:
        return ""
    if asked in _NEEDS_A_FILE:
        return f"Cannot find the config file for {asked}"
    since, words = _NEEDS_ARGUMENTS.get(asked, (_NEVER, ""))
    return words if number >= since else ""


_NEVER = Release((9999, 0, 0))


def _load_format(flags: Flags, number: Release) -> Iterator[Finding]:
    """Until 0.8.0 two flags had to agree."""
    if flags.quantization != "bitsandbytes" or flags.load_format == "bitsandbytes":
        return
    if number <= _LOAD_FORMAT_MUST_BE_SAID_UNTIL:
        yield _block(
            f"with quantization bitsandbytes, vLLM {number} wants load_format bitsandbytes, too",
            "BitsAndBytes quantization and QLoRA adapter only support 'bitsandbytes' load format, but got "
            f"{flags.load_format or 'auto'}",
            suggestion="engine.args.load_format: bitsandbytes",
            path="engine.args.load_format",
        )


def _deprecated(method: str, flags: Flags, number: Release, path: str) -> Iterator[Finding]:
    since, until = _DEPRECATED.get(method, (_NEVER, None))
    if number < since or (until and number >= until) or flags.allow_deprecated_quantization:
        return
    yield _block(
        f"vLLM {number} loads {method} only with allow_deprecated_quantization",
        f"('The quantization method %s is deprecated and will be removed in future versions of vLLM. To bypass, set "
        f"`--allow-deprecated-quantization`.', '{method}')",
        suggestion="engine.args.allow_deprecated_quantization: true",
        path=path,
    )


def _block(message: str, quote: str, *, suggestion: str = "", path: str = _PATH) -> Finding:
    return Finding(level="block", code="quantization", message=message, quote=quote, suggestion=suggestion, path=path)


def _family(method: str) -> str:
    for family in ("awq", "gptq", "modelopt", "mxfp4"):
        if family in method:
            return family
    return "gptq" if method == "marlin" else method.replace("_", "-")

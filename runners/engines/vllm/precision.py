"""Types: what vLLM computes in, and whether the accelerator's generation knows it and the quantization's kernels.

config.py: _get_and_verify_dtype and _resolve_auto_dtype; worker.py: _check_if_gpu_supports_dtype; the quantization
methods' get_min_capability.
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioners.accelerators import Accelerator
from provisioners.contract import Finding
from runners.engines.vllm import releases
from runners.engines.vllm.flags import Flags
from runners.engines.vllm.releases import Release
from runners.engines.vllm.schemes import scheme_needed, scheme_refusal
from runners.modelfacts.facts import ModelFacts

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_NAMES = {"half": "float16", "float": "float32", "bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_SMALL_CACHES = (
    *(("fp8", 1.0), ("int8", 1.0), ("nvfp4", 9 / 16), ("int4", 9 / 16)),
    *(("turboquant", 1.0), ("octave", 1.0), ("ultraquant", 1.0)),
)
"""Bytes of an element, its part of the scales included, by how a cache's type begins; of the last three the most."""
_UNSTABLE_IN_FLOAT16 = {"gemma2", "gemma3", "gemma3_text", "glm4"}
"""config.py, _FLOAT16_NOT_SUPPORTED_MODELS."""
_TORCH_TYPES = {"auto", "float", "half", "double", "float16", "bfloat16", "float32", "float64"}
_TORCH_FAMILIES = ("float8", "float4", "int", "uint", "qint", "quint", "bits", "complex", "bool", "short", "long")
_ALWAYS = (0, 0, 0)
_COMPUTES_IN_FP8 = {"fp8", "fp8_per_tensor", "fp8_per_channel"}

_MINIMUM: dict[str, tuple[tuple[tuple[int, int, int], int], ...]] = {
    # method: (since the release, compute capability × 10), from each release's get_min_capability
    "awq": ((_ALWAYS, 75),),
    "awq_marlin": ((_ALWAYS, 80), ((0, 14, 0), 75)),
    "gptq": ((_ALWAYS, 60),),
    "gptq_marlin": ((_ALWAYS, 80), ((0, 14, 0), 75)),
    "gptq_marlin_24": ((_ALWAYS, 80),),
    "marlin": ((_ALWAYS, 80),),
    "squeezellm": ((_ALWAYS, 70),),
    "fp8": ((_ALWAYS, 90), ((0, 4, 2), 89), ((0, 5, 1), 80), ((0, 14, 0), 75)),
    "fbgemm_fp8": ((_ALWAYS, 80),),
    "bitsandbytes": ((_ALWAYS, 70),),
    "compressed-tensors": ((_ALWAYS, 60), ((0, 5, 1), 75), ((0, 5, 2), 70)),
    "modelopt": ((_ALWAYS, 89), ((0, 27, 0), 80)),
    "modelopt_fp4": ((_ALWAYS, 100), ((0, 9, 0), 80), ((0, 14, 0), 75)),
    "mxfp4": ((_ALWAYS, 80),),
    "experts_int8": ((_ALWAYS, 80),),
    "moe_wna16": ((_ALWAYS, 70),),
    "torchao": ((_ALWAYS, 75),),
    "quark": ((_ALWAYS, 70),),
    "aqlm": ((_ALWAYS, 60),),
    "gguf": ((_ALWAYS, 60),),
    "qqq": ((_ALWAYS, 80),),
    "hqq": ((_ALWAYS, 80),),
    "fp_quant": ((_ALWAYS, 100),),
}
_MINIMUM["auto_awq"] = _MINIMUM["awq"]
_MINIMUM["auto_gptq"] = _MINIMUM["gptq"]
for _online in ("fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "int8_per_channel_weight_only", "online"):
    _MINIMUM[_online] = ((_ALWAYS, 75),)
_MINIMUM["modelopt_nvfp4"] = _MINIMUM["modelopt_fp4"]

_ONLY_FLOAT16 = {"awq": (0, 5, 2), "squeezellm": (9, 0, 0), "gptq": (0, 4, 2)}
"""Methods whose kernels take float16 alone (get_supported_act_dtypes), until their Marlin kernels took their place."""
_OLDEST_GENERATION = (((0, 2, 0), 70), ((0, 20, 0), 75))
"""What the published wheels hold kernels for: CUDA 13, which they are built with since 0.20.0, has none for Volta."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What the weights, activations and the KV cache are stored in."""

    compute: str
    compute_bytes: int
    quantization: str | None
    kv_bytes: float
    findings: tuple[Finding, ...] = ()


def precision(model: ModelFacts, flags: Flags, accelerator: Accelerator | None, release: Release) -> Precision:
    """The types of a release, and what it refuses. `accelerator` None: the CPU, which knows all of them."""
    method = flags.quantization or (model.quantization.method if model.quantization else None)
    compute, findings = _compute(model, flags, accelerator, release)
    findings += _no_type(model)
    capability = accelerator.compute_capability if accelerator else None
    if accelerator and capability:
        findings += _generation(accelerator, capability, release)
        path = "model" if flags.quantization is None else "engine.args.quantization"
        found = _quantization(method, accelerator, capability, release, path)
        findings += found or _scheme(model, accelerator, capability, release)
    asked = flags.kv_cache_dtype or "auto"
    if asked == "auto" and model.quantization and (model.quantization.kv_cache or "").lower().startswith("fp8"):
        asked = "fp8" if release >= Release((0, 11, 1)) else "auto"
    small = next((size for begin, size in _SMALL_CACHES if asked.startswith(begin)), None)
    kv_bytes = small or BYTES.get(_NAMES.get(asked, asked), BYTES[compute])
    return Precision(
        compute=compute,
        compute_bytes=BYTES[compute],
        quantization=None if method in {None, "none"} else method,
        kv_bytes=kv_bytes,
        findings=tuple(findings),
    )


def _compute(
    model: ModelFacts, flags: Flags, accelerator: Accelerator | None, release: Release
) -> tuple[str, list[Finding]]:
    stored = _NAMES.get(model.dtype or "", model.dtype) or "float32"
    if stored not in BYTES:
        stored = "float32"
    asked = _NAMES.get(flags.dtype or "auto", flags.dtype or "auto")
    capability = (accelerator.compute_capability if accelerator else None) or (9, 9)
    knows_bfloat16 = capability >= (8, 0)
    falls_back = release >= releases.AUTO_DTYPE_FALLS_BACK
    unstable = model.model_type in _UNSTABLE_IN_FLOAT16 and falls_back
    if asked in BYTES:
        compute = asked
    elif stored == "float32":
        gemma = model.model_type in {"gemma2", "gemma3", "gemma3_text"}
        compute = "bfloat16" if (falls_back and knows_bfloat16) or (gemma and not falls_back) else "float16"
    else:
        compute = stored
    findings: list[Finding] = []
    if asked not in BYTES and falls_back and compute == "bfloat16" and not knows_bfloat16:
        compute = "float32" if unstable else "float16"
        findings.append(_fallback(accelerator, stored, compute))
    elif asked not in BYTES and falls_back and compute == "float16" and unstable:
        compute = "bfloat16" if knows_bfloat16 else "float32"
    if compute == "bfloat16" and not knows_bfloat16 and accelerator:
        findings.append(_no_bfloat16(accelerator, capability, release))
    if asked == "float16" and unstable:
        findings.append(
            Finding(
                level="block",
                code="dtype",
                message=f"{model.model_type} is numerically unstable in float16, and vLLM refuses it",
                suggestion="engine.args.dtype: bfloat16",
                quote=f"The model type '{model.model_type}' does not support float16. Reason: Numerical instability. "
                "Please use bfloat16 or float32 instead.",
                path="engine.args.dtype",
            )
        )
    return compute, findings


def _no_type(model: ModelFacts) -> list[Finding]:
    """A checkpoint's type is looked up by its name in PyTorch (Transformers' PretrainedConfig)."""
    name = model.dtype
    if not name or name in _TORCH_TYPES or name.startswith(_TORCH_FAMILIES):
        return []
    return [
        Finding(
            level="block",
            code="dtype",
            message=f"the model's config names the type {name}, which PyTorch does not have",
            suggestion="mend torch_dtype in the model's config.json",
            quote=f"module 'torch' has no attribute '{name}'",
            path="model",
        )
    ]


def _fallback(accelerator: Accelerator | None, stored: str, compute: str) -> Finding:
    name = accelerator.name if accelerator else "device"
    return Finding(
        level="warn",
        code="dtype",
        message=f"{name} does not know {stored}; vLLM computes in {compute}"
        + (", which takes twice the memory" if compute == "float32" else ""),
        quote=f"doesn't support torch.{stored}. Falling back to torch.{compute} for compatibility.",
        path="engine.args.dtype",
    )


def _no_bfloat16(accelerator: Accelerator, capability: tuple[int, int], release: Release) -> Finding:
    major, minor = capability
    quote = (
        "Bfloat16 is only supported on GPUs with compute capability of at least 8.0. "
        f"Your {accelerator.name} GPU has compute capability {major}.{minor}."
    )
    if release >= Release((0, 3, 3)):
        space = " " if release >= Release((0, 9, 0)) else ""
        quote += (
            f" You can use float16 instead by explicitly setting the{space}`dtype` flag in CLI, "
            "for example: --dtype=half."
        )
    return Finding(
        level="block",
        code="dtype",
        message=f"bfloat16 needs compute capability 8.0; {accelerator.name} has {major}.{minor}",
        suggestion="engine.args.dtype: half",
        quote=quote,
        numbers={"needed": 8.0, "compute_capability": float(f"{major}.{minor}")},
        path="engine.args.dtype",
    )


def _generation(accelerator: Accelerator, capability: tuple[int, int], release: Release) -> list[Finding]:
    needed = [tenths for since, tenths in _OLDEST_GENERATION if release.number >= since][-1]
    have = 10 * capability[0] + capability[1]
    if accelerator.vendor != "nvidia" or have >= needed:
        return []
    return [
        Finding(
            level="block",
            code="capability",
            message=f"vLLM {release} has kernels for compute capability {needed / 10} and newer; {accelerator.name} "
            f"has {have / 10}",
            suggestion="another accelerator" + ("" if have < 70 else ", or engine.version: 0.19.1"),
            numbers={"needed": needed / 10, "compute_capability": have / 10},
            quote="CUDA error: no kernel image is available for execution on the device",
            path="resources.accelerators",
        )
    ]


def minimum_capability(method: str, release: Release) -> int | None:
    """The compute capability × 10 that a method needs; None if it is not known."""
    known = _MINIMUM.get(method)
    return [tenths for since, tenths in known if release.number >= since][-1] if known else None


def _quantization(
    method: str | None, accelerator: Accelerator, capability: tuple[int, int], release: Release, path: str
) -> list[Finding]:
    needed = minimum_capability(method, release) if method else None
    have = 10 * capability[0] + capability[1]
    if method and needed and have < needed:
        return [
            Finding(
                level="block",
                code="quantization",
                message=f"{method} needs compute capability {needed / 10} in vLLM {release}; {accelerator.name} has "
                f"{have / 10}",
                suggestion="an accelerator of a newer generation, or a model in another quantization",
                quote=f"The quantization method {method} is not supported for the current GPU. Minimum capability: "
                f"{needed}. Current capability: {have}.",
                numbers={"needed": needed / 10, "compute_capability": have / 10},
                path=path,
            )
        ]
    return [_without_fp8(accelerator, path)] if method in _COMPUTES_IN_FP8 and have < 89 else []


def _without_fp8(accelerator: Accelerator, path: str) -> Finding:
    return Finding(
        level="warn",
        code="quantization",
        message=f"{accelerator.name} has no fp8 arithmetic: weights stay 8 bits wide, and compute is 16 bits wide "
        "(Marlin)",
        quote="Your GPU does not have native support for FP8 computation but FP8 quantization is being used. "
        "Weight-only FP8 compression will be used leveraging the Marlin kernel.",
        path=path,
    )


def _scheme(
    model: ModelFacts, accelerator: Accelerator, capability: tuple[int, int], release: Release
) -> list[Finding]:
    """compressed-tensors, whose schemes ask for more than the method itself."""
    needs = scheme_needed(model.quantization, release) if model.quantization else None
    if needs is None:
        return []
    scheme, needed = needs
    have = 10 * capability[0] + capability[1]
    if have >= needed:
        return [_without_fp8(accelerator, "model")] if scheme.endswith("fp8") and have < 89 else []
    return [
        Finding(
            level="block",
            code="quantization",
            message=f"the scheme {scheme} of compressed-tensors needs compute capability {needed / 10} in vLLM "
            f"{release}; {accelerator.name} has {have / 10}",
            suggestion="an accelerator of a newer generation, a newer engine.version, or another quantization",
            quote=scheme_refusal(needed, have, release),
            numbers={"needed": needed / 10, "compute_capability": have / 10},
            path="model",
        )
    ]


def refuses_type(method: str | None, compute: str, release: Release) -> Finding | None:
    """Methods whose kernels compute in float16 alone."""
    before = _ONLY_FLOAT16.get(method or "")
    if before is None or compute != "bfloat16" or release.number >= before:
        return None
    return Finding(
        level="block",
        code="dtype",
        message=f"{method} computes in float16 only",
        suggestion="engine.args.dtype: half",
        quote=f"torch.bfloat16 is not supported for quantization method {method}. Supported dtypes: [torch.float16]",
        path="engine.args.dtype",
    )

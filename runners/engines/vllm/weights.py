"""Weights on the fullest GPU: what tensor, pipeline and expert parallelism split, what they repeat, and what is cast.

layers/linear.py (QKVParallelLinear repeats key/value heads), layers/vocab_parallel_embedding.py (padding),
layers/fused_moe/layer.py (experts), distributed/utils.py (get_pp_indices).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch

from runners.engines.vllm import releases
from runners.engines.vllm.parallel import padded_vocabulary
from runners.engines.vllm.releases import Release
from runners.engines.vllm.settings import Settings
from runners.modelfacts.facts import ModelFacts, Module, Tensors

_PLAIN = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}
_LINEAR: frozenset[Module] = frozenset({"attention", "mlp", "experts"})
_FOUR_BITS = 0.5 + 4 / 64
"""bitsandbytes NF4: half a byte and a float32 for each 64 weights (layers/quantization/bitsandbytes.py)."""
_STREAMED = Release((0, 16, 0))
"""Online quantization works layer by layer while loading; before, all weights lie there unquantized first."""
_TEXT_ONLY = Release((0, 10, 2))
"""Without images and the like, a multimodal model's towers are not made."""
_BUFFERS_BYTES = 24 * 2**20
"""Rotary tables, Marlin's and the attention's small work spaces, on a GPU."""


@dataclass(frozen=True)
class Weights:
    """Bytes on the GPU that has the most."""

    bytes: float
    at_load: float
    """The most that lies there while it loads."""


def weights_on_one_gpu(model: ModelFacts, settings: Settings) -> Weights:
    parts = dict(_by_module(model, settings))
    layers = sum(parts.get(module, 0.0) for module in ("attention", "mlp", "experts", "router", "norm", "other"))
    ends = parts.get("embedding", 0.0), parts.get("lm_head", 0.0)
    if settings.pp > 1:
        share = -(-model.layer_count // settings.pp) / max(1, model.layer_count)
        head = ends[1] or ends[0]
        total = layers * share + max(ends[0], head) + parts.get("vision", 0.0)
    else:
        total = layers + sum(ends) + parts.get("vision", 0.0)
    total += _absorbed(model, settings) + (0 if settings.cpu else _BUFFERS_BYTES)
    offloaded = min(settings.flags.cpu_offload_gb * 2**30, total)
    final = total - offloaded
    return Weights(final, max(final, _at_load(model, settings) - offloaded))


def _by_module(model: ModelFacts, settings: Settings) -> Iterator[tuple[Module, float]]:
    sizes: dict[Module, float] = {}
    for tensors in model.tensors:
        sizes[tensors.module] = sizes.get(tensors.module, 0.0) + _stored(tensors, model, settings)
    for module, size in sizes.items():
        yield module, size * _share(module, model, settings)


def _stored(tensors: Tensors, model: ModelFacts, settings: Settings) -> float:
    """Bytes in the engine: plain floats are cast to the type that is computed in, packed ones stay as they are."""
    precision = settings.precision
    online = online_quantization(model, settings)
    width = _PLAIN.get(tensors.dtype.upper())
    if online and tensors.module in _LINEAR and width:
        return tensors.elements * _online_bytes(online)
    if tensors.module == "experts" and precision.quantization == "mxfp4" and width is None:
        return tensors.bytes * _mxfp4_padding(model)
    if width is None or (model.quantization and tensors.module in _LINEAR and tensors.dtype.upper() == "F32"):
        return float(tensors.bytes)
    return float(tensors.elements * precision.compute_bytes)


def _mxfp4_padding(model: ModelFacts) -> float:
    """Marlin pads experts to multiples of 128 inside and 256 outside (layers/quantization/mxfp4.py, create_weights)."""
    if model.experts is None or not model.hidden_size:
        return 1.0
    inner, outer = model.experts.intermediate_size, model.hidden_size
    return (-(-inner // 128) * 128) * (-(-outer // 256) * 256) / (inner * outer)


def online_quantization(model: ModelFacts, settings: Settings) -> str | None:
    """The method that quantizes an unquantized checkpoint while it is loaded."""
    method = settings.precision.quantization
    return method if model.quantization is None and method not in {None, "gguf"} else None


def _online_bytes(method: str) -> float:
    if method.startswith("bitsandbytes"):
        return _FOUR_BITS
    return 1.0 if any(fnmatch(method, form) for form in ("*fp8*", "*int8*", "deepspeedfp")) else 2.0


def _share(module: Module, model: ModelFacts, settings: Settings) -> float:
    """The part of a class of modules that one rank of tensor parallelism holds."""
    tp = settings.tp
    match module:
        case "embedding" | "lm_head":
            padding = padded_vocabulary(model) / model.vocab_size if model.vocab_size else 1.0
            return padding / tp
        case "attention":
            return _attention_share(model, tp)
        case "mlp":
            return 1 / tp
        case "vision":
            return 0.0 if settings.flags.no_images and settings.release >= _TEXT_ONLY else 1 / tp
        case "mtp":
            return 0.0  # loaded for speculative decoding only
        case "experts":
            count = model.experts.count if model.experts else 1
            ranks = tp * settings.dp
            if settings.flags.enable_expert_parallel:
                return -(-count // ranks) / count
            return 1 / ranks
        case _:
            return 1.0


def _absorbed(model: ModelFacts, settings: Settings) -> float:
    """Multi-head latent attention keeps its up-projections a second time, in the type that is computed in."""
    if settings.release < releases.MLA_LATENT:
        return 0.0
    layers = sum(one.count for one in model.layers if one.mixer == "mla")
    config = model.text_config
    wide = (config.get("qk_nope_head_dim") or 128) + (config.get("v_head_dim") or 128)
    each = model.heads / settings.tp * (config.get("kv_lora_rank") or 512) * wide
    return layers / settings.pp * each * settings.precision.compute_bytes


def _attention_share(model: ModelFacts, tp: int) -> float:
    """Queries and outputs are split; each rank has at least one key/value head; MLA's compressions are repeated."""
    if tp == 1:
        return 1.0
    config, hidden, heads = model.text_config, model.hidden_size, model.heads
    latent = next((layers for layers in model.layers if layers.mixer == "mla"), None)
    if latent:
        rank, rope = config.get("kv_lora_rank") or 512, config.get("qk_rope_head_dim") or 64
        nope, value = config.get("qk_nope_head_dim") or 128, config.get("v_head_dim") or 128
        queries = config.get("q_lora_rank")
        repeated = hidden * (rank + rope) + (hidden * queries if queries else 0)
        split = heads * (nope + rope) * (queries or hidden) + rank * heads * (nope + value) + heads * value * hidden
        return (repeated + split / tp) / (repeated + split)
    if tp <= model.kv_heads or not model.kv_heads:
        return 1 / tp
    wide, narrow = 2 * heads, 2 * model.kv_heads
    return (wide / tp + 2) / (wide + narrow)


def _at_load(model: ModelFacts, settings: Settings) -> float:
    """Before weights were quantized while streaming in, the unquantized model had to fit first."""
    online = online_quantization(model, settings)
    if online is None or online.startswith("bitsandbytes") or settings.release >= _STREAMED:
        return 0.0
    width = settings.precision.compute_bytes
    return (
        sum(tensors.elements * width * _share(tensors.module, model, settings) for tensors in model.tensors)
        / settings.pp
    )

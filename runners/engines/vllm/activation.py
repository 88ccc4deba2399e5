"""The peak of the profiling run over the weights: what a pass of the largest batch, and sampling from it, hold at once.

worker/model_runner.py and v1/worker/gpu_model_runner.py, profile_run; the sampler; layers/fused_moe/fused_moe.py. A
forward pass is counted by what lives at the same time in the feed-forward, which is a layer's largest part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runners.engines.vllm.releases import Release
from runners.engines.vllm.settings import GIB, Settings
from runners.modelfacts.facts import ModelFacts

SORT_BYTES = 38.7
"""For each row and vocabulary entry, where PyTorch sorts: logits 2, in float32 4, sorted 4, indices 8, the sort's own 8
and 12 (v1/sample/ops/topk_topp_sampler.py)."""
SORT_BYTES_HALF = 30.0
"""The same, while logits stayed in 16 bits until the softmax (before 0.6)."""
SORT_BYTES_SEPARATE = 40.0
"""Before 0.4.3, with probabilities and their logarithms beside them."""
TRITON_BYTES = 14.0
"""Triton's top-k/top-p works in place: logits 2, float32 4, probabilities 4, random numbers 4."""
FLASHINFER_BYTES = 12.0
LOGITS_BYTES = 4.0
"""Model Runner V2's dummy requests need no processing: the logits, and their copy."""
_SORTS_UNTIL, _TRITON_UNTIL = Release((0, 17, 0)), Release((0, 21, 0))
_SORTS_EVERYWHERE = Release((0, 11, 1))
_FUSED_NORM = Release((0, 2, 3))
_SORTED_IN_FLOAT32 = Release((0, 6, 0))
_IMAGE_TOKENS = 4096
"""Of the largest image, roughly, as the first engine's profiling run takes it."""
_ANY_SIZE_TOKENS = 16384
_LARGEST_ENCODER_GIB = 8
_ENCODER_STREAMS = 5.5
"""What lives at once in a vision tower, in hidden sizes: fits published logs of Qwen3.5 and Gemma 3; others differ."""
_MODULAR_EXPERTS = Release((0, 12, 0))
_MLA_PREFILL = Release((0, 9, 0))


@dataclass(frozen=True)
class Activation:
    """Bytes over the weights."""

    bytes: float
    forward: float
    sampling: float
    encoder: float = 0.0
    without_sort: float = 0.0
    """The same with FlashInfer's sampler, which 0.8 to 0.11.0 used where it happened to be installed."""


def activation(model: ModelFacts, settings: Settings) -> Activation:
    """The most that is allocated over the weights, in bytes, on the fullest rank."""
    tokens = settings.max_num_batched_tokens
    hidden = tokens * model.hidden_size * settings.precision.compute_bytes
    forward = _forward(model, settings)
    sampling = hidden + _sampling(model, settings)
    encoder = _encoder(model, settings)
    peak = max(forward, sampling)
    light = peak
    if settings.v1 and settings.release < _SORTS_EVERYWHERE:
        light = max(forward, hidden + _rows(model, settings) * model.vocab_size * FLASHINFER_BYTES)
    if model.model_type == "mllama":  # In one pass, of which the text's part is small.
        peak, light = max(peak, encoder) - encoder, max(light, encoder) - encoder
    return Activation(peak + encoder, forward, sampling, encoder, light + encoder)


def _forward(model: ModelFacts, settings: Settings) -> float:
    """b·N·(kH + 3I/tp): residual stream and the feed-forward's three parts."""
    width, tokens, tp = settings.precision.compute_bytes, settings.max_num_batched_tokens, settings.tp
    compiled = settings.v1 and not settings.flags.enforce_eager
    streams = 3 if compiled else 4 if settings.release >= _FUSED_NORM else 5
    if tp > 1 and not compiled:
        streams += 1
    gated = 2 if _is_plain_mlp(model) else 3
    inner = gated * model.intermediate_size / tp
    if model.experts:
        shared = gated * model.experts.shared_intermediate_size / tp
        inner = max(shared, inner if model.experts.layers < model.layer_count else 0.0)
    attention = (2 * model.heads + 2 * max(model.kv_heads, tp)) * model.head_dim / tp
    stage = width * tokens * (streams * model.hidden_size + max(inner, attention))
    return stage + _experts(model, settings) + _latent(model, settings)


def _is_plain_mlp(model: ModelFacts) -> bool:
    """fc1, activation, fc2 instead of gate, up and down."""
    return model.model_type in {
        "opt", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "bloom", "mpt", "falcon", "phi", "starcoder2", "codegen",
    }  # fmt: skip


def _experts(model: ModelFacts, settings: Settings) -> float:
    """The fused kernel's buffers: for each token and chosen expert, gate and up, the inner and the outer size."""
    if model.experts is None:
        return 0.0
    release, width = settings.release, settings.precision.compute_bytes
    chosen = min(settings.max_num_batched_tokens, _chunk(release)) * model.experts.per_token
    inner = model.experts.intermediate_size / (1 if settings.flags.enable_expert_parallel else settings.tp)
    hidden = model.hidden_size
    quantized = model.quantization is not None or settings.precision.quantization is not None
    if release < Release((0, 8, 0)):
        buffers = chosen * (3 * inner + hidden)
    elif release >= _MODULAR_EXPERTS or (quantized and release >= Release((0, 10, 2))):
        buffers = chosen * (max(2 * inner, hidden) + max(inner, hidden) + hidden)
    else:
        buffers = chosen * (max(2 * inner, hidden) + inner)
    return width * (buffers + settings.max_num_batched_tokens * hidden)


def _chunk(release: Release) -> int:
    """VLLM_FUSED_MOE_CHUNK_SIZE."""
    if release >= Release((0, 18, 0)):
        return 2**30
    if release >= Release((0, 12, 0)):
        return 16384
    return 32768 if release >= Release((0, 6, 0)) else 65536


def _latent(model: ModelFacts, settings: Settings) -> float:
    """Multi-head latent attention expands a chunk of the context for prefill (mla/common.py)."""
    if settings.release < _MLA_PREFILL or not any(layers.mixer == "mla" for layers in model.layers):
        return 0.0
    config = model.text_config
    rows = max(
        min(max(8 * settings.max_model_len, 4 * settings.max_num_seqs * settings.block_size), 65536),
        settings.max_num_seqs * settings.block_size,
    )
    expanded = model.heads / settings.tp * ((config.get("qk_nope_head_dim") or 128) + (config.get("v_head_dim") or 128))
    kept = (config.get("kv_lora_rank") or 512) + (config.get("qk_rope_head_dim") or 64)
    return settings.precision.compute_bytes * rows * (expanded + kept)


def _rows(model: ModelFacts, settings: Settings) -> int:
    """Sequences of the profiling run: the first engine gives each of a multimodal model's a whole image."""
    rows = min(settings.max_num_seqs, settings.max_num_batched_tokens)
    if settings.flags.pooling or any(file.name == "modules.json" for file in model.files):
        return 0
    if model.multimodal and not settings.v1:
        return max(1, min(rows, settings.max_num_batched_tokens // _IMAGE_TOKENS))
    return rows


def _sampling(model: ModelFacts, settings: Settings) -> float:
    rows = _rows(model, settings)
    return rows * model.vocab_size * _bytes_per_logit(model, settings, rows)


def _bytes_per_logit(model: ModelFacts, settings: Settings, rows: int) -> float:
    release = settings.release
    if not settings.v1:
        if release >= _SORTED_IN_FLOAT32:
            return SORT_BYTES
        return SORT_BYTES_HALF if release >= Release((0, 4, 3)) else SORT_BYTES_SEPARATE
    if runs_second_runner(model, settings):
        return LOGITS_BYTES
    if release < _SORTS_UNTIL or rows < 8:
        return SORT_BYTES
    return TRITON_BYTES if release < _TRITON_UNTIL else FLASHINFER_BYTES


def runs_second_runner(model: ModelFacts, settings: Settings) -> bool:
    """Whether Model Runner V2 is the default (config/vllm.py, use_v2_model_runner)."""
    asked = settings.flags.env.get("VLLM_USE_V2_MODEL_RUNNER")
    if asked is not None:
        return asked not in {"", "0"}
    release, dense = settings.release, model.experts is None
    if release >= Release((0, 29, 0)):
        return True
    if release >= Release((0, 25, 0)):
        recurrent = any(layers.mixer == "recurrent" for layers in model.layers)
        return dense and not recurrent
    plain = dense and model.quantization is None and settings.precision.quantization is None
    if release >= Release((0, 23, 0)):
        return plain and model.architecture in {"LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM"}
    return release >= Release((0, 22, 0)) and plain and model.architecture == "Qwen3ForCausalLM"


def _encoder(model: ModelFacts, settings: Settings) -> float:
    """A multimodal model's tower at its largest input, roughly; in the first engine only Gemma 3 filled a batch."""
    if model.model_type == "mllama":
        return _crossed(model, settings)
    skipped = settings.flags.skip_mm_profiling or settings.flags.no_images
    tower = model.config.get("vision_config")
    tower = tower if isinstance(tower, dict) else {}
    fills = settings.v1 or model.config.get("mm_tokens_per_image")
    if not model.multimodal or not fills or skipped or settings.cpu:
        return 0.0
    width = tower.get("hidden_size") or tower.get("embed_dim") or 1152
    each = _ENCODER_STREAMS * width
    tokens = settings.max_num_batched_tokens
    if not settings.v1:
        tokens = min(tokens, settings.max_num_seqs * _images(settings) * int(model.config["mm_tokens_per_image"]))
    return min(2 * _patches(model, tower, tokens) * each, _LARGEST_ENCODER_GIB * GIB)


def _images(settings: Settings) -> int:
    """That one request may hold; one by default."""
    limit = settings.flags.limit_mm_per_prompt.get("image", 1)
    return limit if isinstance(limit, int) else 1


def _patches(model: ModelFacts, tower: Mapping[str, Any], tokens: int) -> float:
    """Patches of the images that fill a batch; a tower that takes any size takes one of 16384 tokens at least."""
    merge = tower.get("spatial_merge_size")
    if merge:
        return float(max(tokens, _ANY_SIZE_TOKENS) * merge**2)
    per_image = model.config.get("mm_tokens_per_image")
    size, patch = tower.get("image_size"), tower.get("patch_size")
    if per_image and isinstance(size, int) and isinstance(patch, int):
        return float(tokens * (size // patch) ** 2 / per_image)
    ratio = model.config.get("downsample_ratio") or 1
    return float(tokens / ratio**2)


def _crossed(model: ModelFacts, settings: Settings) -> float:
    """Llama 3.2's vision features of four tiles with 1601 patches, twice, for every sequence at once."""
    images = min(settings.max_num_seqs, max(1, settings.max_num_batched_tokens // 16))
    return float(2 * images * 4 * 1601 * (7680 + model.hidden_size) * settings.precision.compute_bytes)

"""GGUF's metadata as the config of the same model, so that one reading of shapes serves both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runners.modelfacts.clean import name_of
from runners.modelfacts.fields import Origin
from runners.modelfacts.quantization import whole

TYPES = {
    "llama": "llama", "llama4": "llama4_text", "mistral3": "ministral3", "falcon": "falcon", "gpt2": "gpt2",
    "gptj": "gptj", "gptneox": "gpt_neox", "mpt": "mpt", "baichuan": "baichuan", "starcoder": "gpt_bigcode",
    "starcoder2": "starcoder2", "bloom": "bloom", "stablelm": "stablelm", "qwen": "qwen", "qwen2": "qwen2",
    "qwen2moe": "qwen2_moe", "qwen2vl": "qwen2", "qwen3": "qwen3", "qwen3moe": "qwen3_moe", "qwen3vl": "qwen3",
    "qwen3vlmoe": "qwen3_moe", "phi2": "phi", "phi3": "phi3", "phimoe": "phimoe", "internlm2": "internlm2",
    "minicpm": "minicpm", "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3_text", "gemma3n": "gemma3n_text",
    "command-r": "cohere", "cohere2": "cohere2", "dbrx": "dbrx", "olmo": "olmo", "olmo2": "olmo2", "olmoe": "olmoe",
    "deepseek": "deepseek", "deepseek2": "deepseek_v3", "chatglm": "glm", "glm4": "glm4", "glm4moe": "glm4_moe",
    "nemotron": "nemotron", "exaone": "exaone", "exaone4": "exaone4", "granite": "granite", "granitemoe": "granitemoe",
    "gpt-oss": "gpt_oss", "smollm3": "smollm3", "seed_oss": "seed_oss", "dots1": "dots1", "arcee": "arcee",
    "hunyuan-dense": "hunyuan_v1_dense", "ernie4_5": "ernie4_5", "minimax-m2": "minimax_m2",
}  # fmt: skip
"""llama.cpp's names of architectures → the model types of transformers that have the same layers."""

_NAMES = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "attention.head_count": "num_attention_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "v_head_dim",
    "attention.sliding_window": "sliding_window",
    "attention.sliding_window_pattern": "sliding_window_pattern",
    "attention.chunk_size": "attention_chunk_size",
    "attention.kv_lora_rank": "kv_lora_rank",
    "attention.q_lora_rank": "q_lora_rank",
    "expert_count": "num_local_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "leading_dense_block_count": "first_k_dense_replace",
    "interleave_moe_layer_step": "interleave_moe_layer_step",
    "vocab_size": "vocab_size",
}


def origin_of(metadata: Mapping[str, Any], file: str) -> Origin:
    """How a GGUF file calls what its config calls otherwise."""
    architecture = name_of(metadata.get("general.architecture"))
    keys = {**_NAMES, "attention.head_count_kv": "num_key_value_heads"}
    called = {theirs: f"{architecture}.{ours}" for ours, theirs in keys.items()}
    kv_heads = called["num_key_value_heads"]
    return Origin(where=file, advice="fetch or convert it again", names={**called, "num_kv_heads": kv_heads})


def config_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the metadata's model; its model_type is the architecture's own name where no other is known."""
    architecture = name_of(metadata.get("general.architecture"))
    found = {
        theirs: metadata[key]
        for ours, theirs in _NAMES.items()
        if (key := f"{architecture}.{ours}") in metadata and not isinstance(metadata[key], Mapping)
    }
    found["model_type"] = TYPES.get(architecture, architecture)
    found |= _kv_heads(found["model_type"], metadata.get(f"{architecture}.attention.head_count_kv"))
    tokens = metadata.get("tokenizer.ggml.tokens")
    if "vocab_size" not in found and isinstance(tokens, Mapping | list):
        found["vocab_size"] = tokens.get("length") if isinstance(tokens, Mapping) else len(tokens)
    if isinstance(pattern := found.pop("sliding_window_pattern", None), list):
        found["layer_types"] = ["sliding_attention" if sliding else "full_attention" for sliding in pattern]
    elif isinstance(pattern, int) and pattern:
        found["sliding_window_pattern"] = pattern
    if not found.get("sliding_window"):
        found["sliding_window"] = None  # a window is always stated here
    else:
        found["use_sliding_window"] = True
    if "kv_lora_rank" in found:
        found |= _latent(found, metadata, architecture)
    return found


def _kv_heads(model_type: str, stated: Any) -> dict[str, Any]:
    if stated is None:
        return {}
    # A list of one value for all layers is that value.
    value = stated[0] if isinstance(stated, list) and stated and all(one == stated[0] for one in stated) else stated
    falcon = {"num_kv_heads": value, "multi_query": value == 1, "new_decoder_architecture": value != 1}
    bigcode = {"multi_query": value == 1}
    return {"num_key_value_heads": value, **({"falcon": falcon, "gpt_bigcode": bigcode}.get(model_type, {}))}


def _latent(found: Mapping[str, Any], metadata: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    """Multi-head latent attention: newer files give the lengths as the cache has them, and those of one head apart."""
    rope = whole(metadata.get(f"{architecture}.rope.dimension_count")) or 0
    key = whole(metadata.get(f"{architecture}.attention.key_length_mla")) or whole(found.get("head_dim")) or 0
    value = metadata.get(f"{architecture}.attention.value_length_mla") or found.get("v_head_dim", 0)
    return {
        "qk_rope_head_dim": rope,
        "qk_nope_head_dim": max(0, key - rope),
        "v_head_dim": value,
        "q_lora_rank": found.get("q_lora_rank"),
    }

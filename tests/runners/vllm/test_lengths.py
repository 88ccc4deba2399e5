"""The model's own length, by release, and vLLM's refusal of a longer one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runners.vllm.building import assess, finding, model

YARN = {"type": "yarn", "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LINEAR = {"type": "linear", "rope_type": "linear", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
LONGROPE = {"type": "longrope", "rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}


def length(version: str, config: dict[str, Any], **args: Any) -> int:
    memory = assess(model(**config), "H200", version=version, **args).memory
    assert memory is not None
    return memory.max_model_len


@pytest.mark.parametrize(
    ("version", "config", "tokens"),
    [
        ("0.2.1", {}, 8192),
        ("0.33.0", {}, 8192),
        ("0.3.0", {"max_position_embeddings": 4096, "rope_scaling": LINEAR}, 16384),
        ("0.33.0", {"max_position_embeddings": 4096, "rope_scaling": LINEAR}, 16384),
        ("0.6.0", {"max_position_embeddings": 32768, "rope_scaling": YARN}, 131072),
        ("0.33.0", {"max_position_embeddings": 32768, "rope_scaling": YARN}, 32768),
        ("0.6.0", {"max_position_embeddings": 131072, "rope_scaling": LLAMA3}, 131072),
        (
            "0.33.0",
            {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "rope_scaling": LONGROPE},
            4096,
        ),
        ("0.33.0", {"max_position_embeddings": 8192, "model_max_length": 131072}, 131072),
        ("0.6.0", {"max_position_embeddings": 8192, "model_max_length": 131072}, 8192),
    ],
)
def test_the_derived_length(version: str, config: dict[str, Any], tokens: int) -> None:
    assert length(version, config) == tokens


@pytest.mark.parametrize(
    ("version", "quote"),
    [
        (
            "0.2.1",
            "User-specified max_model_len (99999) is greater than the derived max_model_len "
            "(max_position_embeddings=8192 in model's config.json). This may lead to incorrect model outputs or CUDA "
            "errors. Make sure the value is correct and within the model context size.",
        ),
        (
            "0.9.2",
            "User-specified max_model_len (99999) is greater than the derived max_model_len "
            "(max_position_embeddings=8192 or model_max_length=None in model's config.json). This may lead to "
            "incorrect model outputs or CUDA errors. To allow overriding this maximum, set the env var "
            "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1",
        ),
        (
            "0.33.0",
            "User-specified max_model_len (99999) is greater than the derived max_model_len "
            "(max_position_embeddings=8192.0 or model_max_length=None in model's config.json). To allow overriding "
            "this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1.",
        ),
    ],
)
def test_a_longer_one_is_refused_in_the_releases_words(version: str, quote: str) -> None:
    found = finding(assess(model(), "H200", version=version, max_model_len=99999), "max-model-len")
    assert found.level == "block"
    assert found.quote.startswith(quote)
    assert found.numbers["derived"] == 8192
    assert found.suggestion == "engine.args.max_model_len: 8192"


def test_the_environment_allows_a_longer_one() -> None:
    env = {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}
    found = finding(assess(model(), "H200", max_model_len=16384, env=env), "max-model-len")
    assert found.level == "warn"


def test_the_first_attention_kernel_held_a_request_in_shared_memory() -> None:
    facts = model(max_position_embeddings=65536)
    found = finding(assess(facts, "RTX6000-Ada", version="0.2.0"), "max-model-len")
    assert found.quote.startswith("vLLM cannot currently support max_model_len=65536 with block_size=16 on GPU")
    assert found.numbers["most"] == 25344


def test_auto_takes_what_fits() -> None:
    facts = model(max_position_embeddings=131072)
    memory = assess(facts, "RTX4090", version="0.20.0", max_model_len=-1).memory
    assert memory is not None
    assert 8192 < memory.max_model_len < 131072
    assert memory.max_model_len == memory.longest_that_fits


def test_a_batch_must_hold_a_request_where_prompts_are_not_cut() -> None:
    found = finding(assess(version="0.2.7", max_num_batched_tokens=4096), "max-model-len")
    assert found.quote.startswith("max_num_batched_tokens (4096) is smaller than max_model_len (8192).")

"""Which release has which architecture, and what is said of those that it has not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runners.vllm.building import LLAMA, assess, finding, model

NOT_YET = "Model architectures ['{}'] are not supported for now. Supported architectures:"
NO_FALLBACK = "Qwen3ForCausalLM has no vLLM implementation and the Transformers implementation is not compatible"
CASES: list[tuple[str, str, str | None, str]] = [
    ("0.2.1", "Qwen3ForCausalLM", "block", NOT_YET.format("Qwen3ForCausalLM")),
    ("0.4.0", "Gemma2ForCausalLM", "block", NOT_YET.format("Gemma2ForCausalLM")),
    ("0.5.1", "Gemma2ForCausalLM", None, ""),
    ("0.7.0", "NobodyForCausalLM", "block", NOT_YET.format("NobodyForCausalLM")),
    ("0.8.0", "Qwen3ForCausalLM", "warn", NO_FALLBACK),
    ("0.8.5", "Qwen3ForCausalLM", None, ""),
    ("0.10.0", "GptOssForCausalLM", "warn", NOT_YET.format("GptOssForCausalLM")),
    ("0.33.0", "NobodyForCausalLM", "warn", NOT_YET.format("NobodyForCausalLM")),
    ("0.10.2", "MllamaForConditionalGeneration", None, ""),
    ("0.33.0", "MPTForCausalLM", "warn", "Model architecture MPTForCausalLM was supported in vLLM until"),
    ("0.2.1", "LlamaForCausalLM", None, ""),
    ("99.0.0", "NobodyForCausalLM", "warn", NOT_YET.format("NobodyForCausalLM")),
]


@pytest.mark.parametrize(("version", "name", "level", "quote"), CASES)
def test_architectures_come_and_go(version: str, name: str, level: str | None, quote: str) -> None:
    # A config of a family that recipe knows, so that its shapes give no findings of their own.
    assessment = assess(model(architectures=[name], torch_dtype="float16"), version=version)
    found = [one for one in assessment.findings if one.code == "architecture"]
    assert [one.level for one in found if name in one.message] == ([level] if level else [])
    assert all(one.quote.startswith(quote) for one in found if one.quote)


@pytest.mark.parametrize(
    ("architectures", "args"),
    [
        (["NobodyForCausalLM", "LlamaForCausalLM"], {}),
        (["NobodyForCausalLM"], {"hf_overrides": {"architectures": ["LlamaForCausalLM"]}}),
    ],
)
def test_one_architecture_that_is_known_is_enough(architectures: list[str], args: dict[str, Any]) -> None:
    facts = model(architectures=architectures)
    found = assess(facts, version="0.10.0", **args).findings
    assert not any(one.quote for one in found if one.code == "architecture")


def test_what_recipe_does_not_know_itself_is_said_once() -> None:
    strange = model({**LLAMA, "model_type": "strange", "architectures": ["StrangeForCausalLM"]})
    assert finding(assess(strange, version="0.33.0"), "architecture").level == "warn"

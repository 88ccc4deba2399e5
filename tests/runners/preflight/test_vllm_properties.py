"""With vLLM's own rules: more memory or fewer tokens never makes matters worse, and suggestions are accepted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from provisioners.accelerators import Machine, all_known
from recipes.spec import Engine as EngineSpec
from runners.case import Case, Demand
from runners.modelfacts.config import facts_of
from runners.modelfacts.facts import ModelFacts
from runners.preflight.judge import judge_offer
from runners.preflight.question import Question
from runners.preflight.solve import remedies
from runners.preflight.table import known_offers
from runners.registry import engine
from tests.runners.preflight.questions import estimate, question

VLLM = engine("vllm")
RELEASES = ["0.2.1", "0.4.3", "0.6.3", "0.8.5", "0.11.0", "0.20.0", "0.33.0"]
CUDA = [one for one in all_known() if one.compute_capability]


def llama(hidden: int, layers: int, heads: int, kv_heads: int, vocab: int) -> ModelFacts:
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": hidden * 7 // 2,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": 131_072,
        "torch_dtype": "float16",
    }
    return facts_of(config, identifier="a/llama")


models = st.sampled_from(
    [
        llama(2048, 16, 32, 8, 128_256),
        llama(4096, 32, 32, 8, 128_256),
        llama(4096, 32, 32, 32, 32_000),
        llama(8192, 80, 64, 8, 32_000),
    ]
)
sizes = st.sampled_from([1, 2, 3, 4, 8])
lengths = st.sampled_from([1024, 4096, 8192, 16_384, 32_768, 100_000])


def starts(case: Case) -> bool:
    return not any(finding.level == "block" for finding in VLLM.assess(case).findings)


def case(model: ModelFacts, accelerator: Any, size: int, length: int, release: str) -> Case:
    spec = EngineSpec(name="vllm", tensor_parallel_size=size, args={"max_model_len": length})
    machine = Machine(accelerator=accelerator, count=size)
    demand = Demand(longest_request_tokens=1000, mean_request_tokens=800, concurrency=8)
    return Case(spec=spec, version=release, model=model, machine=machine, demand=demand)


@settings(max_examples=150, deadline=None)
@given(models, st.sampled_from(CUDA), sizes, lengths, st.sampled_from(RELEASES), st.floats(0.1, 60))
def test_more_memory_never_turns_starts_into_does_not(
    model: ModelFacts, accelerator: Any, size: int, length: int, release: str, more_gib: float
) -> None:
    asked = case(model, accelerator, size, length, release)
    if starts(asked):
        low, high = accelerator.usable_range_gib
        roomier = replace(
            accelerator,
            usable_gib=accelerator.usable_gib + more_gib,
            usable_range_gib=(low + more_gib, high + more_gib),
        )
        assert starts(replace(asked, machine=replace(asked.machine, accelerator=roomier)))


@settings(max_examples=150, deadline=None)
@given(models, st.sampled_from(CUDA), sizes, lengths, st.floats(0.05, 1))
def test_fewer_tokens_never_turn_starts_into_does_not(
    model: ModelFacts, accelerator: Any, size: int, length: int, share: float
) -> None:
    asked = case(model, accelerator, size, length, "0.33.0")
    if starts(asked):
        shorter = asked.spec.model_copy(update={"args": {"max_model_len": max(512, int(length * share))}})
        assert starts(replace(asked, spec=shorter))


@settings(max_examples=30, deadline=None)
@given(models, st.sampled_from(known_offers("runpod")), sizes, lengths, st.sampled_from(RELEASES))
def test_every_suggestion_is_accepted(model: ModelFacts, refused: Any, size: int, length: int, release: str) -> None:
    asked: Question = replace(
        question(
            name="vllm",
            version=release,
            tensor_parallel_size=size,
            args={"max_model_len": length},
            estimate=estimate(longest_request_tokens=1000),
        ),
        engine=VLLM,
        model=model,
    )
    judged = judge_offer(asked, refused)
    if judged.passed:
        return
    catalogue = known_offers("runpod")
    for remedy in remedies(asked, judged, catalogue):
        changed = asked.changed(remedy.overrides)
        wanted = changed.recipe.resources.accelerators
        assert wanted is not None
        elsewhere = any("accelerators" in override for override in remedy.overrides)
        offers = [o for o in catalogue if (o.accelerator, o.count) == (wanted.name, wanted.count)]
        assert any(judge_offer(changed, offer).passed for offer in (offers if elsewhere else [refused]))

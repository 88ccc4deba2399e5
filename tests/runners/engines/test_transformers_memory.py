"""What transformers serve needs, and refuses: published cases, its own figures, and what must always hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioners.accelerators import Accelerator, Machine
from provisioners.contract import Finding
from recipes.spec import Engine as EngineSpec
from runners import registry
from runners.case import Assessment, Case, Demand
from runners.engines.transformers.memory import Need, kv_per_token, paged_tokens, weight_bytes
from runners.engines.transformers.options import Options
from runners.modelfacts.config import facts_of
from runners.modelfacts.facts import ModelFacts, Quantization

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False}


def model(**config: Any) -> ModelFacts:
    return facts_of({**LLAMA, **config}, identifier="a/model")


LLAMA2_7B = model(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32,
    vocab_size=32000, max_position_embeddings=4096, torch_dtype="float16",
)  # fmt: skip
LLAMA3_70B = model(
    hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
    vocab_size=128256, max_position_embeddings=8192, torch_dtype="bfloat16",
)  # fmt: skip
LEAD = model(
    hidden_size=160, intermediate_size=320, num_hidden_layers=4, num_attention_heads=5, num_key_value_heads=5,
    vocab_size=2048, max_position_embeddings=2048, torch_dtype="bfloat16",
)  # fmt: skip
MIXTRAL = facts_of(
    {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000, "max_position_embeddings": 32768,
        "torch_dtype": "bfloat16",
    },
    identifier="a/mixtral",
)  # fmt: skip

T4 = Accelerator(name="T4", label_gb=16, usable_gib=14.75, bandwidth_gb_s=320, compute_capability=(7, 5))
V100 = Accelerator(name="V100", label_gb=16, usable_gib=15.8, bandwidth_gb_s=900, compute_capability=(7, 0))
A100 = Accelerator(name="A100-40GB", label_gb=40, usable_gib=39.4, bandwidth_gb_s=1555, compute_capability=(8, 0))
H100 = Accelerator(name="H100-80GB", label_gb=80, usable_gib=79.2, bandwidth_gb_s=3350, compute_capability=(9, 0))
LONG = Demand(longest_request_tokens=3500, mean_request_tokens=2000, concurrency=20)


def gpus(accelerator: Accelerator, count: int = 1) -> Machine:
    return Machine(accelerator=accelerator, count=count, ram_gib=60)


def assessed(
    facts: ModelFacts,
    machine: Machine,
    *,
    demand: Demand | None = None,
    engine: dict[str, Any] | None = None,
    **args: Any,
) -> Assessment:
    spec = EngineSpec.model_validate({"name": "transformers", "args": args, **(engine or {})})
    case = Case(spec=spec, version="5.23.0", model=facts, machine=machine, demand=demand)
    return registry.engine("transformers").assess(case)


def of_level(assessment: Assessment, level: str) -> list[Finding]:
    return [finding for finding in assessment.findings if finding.level == level]


def codes(assessment: Assessment, level: str) -> list[str]:
    return [finding.code for finding in of_level(assessment, level)]


# (GPU, flags, GiB of weights, codes of blocks, codes of warnings) for Llama-2-7b-chat, as published
PUBLISHED: list[tuple[Accelerator, dict[str, Any], float, list[str], list[str]]] = [
    (T4, {"dtype": "float32"}, 25.10, ["weights"], []),
    (T4, {"quantization": "bnb-4bit"}, 3.60, [], []),
    (T4, {"quantization": "bnb-8bit"}, 6.52, [], []),
    (T4, {"dtype": "float16"}, 12.55, [], ["kv-cache"]),
    (T4, {"dtype": "auto"}, 12.55, [], ["kv-cache"]),
    (T4, {"dtype": "bfloat16"}, 12.55, [], ["dtype", "kv-cache"]),
    (A100, {"dtype": "float16"}, 12.55, [], []),
    (A100, {"dtype": "bfloat16"}, 12.55, [], []),
    (A100, {"dtype": "float32"}, 25.10, [], []),
]


@pytest.mark.parametrize(("accelerator", "args", "weights_gib", "blocks", "warnings"), PUBLISHED)
def test_llama2_7b_is_judged_as_it_was_published(
    accelerator: Accelerator, args: dict[str, Any], weights_gib: float, blocks: list[str], warnings: list[str]
) -> None:
    assessment = assessed(LLAMA2_7B, gpus(accelerator), **args)
    assert assessment.memory
    assert assessment.memory.weights_gib_per_gpu == pytest.approx(weights_gib, abs=0.01)
    assert (codes(assessment, "block"), codes(assessment, "warn")) == (blocks, warnings)
    for finding in of_level(assessment, "block"):
        assert finding.quote == "CUDA out of memory. Tried to allocate"


REFUSED: list[tuple[ModelFacts, Machine, dict[str, Any], dict[str, Any], str, str]] = [
    (LLAMA3_70B, gpus(H100), {}, {}, "weights", "CUDA out of memory"),
    (LLAMA2_7B, gpus(H100), {"tensor_parallel_size": 2}, {}, "parallelism", ""),
    (LLAMA2_7B, gpus(H100), {"data_parallel_size": 2}, {}, "parallelism", ""),
    (LLAMA2_7B, gpus(H100), {"expose": True}, {}, "exposed", ""),
    (LEAD, gpus(V100), {}, {}, "capability", "no kernel image is available"),
    (
        LEAD,
        gpus(replace(A100, name="MI300X", vendor="amd", compute_capability=None)),
        {},
        {},
        "capability",
        "Found no NVIDIA driver on your system",
    ),
    (LEAD, gpus(A100), {}, {"quantization": "awq"}, "quantization", "Unsupported quantization method: 'awq'"),
    (LEAD, gpus(A100), {}, {"dtype": "half"}, "dtype", "Unsupported dtype: 'half'"),
    (LEAD, Machine(ram_gib=8), {}, {"quantization": "bnb-4bit"}, "quantization", "is invalid for input of size"),
    (LLAMA2_7B, Machine(ram_gib=16), {}, {"dtype": "float32"}, "ram", ""),
    (
        LLAMA3_70B,
        gpus(T4, 2),
        {"pipeline_parallel_size": 2},
        {"quantization": "bnb-8bit"},
        "weights",
        "Some modules are dispatched on the CPU or the disk.",
    ),
    (
        replace(LLAMA2_7B, quantization=Quantization(method="gptq", bits=4)),
        gpus(A100),
        {},
        {},
        "quantization",
        "Loading a GPTQ quantized model requires optimum",
    ),
    (
        LLAMA2_7B,
        gpus(T4),
        {},
        {"continuous_batching": True, "cb_max_batch_tokens": 65536},
        "kv-cache",
        "Invalid values: max_batch_tokens",
    ),
    (replace(LEAD, form="gguf"), Machine(ram_gib=8), {}, {}, "architecture", ""),
]


@pytest.mark.parametrize(("facts", "machine", "engine", "args", "code", "quote"), REFUSED)
def test_what_would_not_work_is_refused_with_the_librarys_words(
    facts: ModelFacts, machine: Machine, engine: dict[str, Any], args: dict[str, Any], code: str, quote: str
) -> None:
    blocks = of_level(assessed(facts, machine, engine=engine, **args), "block")
    assert [finding.code for finding in blocks] == [code]
    assert quote in blocks[0].quote


STARTS: list[tuple[ModelFacts, Machine, dict[str, Any], dict[str, Any]]] = [
    (LEAD, Machine(ram_gib=2), {}, {}),
    (LEAD, Machine(), {}, {"quantization": "bnb-8bit"}),
    (LLAMA2_7B, gpus(A100), {}, {"continuous_batching": True}),
    (LLAMA3_70B, gpus(H100, 2), {"pipeline_parallel_size": 2}, {}),
    (LLAMA3_70B, gpus(H100, 4), {}, {"device": "auto"}),
]


@pytest.mark.parametrize(("facts", "machine", "engine", "args"), STARTS)
def test_what_fits_is_let_through(
    facts: ModelFacts, machine: Machine, engine: dict[str, Any], args: dict[str, Any]
) -> None:
    assessment = assessed(facts, machine, engine=engine, **args)
    assert {finding.level for finding in assessment.findings} == {"ok"}
    assert assessment.memory
    assert assessment.memory.max_running >= 1


def test_requests_wait_for_each_other_unless_they_are_batched() -> None:
    alone = assessed(LLAMA2_7B, gpus(A100), demand=LONG).memory
    batched = assessed(LLAMA2_7B, gpus(A100), demand=LONG, continuous_batching=True).memory
    assert alone
    assert batched
    assert (alone.max_running, alone.slots) == (1, 1)
    assert batched.max_running > 5


def test_a_request_that_has_no_room_beside_the_weights_is_told() -> None:
    assessment = assessed(LLAMA2_7B, gpus(T4), demand=LONG, dtype="float16")
    (finding,) = of_level(assessment, "warn")
    assert (finding.code, finding.path) == ("kv-cache", "workload.chunk_size")
    assert assessment.memory
    assert 2500 < assessment.memory.longest_that_fits < 3200
    longer = replace(LONG, longest_request_tokens=4000)
    assert codes(assessed(LLAMA2_7B, gpus(T4), demand=longer, dtype="float16"), "block") == ["kv-cache"]


def test_layers_that_spill_into_ram_are_warned_of() -> None:
    for engine, args in (({"pipeline_parallel_size": 2}, {}), ({}, {"device": "auto"})):
        assessment = assessed(LLAMA3_70B, gpus(A100, 2), engine=engine, **args)
        assert codes(assessment, "block") == []
        assert "weights" in codes(assessment, "warn")


def test_experts_and_the_output_layer_stay_as_they_are_when_quantized() -> None:
    machine = gpus(H100)
    plain = weight_bytes(MIXTRAL, Options(), machine)
    quantized = weight_bytes(MIXTRAL, Options(quantization="bnb-4bit"), machine)
    experts = 32 * 8 * 3 * 4096 * 14336 * 2
    assert quantized > experts
    assert plain - quantized == pytest.approx(32 * 4096 * (2 * 4096 + 2 * 1024) * (2 - 0.516), rel=0.01)


def test_float8_becomes_bfloat16_where_it_is_not_computed() -> None:
    stored = tuple(replace(one, dtype="F8_E4M3", bytes=one.elements) for one in LLAMA2_7B.tensors)
    facts = replace(LLAMA2_7B, tensors=stored, quantization=Quantization(method="fp8"))
    assert weight_bytes(facts, Options(), gpus(A100)) == 2 * weight_bytes(facts, Options(), gpus(H100))
    assert "quantization" in codes(assessed(facts, gpus(A100)), "warn")
    assert "quantization" not in codes(assessed(facts, gpus(H100)), "warn")


# (free GiB × share, max_batch_tokens, blocks), as PagedAttentionMemoryHandler itself computes them for this model
PAGED = [(13.93411559984088, 8192, 2902), (2.322352599352598, 8192, 457), (2.322352599352598, 512, 2129)]


@pytest.mark.parametrize(("available_gib", "batch_tokens", "blocks"), PAGED)
def test_the_paged_cache_is_as_large_as_the_library_makes_it(
    available_gib: float, batch_tokens: int, blocks: int
) -> None:
    options = Options(batching=True, batch_tokens=batch_tokens, memory_share=1.0)
    free = Need(
        usable=available_gib, weights=0, other=0, activation=0, kv_bytes_per_token=2560, kv_bytes_fixed=0, places=1
    )
    assert kv_per_token(LEAD, 2) == (2560, 0)
    assert paged_tokens(LEAD, options, free, on_gpu=False) == pytest.approx(blocks * 256, rel=0.02)


machines = st.builds(
    lambda accelerator, gib, count: gpus(replace(accelerator, usable_gib=gib), count),
    st.sampled_from([T4, A100, H100]), st.floats(4, 190), st.integers(1, 8),
) | st.builds(lambda ram: Machine(ram_gib=ram), st.floats(1, 400))  # fmt: skip
flags = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["float32", "float16", "bfloat16"]),
        "quantization": st.sampled_from(["bnb-4bit", "bnb-8bit"]),
        "device": st.sampled_from(["auto", "cuda"]),
        "continuous_batching": st.booleans(),
    },
)
facts = st.sampled_from([LLAMA2_7B, LLAMA3_70B, LEAD, MIXTRAL])
demands = st.none() | st.builds(
    lambda tokens: Demand(longest_request_tokens=tokens, mean_request_tokens=tokens, concurrency=4),
    st.integers(16, 4096),
)


@given(facts=facts, machine=machines, args=flags, demand=demands, more=st.floats(1, 3))
def test_more_memory_never_turns_what_fits_into_what_does_not(
    facts: ModelFacts, machine: Machine, args: dict[str, Any], demand: Demand | None, more: float
) -> None:
    if of_level(assessed(facts, machine, demand=demand, **args), "block"):
        return
    accelerator = machine.accelerator and replace(machine.accelerator, usable_gib=machine.accelerator.usable_gib * more)
    larger = replace(machine, accelerator=accelerator, ram_gib=(machine.ram_gib or 1) * more)
    assert not of_level(assessed(facts, larger, demand=demand, **args), "block")


@given(facts=facts, machine=machines, args=flags, demand=demands, less=st.floats(0.05, 1))
def test_shorter_requests_never_turn_what_fits_into_what_does_not(
    facts: ModelFacts, machine: Machine, args: dict[str, Any], demand: Demand | None, less: float
) -> None:
    if demand is None or of_level(assessed(facts, machine, demand=demand, **args), "block"):
        return
    shorter = replace(demand, longest_request_tokens=max(1, int(demand.longest_request_tokens * less)))
    assert not of_level(assessed(facts, machine, demand=shorter, **args), "block")


@given(facts=facts, machine=machines, args=flags, demand=demands)
def test_the_parts_of_memory_fit_into_it(
    facts: ModelFacts, machine: Machine, args: dict[str, Any], demand: Demand | None
) -> None:
    memory = assessed(facts, machine, demand=demand, **args).memory
    assert memory
    parts = memory.weights_gib_per_gpu + memory.activation_gib_per_gpu + memory.other_gib_per_gpu
    assert memory.kv_gib_per_gpu >= 0
    if memory.kv_gib_per_gpu > 0:
        assert parts + memory.kv_gib_per_gpu <= memory.usable_gib_per_gpu + 1e-6

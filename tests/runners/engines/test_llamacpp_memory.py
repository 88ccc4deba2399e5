"""Planning agrees with what llama.cpp logs, and refuses what it refuses: recorded from the tested release."""

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
from runners.engines.llamacpp.memory import compute_bytes, context_of, kv_bytes, layout
from runners.engines.llamacpp.options import Options
from runners.modelfacts.facts import Layers
from tests.runners.engines.gguf_shapes import (
    GEMMA3_12B,
    LLAMA2_7B,
    LLAMA2_70B,
    LLAMA3_8B,
    MIXTRAL,
    QWEN3_MOE,
    QWEN25_7B,
    Shape,
    shape,
)

MIB = 2**20
LEAD = shape(hidden=160, inner=320, heads=5, kv_heads=5, vocabulary=2048, dtype="Q8_0")
T4 = Accelerator(name="T4", label_gb=16, usable_gib=14.75, bandwidth_gb_s=320, compute_capability=(7, 5))
A100 = Accelerator(name="A100-80GB", label_gb=80, usable_gib=79.2, bandwidth_gb_s=2039, compute_capability=(8, 0))
CPU = Machine(cpus=2, ram_gib=23.5)


def gpus(accelerator: Accelerator, count: int = 1, ram_gib: float = 64) -> Machine:
    return Machine(accelerator=accelerator, count=count, ram_gib=ram_gib)


def assessed(
    model: Shape,
    machine: Machine = CPU,
    *,
    demand: Demand | None = None,
    engine: dict[str, Any] | None = None,
    **args: Any,
) -> Assessment:
    spec = EngineSpec.model_validate({"name": "llamacpp", "args": args, **(engine or {})})
    case = Case(spec=spec, version="2026.10.11549", model=model.facts(), machine=machine, demand=demand)
    return registry.engine("llamacpp").assess(case)


def options(**args: Any) -> Options:
    return Options.of(EngineSpec(name="llamacpp", args=args))


def found(assessment: Assessment, code: str) -> list[Finding]:
    return [finding for finding in assessment.findings if finding.code == code]


def levels(assessment: Assessment) -> dict[str, str]:
    return {finding.code: finding.level for finding in assessment.findings}


# (model, flags, MiB of "KV buffer size", MiB of "compute buffer size"), as the engine logged them
LOGGED: list[tuple[Shape, dict[str, Any], float, float]] = [
    (LEAD, {}, 5.00, 5.46),
    (LEAD, {"parallel": 3}, 15.00, 5.47),
    (LEAD, {"ctx_size": 5000, "parallel": 3, "ubatch_size": 256}, 13.125, 2.62),
    (LEAD, {"ctx-size": 5000, "np": 3, "kv_unified": True}, 12.50, 8.47),
    (LEAD, {"c": 4096, "ctk": "q8_0"}, 7.65625, 7.46),
    (LEAD, {"ctx_size": 4096, "cache_type_k": "q4_0", "cache_type_v": "q4_1"}, 2.96875, 7.46),
    (LEAD, {"ctx_size": 8192, "cache_type_k": "bf16", "cache_type_v": "f32"}, 30.00, 12.39),
    (LEAD, {"ctx_size": 4096, "flash_attn": "off"}, 10.00, 50.51),
    (LLAMA2_7B, {"ctx_size": 8192, "parallel": 4}, 4096, 106.52),
    (LLAMA2_7B, {"ctx_size": 8192, "flash_attn": False}, 4096, 592.01),
    (LLAMA2_7B, {"ctx_size": 32768, "parallel": 2}, 16384, 120.52),
    (LLAMA2_7B, {"ctx_size": 8192, "ubatch_size": 2048}, 4096, 450.07),
    (LLAMA2_70B, {"ctx_size": 8192, "parallel": 4}, 2560, 250.02),
    (LLAMA3_8B, {"ctx_size": 8192, "parallel": 4}, 1024, 126.02),
    (QWEN25_7B, {"ctx_size": 8192, "parallel": 4}, 448, 148.02),
    (QWEN25_7B, {"ctx_size": 8192, "fa": "off"}, 448, 508.01),
    (MIXTRAL, {"ctx_size": 8192, "parallel": 4}, 1024, 210.02),
    (QWEN3_MOE, {"ctx_size": 8192, "parallel": 4}, 768, 38.02),
    (QWEN3_MOE, {"ctx_size": 8192, "flash_attn": "off"}, 768, 566.01),
    (GEMMA3_12B, {"ctx_size": 8192, "parallel": 4}, 512 + 1920, 131.03),
    (GEMMA3_12B, {"ctx_size": 8192, "swa_full": True}, 512 + 2560, 143.53),
    (GEMMA3_12B, {"ctx_size": 8192, "parallel": 4, "kv_unified": True}, 512 + 1440, 140.03),
    (GEMMA3_12B, {"ctx_size": 8192, "flash_attn": "off"}, 512 + 480, 344.52),
]


@pytest.mark.parametrize(("model", "args", "kv_mib", "compute_mib"), LOGGED)
def test_buffers_are_as_the_engine_logs_them(
    model: Shape, args: dict[str, Any], kv_mib: float, compute_mib: float
) -> None:
    facts, flags = model.facts(), options(**args)
    context = context_of(flags, facts)
    assert kv_bytes(facts, flags, context) == kv_mib * MIB
    assert compute_bytes(facts, flags, context) == pytest.approx(compute_mib * MIB, rel=0.08)


def test_a_hybrid_on_a_gpu_takes_what_was_published() -> None:
    # A log of llama.cpp b10809 on an RTX 3090: 64 layers, 16 of them with attention; CUDA0 KV buffer size 2048.00 MiB,
    # RS buffer size 149.62 MiB, compute buffer size 154.02 MiB, CUDA_Host compute buffer size 52.02 MiB.
    attention = Layers(count=16, mixer="full", kv_heads=4, key_dim=256, value_dim=256)
    state = Layers(count=48, mixer="recurrent", state_elements=48 * 128 * 128 + 3 * 10240)
    facts = replace(
        shape(hidden=5120, inner=17408, heads=24, kv_heads=4, head_dim=256, trained=262144).facts(),
        layer_count=64,
        layers=(attention, state),
    )
    case = Case(spec=EngineSpec(name="llamacpp", args={"c": 32768}), version="", model=facts, machine=gpus(A100))
    memory = registry.engine("llamacpp").assess(case).memory
    assert memory
    assert memory.kv_gib_per_gpu * 1024 == pytest.approx(2048 + 149.62, abs=0.1)
    assert memory.activation_gib_per_gpu * 1024 == pytest.approx(154.02, rel=0.25)
    plan = layout(facts, options(c=32768), gpus(A100))
    assert plan.host.compute * 1024 == pytest.approx(52.02, rel=0.01)


# (model, flags, n_ctx, n_ctx_seq, n_ctx_slot)
CONTEXTS: list[tuple[Shape, dict[str, Any], tuple[int, int, int]]] = [
    (LEAD, {}, (2048, 2048, 2048)),
    (LEAD, {"parallel": 3}, (6144, 2048, 2048)),
    (LEAD, {"ctx_size": 5000, "parallel": 3}, (5376, 1792, 1792)),
    (LEAD, {"ctx_size": 5000, "parallel": 3, "kv_unified": True}, (5120, 5120, 2048)),
    (LEAD, {"ctx_size": 8192}, (8192, 8192, 2048)),
]


@pytest.mark.parametrize(("model", "args", "expected"), CONTEXTS)
def test_the_context_is_rounded_and_shared_as_the_engine_does_it(
    model: Shape, args: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    context = context_of(options(**args), model.facts())
    assert (context.total, context.stream, context.slot) == expected
    memory = assessed(model, **args).memory
    assert memory is not None
    assert (memory.kv_tokens, memory.max_model_len) == (context.total, context.slot)


def test_more_context_than_the_model_knows_is_told_with_the_engines_words() -> None:
    (finding,) = found(assessed(LEAD, ctx_size=8192, parallel=2), "max-model-len")
    assert finding.level == "warn"
    assert finding.quote == "n_ctx_seq (4096) > n_ctx_train (2048) -- possible training context overflow"
    assert finding.suggestion == "--set engine.args.ctx_size=4096"
    (finding,) = found(assessed(LEAD, **{"ctx-size": 8192, "parallel": 2}), "max-model-len")
    assert finding.suggestion == "--set engine.args.ctx-size=4096"
    assert not found(assessed(LEAD, ctx_size=4096, parallel=2), "max-model-len")


REFUSED: list[tuple[Shape, Machine, dict[str, Any], str, str]] = [
    (LEAD, CPU, {"ctx_size": 40_000_000}, "ram", "failed to allocate buffer for kv cache"),
    (LLAMA2_70B, CPU, {"ctx_size": 4096}, "ram", ""),
    (LLAMA2_70B, gpus(T4), {"ctx_size": 4096, "n_gpu_layers": 99}, "weights", "unable to allocate CUDA0 buffer"),
    (LLAMA2_70B, gpus(T4), {"ctx_size": 4096, "fit": False}, "weights", "unable to allocate CUDA0 buffer"),
    (
        LLAMA2_7B,
        gpus(T4),
        {"ctx_size": 65536, "parallel": 16, "ngl": "all"},
        "kv-cache",
        "failed to allocate buffer for kv cache",
    ),
    (
        LEAD,
        CPU,
        {"cache_type_v": "q8_0", "flash_attn": "off"},
        "quantization",
        "quantized V cache requires flash_attn to be enabled",
    ),
    (
        shape(head_dim=16),
        CPU,
        {"cache_type_k": "q8_0"},
        "quantization",
        "K cache type q8_0 with block size 32 does not divide n_embd_head_k=16",
    ),
    (LEAD, CPU, {"cache_type_k": "q9"}, "quantization", "unrecognized arguments: --cache-type-k q9"),
]


@pytest.mark.parametrize(("model", "machine", "args", "code", "quote"), REFUSED)
def test_what_would_not_start_is_refused_with_the_engines_words(
    model: Shape, machine: Machine, args: dict[str, Any], code: str, quote: str
) -> None:
    blocks = [finding for finding in assessed(model, machine, **args).findings if finding.level == "block"]
    assert [(finding.code, finding.quote) for finding in blocks] == [(code, quote)]


STARTS: list[tuple[Shape, Machine, dict[str, Any]]] = [
    (LEAD, CPU, {"ctx_size": 4096, "parallel": 2, "threads": 1}),
    (LEAD, Machine(cpus=1), {}),
    (LLAMA2_7B, gpus(T4), {"ctx_size": 4096, "n_gpu_layers": 99}),
    (LLAMA2_7B, gpus(T4), {"ctx_size": 8192, "parallel": 2}),
    (LLAMA2_70B, gpus(A100), {}),
    (LLAMA2_70B, gpus(T4, 4), {"ctx_size": 4096, "n_gpu_layers": 99}),
    (LLAMA2_70B, gpus(T4, 4), {"ctx_size": 4096, "n_gpu_layers": 99, "split_mode": "row"}),
]


@pytest.mark.parametrize(("model", "machine", "args"), STARTS)
def test_what_fits_is_let_through(model: Shape, machine: Machine, args: dict[str, Any]) -> None:
    assessment = assessed(model, machine, **args)
    assert {finding.level for finding in assessment.findings} == {"ok"}
    assert assessment.memory
    assert found(assessment, "kv-cache")[0].numbers["kv_tokens"] == assessment.memory.kv_tokens


def test_layers_that_do_not_fit_go_to_ram_unless_the_recipe_wants_them_on_the_gpu() -> None:
    (finding,) = found(assessed(LLAMA2_70B, gpus(T4), ctx_size=4096), "weights")
    assert finding.level == "warn"
    layers = finding.numbers["layers_on_gpu"]
    assert isinstance(layers, int)
    assert 25 < layers < 32
    assert levels(assessed(LLAMA2_70B, gpus(T4, ram_gib=16), ctx_size=4096))["ram"] == "block"


def test_parallel_sizes_are_refused() -> None:
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        (finding,) = found(assessed(LEAD, engine={name: 2}), "parallelism")
        assert (finding.level, finding.path) == ("block", f"engine.{name}")


def test_the_build_must_compute_on_the_gpu() -> None:
    old, new = replace(gpus(A100), cuda="12.4"), replace(gpus(A100), cuda="12.8")
    (finding,) = found(assessed(LLAMA2_7B, old, ctx_size=4096), "cuda")
    assert (finding.level, finding.quote) == ("block", "the provided PTX was compiled with an unsupported toolchain")
    assert not found(assessed(LLAMA2_7B, new, ctx_size=4096), "cuda")
    native = replace(gpus(replace(A100, compute_capability=(8, 6))), cuda="12.4")
    assert not found(assessed(LLAMA2_7B, native, ctx_size=4096), "cuda")


def test_an_accelerator_that_would_idle_is_told_and_the_ram_is_judged() -> None:
    mi300 = gpus(replace(A100, name="MI300X", vendor="amd", compute_capability=None), ram_gib=16)
    assert levels(assessed(LLAMA2_7B, mi300, ctx_size=4096))["capability"] == "warn"
    assert levels(assessed(LLAMA2_70B, mi300, ctx_size=4096))["ram"] == "block"


def test_a_folder_is_no_model_for_it() -> None:
    facts = replace(LEAD.facts(), form="folder")
    case = Case(spec=EngineSpec(name="llamacpp"), version="1", model=facts, machine=CPU)
    (finding,) = registry.engine("llamacpp").assess(case).findings
    assert (finding.level, finding.code) == ("block", "architecture")


def test_slots_bound_what_runs_at_once() -> None:
    fits = Demand(longest_request_tokens=1500, mean_request_tokens=800, concurrency=8)
    memory = assessed(LEAD, demand=fits, ctx_size=8192, parallel=4).memory
    assert memory
    assert (memory.max_running, memory.slots) == (4, 4)
    shared = assessed(LEAD, demand=fits, ctx_size=4096, parallel=4, kv_unified=True).memory
    assert shared
    assert shared.max_running == 2
    long = replace(fits, longest_request_tokens=3000)
    none = assessed(LEAD, demand=long, ctx_size=8192, parallel=4).memory
    assert none
    assert none.max_running == 0


def test_prompts_that_are_kept_in_ram_are_counted() -> None:
    demand = Demand(longest_request_tokens=3000, mean_request_tokens=2000, concurrency=4)
    small = Machine(ram_gib=8)
    (finding,) = found(assessed(LLAMA3_8B, small, demand=demand, ctx_size=8192), "ram")
    assert (finding.level, finding.suggestion) == ("warn", "--set engine.args.cache_ram=0")
    assert levels(assessed(LLAMA3_8B, small, demand=demand, ctx_size=8192, cache_ram=0))["ram"] == "ok"
    assert levels(assessed(LLAMA3_8B, Machine(ram_gib=32), demand=demand, ctx_size=8192))["ram"] == "ok"
    assert levels(assessed(LEAD, small, demand=demand, ctx_size=8192))["ram"] == "ok"


machines = st.one_of(
    st.builds(lambda ram: Machine(ram_gib=ram), st.floats(0.5, 400)),
    st.builds(
        lambda gib, count, ram: Machine(accelerator=replace(T4, usable_gib=gib), count=count, ram_gib=ram),
        st.floats(4, 180), st.integers(1, 8), st.floats(4, 400),
    ),
)  # fmt: skip
flags = st.fixed_dictionaries(
    {},
    optional={
        "ctx_size": st.integers(256, 300_000),
        "parallel": st.integers(1, 16),
        "n_gpu_layers": st.sampled_from([99, 20, 0]),
        "cache_type_k": st.sampled_from(["q8_0", "q4_0", "f32"]),
        "kv_unified": st.booleans(),
        "split_mode": st.sampled_from(["layer", "row", "none"]),
        "fit": st.booleans(),
    },
)
shapes = st.sampled_from([LEAD, LLAMA2_7B, LLAMA2_70B, LLAMA3_8B, GEMMA3_12B, MIXTRAL])


def blocked(assessment: Assessment) -> bool:
    return any(finding.level == "block" for finding in assessment.findings)


@given(model=shapes, machine=machines, args=flags, more=st.floats(1, 3))
def test_more_memory_never_turns_what_fits_into_what_does_not(
    model: Shape, machine: Machine, args: dict[str, Any], more: float
) -> None:
    if blocked(assessed(model, machine, **args)):
        return
    accelerator = machine.accelerator and replace(machine.accelerator, usable_gib=machine.accelerator.usable_gib * more)
    larger = replace(machine, accelerator=accelerator, ram_gib=(machine.ram_gib or 1) * more)
    assert not blocked(assessed(model, larger, **args))


@given(model=shapes, machine=machines, args=flags, less=st.floats(0.1, 1))
def test_less_context_never_turns_what_fits_into_what_does_not(
    model: Shape, machine: Machine, args: dict[str, Any], less: float
) -> None:
    if "ctx_size" not in args or blocked(assessed(model, machine, **args)):
        return
    shorter = {**args, "ctx_size": max(256, int(args["ctx_size"] * less))}
    assert not blocked(assessed(model, machine, **shorter))


@given(model=shapes, machine=machines, args=flags)
def test_the_parts_of_memory_add_up(model: Shape, machine: Machine, args: dict[str, Any]) -> None:
    memory = assessed(model, machine, **args).memory
    assert memory
    used = memory.weights_gib_per_gpu + memory.activation_gib_per_gpu + memory.other_gib_per_gpu
    if memory.kv_gib_per_gpu > 0:
        assert used + memory.kv_gib_per_gpu <= memory.usable_gib_per_gpu + 1e-6
    assert memory.kv_gib_per_gpu >= 0
    assert memory.max_model_len > 0


@given(model=shapes, machine=machines, args=flags)
def test_a_context_that_is_suggested_is_accepted(model: Shape, machine: Machine, args: dict[str, Any]) -> None:
    for finding in assessed(model, machine, **args).findings:
        if finding.code == "ram" and finding.suggestion:
            tokens = int(finding.suggestion.removeprefix("--set engine.args.ctx_size="))
            again = assessed(model, machine, **{**args, "ctx_size": tokens})
            assert levels(again)["ram"] == "ok"

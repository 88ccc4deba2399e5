"""What flags change of the speed: what an engine computes in, reads, keeps elsewhere; and what it says of itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioners.accelerators import Machine
from provisioners.phase_times import PhaseTimes, phase_times_of
from recipes.ranges import Range
from recipes.spec import Engine as EngineSpec
from runners import registry
from runners.case import Case
from runners.forecast.speed import Parallel, Speed, speed_of
from runners.modelfacts.facts import ModelFacts, Tensors
from runners.pace import GIB, EnginePace
from tests.emulators.engines import EngineByArithmetic
from tests.runners.forecast.situations import LLAMA_70B, MISTRAL_7B, machine, memory, model, speed, spoken_for

LLAMA_7B = {**MISTRAL_7B, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16"}
WHOLE_PROMPT = 2048


def at(name: str, *, config: dict[str, Any] | None = None, engine: str = "vllm", **args: Any) -> Speed:
    version = "0.32.0" if engine == "vllm" else None
    return speed(model(config or LLAMA_7B), machine(name, 1), engine=engine, version=version, args=args)


def tflops(name: str, kind: str) -> float:
    accelerator = machine(name, 1).accelerator
    assert accelerator is not None
    return accelerator.tflops[kind]


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
@pytest.mark.parametrize("name", ["A100-80GB", "T4"])
def test_float32_has_another_peak_and_twice_the_bytes(name: str, engine: str) -> None:
    half, full = (at(name, engine=engine, dtype=dtype) for dtype in ("float16", "float32"))
    assert full.token_s / half.token_s == pytest.approx(tflops(name, "float16") / tflops(name, "float32"))
    assert full.weights_s / half.weights_s == pytest.approx(2, rel=0.02)
    assert full.context_s / half.context_s == pytest.approx(2)


def test_the_flag_is_worth_more_than_the_file() -> None:
    """vLLM casts a float32 model to 16 bits unless it is told otherwise."""
    stored = {**LLAMA_7B, "torch_dtype": "float32"}
    assert at("A100-80GB", config=stored).weights_s == pytest.approx(at("A100-80GB").weights_s, rel=0.02)
    assert at("A100-80GB", config=stored, dtype="float32").weights_s > 1.9 * at("A100-80GB").weights_s


def test_online_fp8_halves_the_linear_layers_and_computes_where_the_hardware_does() -> None:
    hopper = [at("H100-80GB", **args) for args in ({}, {"quantization": "fp8_per_tensor"})]
    assert hopper[1].weights_s / hopper[0].weights_s == pytest.approx(0.51, abs=0.02), "all but the output layer"
    assert hopper[1].token_s / hopper[0].token_s == pytest.approx(0.5, rel=0.02)
    ampere = [at("A100-80GB", **args) for args in ({}, {"quantization": "fp8_per_tensor"})]
    assert ampere[1].weights_s < 0.55 * ampere[0].weights_s
    assert ampere[1].token_s == ampere[0].token_s, "8-bit weights alone change no arithmetic"


@pytest.mark.parametrize(
    ("activations", "expected"),
    [({"type": "float", "num_bits": 8}, "float8"), ({"type": "int", "num_bits": 8}, "int8"), (None, "bfloat16")],
)
def test_quantized_activations_are_computed_as_they_are(activations: Any, expected: str) -> None:
    weights = {"type": "int", "num_bits": 8}
    quantization = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": weights, "input_activations": activations}},
    }
    facts = model({**LLAMA_7B, "torch_dtype": "bfloat16", "quantization_config": quantization})
    assert spoken_for(facts, machine("H100-80GB", 1)).computes_in == expected


def test_an_fp8_cache_is_half_as_much_to_read() -> None:
    assert at("H100-80GB", kv_cache_dtype="fp8").context_s == pytest.approx(at("H100-80GB").context_s / 2)


def test_the_caches_types_of_llamacpp() -> None:
    full, eight = (at("L4", engine="llamacpp", cache_type_k=kind, cache_type_v=kind) for kind in ("f16", "q8_0"))
    assert eight.context_s / full.context_s == pytest.approx(34 / 64)


def test_bitsandbytes_in_transformers() -> None:
    """Published of small models on a T4 against 16 bits: 2.5 to 3.9 times for 8 bits, 1.4 to 1.6 times for 4."""
    small = {
        **LLAMA_7B,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "tie_word_embeddings": True,
    }
    small |= {"num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936}
    plain, eight, four = (
        at("T4", config=small, engine="transformers", dtype="float16", quantization=kind)
        for kind in (None, "bnb-8bit", "bnb-4bit")
    )
    assert 2.5 <= eight.decode_step_s(1, 300) / plain.decode_step_s(1, 300) <= 3.9
    assert 1.3 <= four.decode_step_s(1, 300) / plain.decode_step_s(1, 300) <= 1.6
    assert eight.token_s == pytest.approx(3 * plain.token_s)
    big, packed = (at("T4", engine="transformers", dtype="float16", quantization=kind) for kind in (None, "bnb-4bit"))
    assert big.weights_s / packed.weights_s == pytest.approx(2.2, rel=0.15), "as its makers say of large matrices"


def test_4_bit_weights_that_are_unpacked_first_are_no_faster_to_read() -> None:
    unquantized = {"version": "0.10.0"}
    facts, here = model(LLAMA_7B), machine("A100-80GB", 1)
    plain, packed = (speed(facts, here, args=args, **unquantized) for args in ({}, {"quantization": "bitsandbytes"}))
    assert 1.5 < packed.weights_s / plain.weights_s < 3


def test_offloaded_weights_cross_the_bus_in_every_step() -> None:
    accelerator = machine("A100-80GB", 1).accelerator
    assert accelerator is not None
    assert accelerator.pcie_gb_s is not None
    found = at("A100-80GB", cpu_offload_gb=10)
    assert found.decode_step_s(1, 0) > 10 * GIB / (accelerator.pcie_gb_s * 1e9)
    assert found.prefill_s(WHOLE_PROMPT) > 10 * GIB / (accelerator.pcie_gb_s * 1e9)
    everything = at("A100-80GB", cpu_offload_gb=40)
    assert everything == at("A100-80GB", cpu_offload_gb=30), "more than all of them is all of them"


def test_the_published_offload_on_eight_h20() -> None:
    """35 GiB of each GPU's share of a model of 510 GB: 64 sequences at once made 120 tokens/s."""
    tensors = (Tensors(module="mlp", dtype="U8", elements=510 * 10**9, bytes=510 * 10**9),)
    facts = ModelFacts(identifier="m", tensors=tensors, parameters=13 * 10**9)
    pace = EnginePace(outside_bytes=8 * 35 * GIB)
    found = speed_of(facts, machine("H20", 8), Parallel(tensor=8), pace)
    assert 64 / found.decode_step_s(64, 0) == pytest.approx(120, rel=0.4)


@given(st.floats(0, 30), st.floats(0, 30))
def test_more_offloaded_is_never_faster(some: float, more: float) -> None:
    less, further = (
        speed_of(model(LLAMA_7B), machine("A100-80GB", 1), Parallel(), EnginePace(outside_bytes=gib * GIB))
        for gib in (some, some + more)
    )
    assert further.decode_step_s(8, 1000) >= less.decode_step_s(8, 1000)
    assert further.prefill_s(1000) >= less.prefill_s(1000)


def test_layers_of_llamacpp_that_stay_in_ram_are_read_there() -> None:
    all_there, half, none = (at("L4", engine="llamacpp", n_gpu_layers=layers) for layers in (99, 16, 0))
    assert all_there.weights_s < half.weights_s < none.weights_s
    assert all_there == at("L4", engine="llamacpp"), "all of them fit"


def test_layers_for_speculation_are_not_read() -> None:
    facts = model(LLAMA_7B)
    extra = Tensors(module="mtp", dtype="BF16", elements=10**9, bytes=2 * 10**9)
    more = replace(facts, tensors=(*facts.tensors, extra), parameters=facts.parameters + 10**9)
    here = machine("A100-80GB", 1)
    for pace in (EnginePace(), spoken_for(more, here, planned=True), spoken_for(more, here, engine="transformers")):
        with_it, without = (speed_of(one, here, Parallel(), pace) for one in (more, facts))
        assert with_it.weights_s == pytest.approx(without.weights_s, rel=0.01)
        assert with_it.token_s == pytest.approx(without.token_s, rel=0.01)


@given(st.sampled_from(["float16", "bfloat16", "float32", "float8", "int8", None]), st.floats(1.0, 5.0))
def test_less_that_is_held_is_never_slower(computes_in: str | None, less: float) -> None:
    facts, here = model(LLAMA_70B), machine("H100-80GB", 4)
    times = [
        speed_of(facts, here, Parallel(tensor=4), EnginePace(computes_in=computes_in, weight_bytes=size)).weights_s
        for size in (facts.weight_bytes, facts.weight_bytes / less)
    ]
    assert times[1] <= times[0] * (1 + 1e-9)


class Silent(EngineByArithmetic):
    """A plug-in that says nothing of its pace."""

    name = "silent"


def silent(**args: Any) -> EnginePace:
    spec = EngineSpec(name="silent", tensor_parallel_size=2, args=args)
    case = Case(spec=spec, version="1", model=model(LLAMA_70B), machine=machine("A100-80GB", 2))
    return Silent().pace(case, memory())


def test_an_engine_that_says_nothing_is_heard_by_its_flags_and_its_memory() -> None:
    assert silent().computes_in == "bfloat16"
    assert silent(dtype="half").computes_in == "float16"
    assert silent(dtype="auto").computes_in == "bfloat16"
    assert silent().weight_bytes == pytest.approx(2 * 64.2 * GIB)
    assert silent().kv_bytes_per_token == pytest.approx(2 * 163_840)
    assert silent().start_s.high > 10 * silent().start_s.low, "of its start nothing is known"


@pytest.mark.parametrize("name", registry.installed().engines)
def test_every_engine_states_a_pace(name: str) -> None:
    plugin = registry.engine(name)
    for here in (machine("A100-80GB", 1), Machine(cpus=8, ram_gib=64)):
        found = spoken_for(model(LLAMA_7B), here, engine=name, version=plugin.default_version)
        assert 0 < found.start_s.low <= found.start_s.likely <= found.start_s.high
        assert found.slower >= 1
        assert found.unsure >= 1
        assert found.request_s > 0


def test_eager_and_old_releases_start_sooner() -> None:
    facts, here = model(LLAMA_7B), machine("A100-80GB", 1)
    compiled, graphs = (spoken_for(facts, here, version=version).start_s.likely for version in ("0.32.0", "0.6.0"))
    eager = spoken_for(facts, here, EngineSpec(name="vllm", args={"enforce-eager": True})).start_s.likely
    assert eager < graphs < compiled


def test_a_provisioner_says_how_long_it_takes_or_is_taken_for_any() -> None:
    own = PhaseTimes(provision_s=Range(1, 2, 3))

    class Known:
        phase_times = own

    assert phase_times_of(Known()) == own
    assert phase_times_of(object()) == PhaseTimes()
    assert phase_times_of(registry.provisioner("local")).provision_s.high < 1

"""How fast vLLM is besides arithmetic and memory traffic, by release, and what its flags change of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any

from recipes.ranges import Range
from runners.case import Case, Memory
from runners.engines.vllm.flags import Flags, read_flags
from runners.engines.vllm.lengths import model_length
from runners.engines.vllm.precision import Precision, precision
from runners.engines.vllm.releases import NEWEST, Release, release
from runners.engines.vllm.settings import settle
from runners.engines.vllm.weights import weights_on_one_gpu
from runners.modelfacts.facts import ModelFacts
from runners.pace import GIB, EnginePace

# Seconds until it answers, besides reading weights: imports, the driver's context, profiling, CUDA graphs, compiling.
# In published logs "init engine" took 20 and 28 s before 0.8; since then 34 (compiled before), 55, 61, 71 and 91 s, of
# which compiling is 30 to 46 s and graphs 4 to 37 s. About 30 s lie outside of it. On the CPU, release 0.32 took 25 to
# 45 s on two cores.
_COMPILED_S, _GRAPHS_S, _EAGER_S = Range(45.0, 90.0, 200.0), Range(25.0, 45.0, 120.0), Range(18.0, 35.0, 90.0)
_CPU_S, _CPU_EAGER_S = Range(25.0, 60.0, 180.0), Range(15.0, 30.0, 90.0)
_COMPILES = Release((0, 8, 0))

# Releases below the first column: seconds of a step, of each sequence in it, and of a step with several workers. The
# first ones prepared each step and sampled in Python, sequence by sequence, and told their workers through Ray: 0.2.1
# showed 157 tokens/s from 15 sequences of a 70B model on two A100, 95 ms a step, of which reading takes 55 ms. Between
# that and today's few milliseconds the figures are assumed.
_STEPS_S = (
    (Release((0, 4, 0)), 0.008, 0.0007, 0.010),
    (Release((0, 6, 0)), 0.006, 0.0004, 0.006),
    (Release((0, 8, 0)), 0.004, 0.0002, 0.002),
    (Release((9999, 0, 0)), 0.003, 0.0001, 0.001),
)
# Measured on the CPU with release 0.32 and a model of 1.4 M weights, of which arithmetic takes next to nothing: two
# sequences made steps of 2.4 to 3 ms, eight of 4 to 8 ms; the server and the client share the cores with the engine.
_CPU_STEP_S, _CPU_SEQUENCE_S = 0.002, 0.0004
_REQUEST_S = 0.010
"""Assumed: to take a request in and to cut its prompt into tokens."""

_INT8_SLOWER = 3.0
"""LLM.int8 against 16 bits: 2.5 to 3.9 times were published for other engines on a T4 and an RTX 5090."""
_UNSURE_BITSANDBYTES, _UNSURE_OFFLOAD = 2.0, 1.5
"""Assumed. vLLM itself warns that bitsandbytes "is not fully optimized yet. The speed can be slower than non-quantized
models"; one user saw 1.6 times the time on an A100. Of offloading, steps of 0.7 times the predicted ones were seen."""
_FLOAT8 = ("*fp8*", "mxfp8")
_FLOAT4 = ("modelopt_fp4", "modelopt_nvfp4", "nvfp4")
_SPEED_FLAGS = frozenset(
    {"dtype", "quantization", "q", "kv_cache_dtype", "cpu_offload_gb", "enforce_eager", "enable_expert_parallel"}
    | {"speculative_config", "compilation_config", "num_scheduler_steps", "attention_backend"}
)


def pace(case: Case, memory: Memory | None) -> EnginePace:
    """What a forecast starts from. Where `memory` is known, weights and KV cache are as large as it says."""
    flags, gpu = read_flags(case.spec), case.machine.accelerator is not None
    number = release(case.version) or Release(NEWEST)
    types = precision(case.model, flags, case.machine.accelerator, number)
    together = flags.tensor_parallel_size * flags.pipeline_parallel_size
    step_s, sequence_s = _step_s(number, together) if gpu else (_CPU_STEP_S, _CPU_SEQUENCE_S)
    outside = min(flags.cpu_offload_gb * GIB, _all_weights(case, flags, types, number)) * together if gpu else 0.0
    bitsandbytes = types.quantization == "bitsandbytes"
    return EnginePace(
        start_s=_start_s(number, gpu=gpu, eager=flags.enforce_eager),
        request_s=_REQUEST_S,
        step_s=step_s,
        sequence_s=sequence_s,
        computes_in=_computes_in(case.model, types),
        slower=_INT8_SLOWER if bitsandbytes and _bits(case.model) == 8 else 1.0,
        weight_bytes=memory.weights_gib_per_gpu * GIB * together + outside if memory else None,
        unpacked_bytes=_unpacked_bytes(case.model, types) if bitsandbytes else 0.0,
        outside_bytes=outside,
        kv_bytes_per_token=memory.kv_bytes_per_token * together if memory else None,
        unsure=max(_UNSURE_BITSANDBYTES if bitsandbytes else 1.0, _UNSURE_OFFLOAD if outside else 1.0),
        speed_flags=_SPEED_FLAGS,
        start_flags=frozenset({"enforce_eager"}),
    )


def _all_weights(case: Case, flags: Flags, types: Precision, number: Release) -> float:
    """Bytes for one GPU, those included that do not stay there."""
    if not flags.cpu_offload_gb:
        return 0.0
    here = replace(flags, cpu_offload_gb=0.0)
    settings = settle(case, here, types, model_length(case.model, here, number), number)
    return weights_on_one_gpu(case.model, settings).bytes


def _start_s(number: Release, *, gpu: bool, eager: bool) -> Range:
    if not gpu:
        return _CPU_EAGER_S if eager else _CPU_S
    if eager:
        return _EAGER_S
    return _COMPILED_S if number >= _COMPILES else _GRAPHS_S


def _step_s(number: Release, workers: int) -> tuple[float, float]:
    step_s, sequence_s, worker_s = next(seconds for before, *seconds in _STEPS_S if number < before)
    return step_s + (worker_s if workers > 1 else 0.0), sequence_s


def _computes_in(model: ModelFacts, types: Precision) -> str:
    """The type of the products: of methods that quantize activations too, the narrow one, where the hardware has it."""
    method = types.quantization or ""
    if any(fnmatch(method, form) for form in _FLOAT8) or (method == "modelopt" and _bits(model) != 4):
        return "float8"
    if method in _FLOAT4:
        return "float4"
    if method == "compressed-tensors" and model.quantization:
        return _of_activations(model.quantization.raw) or types.compute
    return types.compute


def _of_activations(config: Mapping[str, Any]) -> str | None:
    """compressed-tensors names the type of the activations beside that of the weights; None: they stay as they are."""
    groups = config.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        said = group.get("input_activations") if isinstance(group, Mapping) else None
        if isinstance(said, Mapping) and said.get("num_bits") in (4, 8):
            kind = "float" if said.get("type") == "float" else "int"
            return f"{kind}{said['num_bits']}"
    return None


def _bits(model: ModelFacts) -> int | None:
    return model.quantization.bits if model.quantization else None


def _unpacked_bytes(model: ModelFacts, types: Precision) -> float:
    """More than one row is multiplied with 4-bit weights by unpacking them into memory first: written, and read again
    (bitsandbytes' autograd/_functions.py, matmul_4bit)."""
    if _bits(model) == 8:
        return 0.0
    linear = model.bytes_of("attention", "mlp", "experts") / (model.weight_bytes or 1) * model.parameters
    return 2.0 * types.compute_bytes * linear

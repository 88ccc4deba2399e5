"""How fast transformers is besides arithmetic and memory traffic, and what its flags change of both."""

from __future__ import annotations

from dataclasses import replace

from recipes.ranges import Range
from runners.case import Case, Memory
from runners.engines.transformers.memory import GIB, computes_float8, elements_per_token, need, weight_bytes
from runners.engines.transformers.options import Options, dtype_of
from runners.modelfacts.facts import ModelFacts
from runners.pace import EnginePace
from runners.pytorch import ITEM_BYTES

# Imports and the driver's context; 5 to 15 s were measured on two cores, with a GPU it is assumed.
_GPU_START_S, _CPU_START_S = Range(10.0, 25.0, 90.0), Range(5.0, 15.0, 60.0)
# Each step is built in Python, some 25 ms on a GPU whatever the model: published runs of models of 0.5 B to 5 B weights
# made 24 tokens/s on a T4 and 57 on an RTX 5090. The others are assumed.
_REQUEST_S, _GPU_STEP_S, _CPU_STEP_S = 0.020, 0.025, 0.010
_INT8_SLOWER, _NF4_SLOWER = 3.0, 1.5
"""How much longer bitsandbytes takes for its products than 16 bits for as much arithmetic and as many bytes, and for
each step's own work.

Published of whole requests of small models, where a step's own work counts most, against 16 bits: LLM.int8 2.5 and 3.9
times on a T4, 3.9 on an RTX 5090; NF4 1.4 and 1.6 times on a T4, 1.4 on an RTX 5090. Of large matrices and single
sequences NF4's makers say 1/2.2 on a T4 and 1/3.4 on an A100 (release notes of 0.40.0): with 3.5 times fewer bytes to
read, 1.6 and 1.0. LLM.int8 takes outliers apart in each product (Dettmers et al. 2022, "LLM.int8()").
"""
_UNSURE = 2.0
_BNB = "bitsandbytes"
_SPEED_FLAGS = frozenset({"dtype", "quantization", "device", "attn_implementation", "continuous_batching", "compile"})


def pace(case: Case, memory: Memory | None) -> EnginePace:
    """What a forecast starts from."""
    options, model, gpu = Options.of(case.spec), case.model, case.machine.accelerator is not None
    computes, slower = dtype_of(options, model), _slower(model, options)
    loaded = replace(model, tensors=tuple(tensors for tensors in model.tensors if tensors.module != "mtp"))
    item = ITEM_BYTES.get(computes, 2)
    return EnginePace(
        start_s=_GPU_START_S if gpu else _CPU_START_S,
        request_s=_REQUEST_S,
        step_s=(_GPU_STEP_S if gpu else _CPU_STEP_S) * slower,
        computes_in="float8" if _in_float8(case) else computes,
        slower=slower,
        weight_bytes=weight_bytes(loaded, options, case.machine),
        outside_bytes=_outside_bytes(case, options) if gpu else 0.0,
        kv_bytes_per_token=item * sum(layers.count * elements_per_token(layers, model) for layers in model.layers),
        unsure=_UNSURE if slower > 1 else 1.0,
        speed_flags=_SPEED_FLAGS,
    )


def _slower(model: ModelFacts, options: Options) -> float:
    stored = model.quantization if model.quantization and model.quantization.method == _BNB else None
    if options.quantization == "bnb-8bit" or (stored and stored.bits == 8):
        return _INT8_SLOWER
    return _NF4_SLOWER if options.quantization == "bnb-4bit" or stored else 1.0


def _in_float8(case: Case) -> bool:
    quantized = case.model.quantization
    return quantized is not None and "fp8" in quantized.method and computes_float8(case.machine)


def _outside_bytes(case: Case, options: Options) -> float:
    """What the library leaves in RAM, because the GPUs have no room for it."""
    longest = case.demand.longest_request_tokens if case.demand else 0
    stages = case.spec.pipeline_parallel_size
    return need(case.model, options, case.machine, longest, stages=stages).spilled * GIB

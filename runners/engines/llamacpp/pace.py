"""How fast llama.cpp is besides arithmetic and memory traffic, and what it reads in each step."""

from __future__ import annotations

from recipes.ranges import Range
from runners.case import Case, Memory
from runners.engines.llamacpp.memory import GIB, layout
from runners.engines.llamacpp.options import Options
from runners.modelfacts.facts import ModelFacts
from runners.pace import EnginePace

# Measured on two cores, 0.1 to 0.25 s; with a GPU, whose driver and kernels are loaded first, assumed.
_GPU_START_S, _CPU_START_S = Range(0.5, 3.0, 15.0), Range(0.1, 0.25, 2.0)
# Of each request and each step. Measured on two cores; what starting some hundred kernels on a GPU takes is assumed.
_REQUEST_S, _GPU_STEP_S, _CPU_STEP_S = 0.002, 0.0005, 0.0001
_RAM_GB_S = 40.0
"""Layers that stay in RAM are computed there, as fast as two channels of DDR4 or DDR5 are read; assumed."""
_UNSURE_OUTSIDE = 2.0
"""Machines have two to twelve channels."""
_SPEED_FLAGS = frozenset(
    {"threads", "t", "n_threads", "n_gpu_layers", "gpu_layers", "ngl", "split_mode", "sm", "flash_attn", "fa"}
    | {"cache_type_k", "ctk", "cache_type_v", "ctv", "kv_offload", "no_kv_offload"}
)


def pace(case: Case, memory: Memory | None) -> EnginePace:
    """What a forecast starts from; weights are used as they are stored."""
    options, gpu = Options.of(case.spec), case.machine.accelerator is not None
    outside = _outside_bytes(case, options) if gpu else 0.0
    threads = case.spec.args.get("threads")
    return EnginePace(
        start_s=_GPU_START_S if gpu else _CPU_START_S,
        request_s=_REQUEST_S,
        step_s=_GPU_STEP_S if gpu else _CPU_STEP_S,
        outside_bytes=outside,
        outside_gb_s=_RAM_GB_S,
        unsure=_UNSURE_OUTSIDE if outside else 1.0,
        kv_bytes_per_token=_kv_bytes(case.model, options),
        threads=threads if type(threads) is int and threads > 0 else None,
        speed_flags=_SPEED_FLAGS,
    )


def _outside_bytes(case: Case, options: Options) -> float:
    """Layers that are not on a GPU. The embedding always stays in RAM, but only rows of it are read."""
    model = case.model
    if not model.layer_count or not model.layers:
        return 0.0
    found = layout(model, options, case.machine)
    embedding = model.bytes_of("embedding") if found.layers_on_gpu else 0
    return max(0.0, found.host.weights * GIB - embedding)


def _kv_bytes(model: ModelFacts, options: Options) -> float:
    """Of one token, in the types that the flags choose for keys and for values."""
    key, value = options.key_type.bytes_per_element, options.value_type.bytes_per_element
    return sum(
        layers.count * (layers.latent_dim * key or layers.kv_heads * (layers.key_dim * key + layers.value_dim * value))
        for layers in model.layers
        if layers.mixer != "recurrent"
    )

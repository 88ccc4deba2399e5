"""What of an accelerator's memory is left for the KV cache, as each release counts it.

worker/worker.py (profile_num_available_blocks, determine_num_available_blocks), v1/worker/gpu_worker.py
(determine_available_memory), utils/mem_utils.py (memory_profiling).
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioners.accelerators import Accelerator
from runners.engines.vllm import releases
from runners.engines.vllm.activation import Activation
from runners.engines.vllm.releases import Release
from runners.engines.vllm.settings import GIB, Settings
from runners.engines.vllm.weights import Weights
from runners.modelfacts.facts import ModelFacts

_CONTEXT_GIB = {7: 0.35, 8: 0.45, 9: 0.55, 10: 0.65, 12: 0.6}
"""The CUDA context with its kernels, by generation (major compute capability)."""
_KERNELS_GIB = 0.07
"""What else grows beside PyTorch with one GPU: cuBLAS, loaded modules; 0.02 to 0.1 in published logs."""
_AMD_KERNELS_GIB = 2.2
"""hipBLASLt's work space and the runtime's own, with AMD's accelerators."""
_NCCL_GIB = 0.35
_SYMMETRIC_GIB = 2.2
"""NCCL's buffers of a rank; more where NVLink's switch does the sums (Hopper and later, 4 GPUs and more)."""
_STAYS_CACHED = 0.55
"""The part of the smaller of the two peaks (forward pass, sampling) that PyTorch still has cached beside the larger,
where the device's free memory is measured."""
_EARLY_PARALLEL_GIB = 8.0
"""0.2.5 to 0.2.7 with several GPUs counted 8 to 15 GiB more than weights and peak, in published logs."""
_NCCL_IS_OUTSIDE = Release((0, 11, 0))
_GRAPH_BYTES_PER_LAYER = 15 * 2**20
"""Captured CUDA graphs of one GPU: 0.4 to 0.7 GiB for 28 to 48 layers in published logs; about half since 0.20, and
twice with several GPUs."""


@dataclass(frozen=True)
class Budget:
    """Bytes on the fullest GPU."""

    usable: float
    asked: float
    """gpu_memory_utilization × usable."""
    weights: float
    activation: float
    other: float
    """What is counted besides, and taken off the cache."""
    outside: float
    """What lies beside the budget: context, communication, graphs."""
    available: float
    """For the KV cache; negative if weights and activations do not fit."""
    at_best: float
    """The same, where FlashInfer happens to be installed and sampling takes less."""
    deviation: float
    """One standard deviation of `available`."""


def budget(
    model: ModelFacts, settings: Settings, accelerator: Accelerator, weights: Weights, activation: Activation
) -> Budget:
    usable = accelerator.usable_gib * GIB
    asked = settings.utilization * usable
    context = _CONTEXT_GIB.get((accelerator.compute_capability or (8, 0))[0], 0.5) * GIB
    nccl = _communication(accelerator, settings)
    graphs = graph_bytes(model, settings)
    kernels = (_AMD_KERNELS_GIB if accelerator.vendor == "amd" else _KERNELS_GIB) * GIB
    counted, beside, peak = _counted(settings, context, kernels, nccl, graphs, activation)
    available = asked - weights.bytes - peak - counted
    if settings.flags.kv_cache_memory_bytes and settings.release >= Release((0, 10, 2)):
        available = float(settings.flags.kv_cache_memory_bytes)
    estimated = nccl + (graphs if settings.v1 and _estimates_graphs(settings) else 0.0)
    deviation = _deviation(model, accelerator, settings, weights, activation, estimated)
    at_best = available + (activation.bytes - (activation.without_sort or activation.bytes))
    return Budget(usable, asked, weights.bytes, peak, counted, beside, available, at_best, deviation)


def _counted(
    settings: Settings, context: float, kernels: float, nccl: float, graphs: float, activation: Activation
) -> tuple[float, float, float]:
    """(taken off the cache, beside the budget, activation as it is counted)."""
    release, peak = settings.release, activation.bytes
    if settings.v1:
        if release < releases.INCREASE_COUNTS_V1:
            return context + kernels + nccl, graphs, peak
        inside = nccl if release < _NCCL_IS_OUTSIDE else 0.0
        subtracted = graphs if _estimates_graphs(settings) else 0.0
        return kernels + inside + subtracted, context + (nccl - inside) + (graphs - subtracted), peak
    if release < releases.RESERVED_COUNTS:
        return 0.0, context + nccl + graphs, peak
    if release < releases.PEAK_COUNTS_AGAIN:
        reserved = peak + _STAYS_CACHED * min(activation.forward, activation.sampling)
        if release < releases.CONTEXT_IS_OUTSIDE:
            several = _EARLY_PARALLEL_GIB * GIB if _is_early_parallel(settings) else 0.0
            return context + kernels + nccl + several, graphs, reserved
        return kernels + nccl, context + graphs, reserved
    if release < releases.INCREASE_COUNTS_V0:
        return context + kernels + nccl, graphs, peak
    return kernels + nccl, context + graphs, peak


def _estimates_graphs(settings: Settings) -> bool:
    said = settings.flags.env.get("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS")
    if said is not None and settings.release >= Release((0, 18, 0)):
        return said not in {"", "0"}
    return settings.release >= releases.GRAPHS_ARE_SUBTRACTED


def _communication(accelerator: Accelerator, settings: Settings) -> float:
    ranks = settings.tp * settings.pp
    if ranks == 1:
        return 0.0
    hopper = (accelerator.compute_capability or (8, 0))[0] >= 9 and accelerator.nvlink_gb_s
    return (_SYMMETRIC_GIB if hopper and settings.tp >= 4 else _NCCL_GIB) * GIB


def graph_bytes(model: ModelFacts, settings: Settings) -> float:
    """Roughly, what captured CUDA graphs take."""
    if not settings.graphs:
        return 0.0
    layers = -(-model.layer_count // settings.pp)
    part = 0.5 if settings.release >= releases.GRAPHS_ARE_SUBTRACTED else 2.0 if settings.tp > 1 else 1.0
    return layers * _GRAPH_BYTES_PER_LAYER * part * min(1.0, settings.max_num_seqs / 256)


def _deviation(
    model: ModelFacts,
    accelerator: Accelerator,
    settings: Settings,
    weights: Weights,
    activation: Activation,
    small: float,
) -> float:
    low, high = accelerator.usable_range_gib
    if not high:
        low = high = accelerator.usable_gib
    parts = (
        settings.utilization * (high - low) * GIB / 4,
        0.006 * weights.bytes,
        0.1 * (activation.bytes - activation.encoder),
        (0.03 if model.model_type == "mllama" else 0.5) * activation.encoder,
        0.3 * small,
        0.1 * GIB,
        _EARLY_PARALLEL_GIB / 2 * GIB if _is_early_parallel(settings) else 0.0,
    )
    return float(sum(part**2 for part in parts) ** 0.5)


def _is_early_parallel(settings: Settings) -> bool:
    return settings.tp > 1 and releases.RESERVED_COUNTS <= settings.release < releases.CONTEXT_IS_OUTSIDE

"""vLLM's own sentences on a cache that is too small, as each release words them."""

from __future__ import annotations

from runners.engines.vllm.releases import Release
from runners.engines.vllm.settings import GIB, Settings

_DOCS = "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate …"


def no_memory(settings: Settings) -> str:
    head = (
        "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine"
    )
    if not settings.v1 or settings.release < Release((0, 13, 0)):
        return f"{head}."
    if settings.release < Release((0, 20, 0)):
        return f"{head}. {_DOCS}"
    return f"{head} (this flag also controls CPU memory reservation on the CPU backend, despite its name). {_DOCS}"


def cache_too_small(settings: Settings, *, needed: float, available: float, stored_tokens: int, longest: int) -> str:
    """What is said when one request of max_model_len does not fit; bytes and tokens."""
    length = settings.max_model_len
    if not settings.v1:
        return (
            f"The model's max seq len ({length}) is larger than the maximum number of tokens that can be stored in KV "
            f"cache ({stored_tokens}). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when "
            "initializing the engine."
        )
    whose = "models's" if settings.release < Release((0, 22, 0)) else "model's"
    estimate = (
        f"Based on the available memory, the estimated maximum model length is {longest}. " if longest > 0 else ""
    )
    also = ""
    if settings.release >= Release((0, 20, 0)):
        also = " (which also controls CPU memory on the CPU backend)"
    docs = f" {_DOCS}" if settings.release >= Release((0, 13, 0)) else ""
    return (
        f"To serve at least one request with the {whose} max seq len ({length}), ({needed / GIB:.2f} GiB KV cache is "
        f"needed, which is larger than the available KV cache memory ({available / GIB:.2f} GiB). {estimate}Try "
        f"increasing `gpu_memory_utilization`{also} or decreasing `max_model_len` when initializing the engine.{docs}"
    )


def little_free(settings: Settings, *, free: float, total: float, asked: float) -> str:
    """At the start, more is asked for than is free."""
    return (
        f"Free memory on device ({free / GIB:.2f}/{total / GIB:.2f} GiB) on startup is less than desired GPU memory "
        f"utilization ({settings.utilization}, {asked / GIB:.2f} GiB). Decrease GPU memory utilization or reduce GPU "
        "memory used by other processes."
    )

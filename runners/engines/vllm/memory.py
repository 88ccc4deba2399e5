"""The memory of one GPU, as a plan and as findings: weights, the profiling run's peak, and what is left."""

from __future__ import annotations

from dataclasses import dataclass

from provisioners.accelerators import Accelerator
from provisioners.contract import Finding
from runners.case import Case, Demand, Memory
from runners.engines.vllm import releases, texts
from runners.engines.vllm.activation import activation
from runners.engines.vllm.budget import Budget, budget
from runners.engines.vllm.cache import Cache, cache_layout
from runners.engines.vllm.settings import GIB, Settings
from runners.engines.vllm.weights import Weights, weights_on_one_gpu

_CERTAIN = 2.0
"""Standard deviations beyond which a refusal is sure."""
_WATERMARK = 0.01
"""The first engine keeps this part of its blocks free (core/block_manager.py)."""
_CROWDED_GIB = 0.3
"""By how much what lies beside the budget may seem too large; graphs are only estimated."""
_CONTEXT_GIB, _LEAST_CONTEXT_GIB = 0.45, 0.25
"""What the CUDA context takes before free memory is looked at: as a rule, and at least."""


@dataclass(frozen=True)
class Running:
    """How many requests of which size run at once."""

    longest: int
    mean: int


def judge(case: Case, settings: Settings) -> tuple[list[Finding], Memory | None]:
    """The findings and the plan for one of the machine's GPUs."""
    accelerator = case.machine.accelerator
    layout = cache_layout(case.model, settings)
    if accelerator is None or layout is None:
        return [], None
    weights = weights_on_one_gpu(case.model, settings)
    peak = activation(case.model, settings)
    plan = budget(case.model, settings, accelerator, weights, peak)
    available = max(0.0, plan.available)
    blocks = settings.flags.num_gpu_blocks_override or int(available // layout.bytes_per_block)
    length = settings.max_model_len
    if settings.length.fitted:
        length = max(1, layout.longest(blocks - layout.reserved_blocks, length))
    running = how_many(layout, blocks, settings, case.demand, length)
    findings = _findings(case, settings, layout, plan, weights, blocks, running, accelerator)
    return findings, _memory(settings, layout, plan, available, blocks, running, length)


def how_many(cache: Cache, blocks: int, settings: Settings, demand: Demand | None, length: int) -> Running:
    """Requests at once, by whole requests; the first engine holds back its watermark."""
    usable = blocks - (1 if settings.v1 else int(_WATERMARK * blocks))
    longest = min(demand.longest_request_tokens, length) if demand else length
    mean = min(demand.mean_request_tokens, longest) if demand else longest
    blocks = max(0, usable)
    by_longest, by_mean = blocks // cache.request_blocks(longest), round(blocks / cache.request_blocks(mean))
    return Running(min(by_longest, settings.max_num_seqs), min(by_mean, settings.max_num_seqs))


def _memory(
    settings: Settings, cache: Cache, plan: Budget, available: float, blocks: int, running: Running, length: int
) -> Memory:
    kind = "V1" if settings.v1 else "V0"
    return Memory(
        usable_gib_per_gpu=plan.usable / GIB,
        budget_gib_per_gpu=plan.asked / GIB,
        weights_gib_per_gpu=plan.weights / GIB,
        activation_gib_per_gpu=plan.activation / GIB,
        other_gib_per_gpu=(plan.other + plan.outside) / GIB,
        kv_gib_per_gpu=available / GIB,
        kv_bytes_per_token=cache.bytes_per_token,
        kv_tokens=cache.logged_tokens(blocks, length),
        block_tokens=cache.block_tokens,
        max_model_len=length,
        longest_that_fits=cache.longest(blocks - cache.reserved_blocks, settings.length.derived or length),
        max_running=running.longest,
        running_at_mean=running.mean,
        slots=settings.max_num_seqs,
        uncertainty_gib=2 * plan.deviation / GIB,
        basis=f"vLLM {settings.release}'s own accounting ({kind} engine)",
    )


def _findings(
    case: Case,
    settings: Settings,
    cache: Cache,
    plan: Budget,
    weights: Weights,
    blocks: int,
    running: Running,
    accelerator: Accelerator,
) -> list[Finding]:
    found = _start(settings, plan, accelerator)
    load = _load(settings, plan, weights, accelerator, known=_is_known(case))
    if load.level == "block":
        return [*found, load]
    return [*found, load, _cache(case, settings, cache, plan, blocks, running)]


def _start(settings: Settings, plan: Budget, accelerator: Accelerator) -> list[Finding]:
    """More is asked for than can be free (v1/worker/gpu_worker.py, init_device)."""
    free = plan.usable - _CONTEXT_GIB * GIB
    if settings.utilization > 1:
        return [_more_than_all(settings)]
    if not settings.v1 or settings.release < releases.INCREASE_COUNTS_V1 or plan.asked <= free:
        return []
    most = int(100 * (plan.usable - plan.outside) / plan.usable) / 100
    return [
        Finding(
            level="block" if plan.asked > plan.usable - _LEAST_CONTEXT_GIB * GIB else "warn",
            code="weights",
            message=f"gpu_memory_utilization {settings.utilization:g} asks for more than is free on {accelerator.name} "
            "once CUDA itself has started",
            suggestion=f"engine.args.gpu_memory_utilization: {most:g}",
            numbers={"asked_gib": round(plan.asked / GIB, 2), "free_gib": round(free / GIB, 2)},
            quote=texts.little_free(settings, free=free, total=plan.usable, asked=plan.asked),
            path="engine.args.gpu_memory_utilization",
        )
    ]


def _more_than_all(settings: Settings) -> Finding:
    """config/cache.py, _verify_args."""
    return Finding(
        level="block",
        code="weights",
        message=f"gpu_memory_utilization {settings.utilization:g} is more than there is",
        suggestion="engine.args.gpu_memory_utilization: 0.9",
        quote=f"GPU memory utilization must be less than 1.0. Got {settings.utilization}.",
        path="engine.args.gpu_memory_utilization",
    )


def _load(settings: Settings, plan: Budget, weights: Weights, accelerator: Accelerator, *, known: bool) -> Finding:
    """Whether the weights lie on the GPU at all: loading is not bound by gpu_memory_utilization."""
    room = plan.usable - 0.3 * GIB
    most, spread = weights.at_load, 0.02 * weights.at_load
    numbers = {
        "weights_gib": round(weights.bytes / GIB, 2),
        "at_load_gib": round(weights.at_load / GIB, 2),
        "usable_gib": round(plan.usable / GIB, 2),
        "gpus": settings.tp * settings.pp,
    }
    each = f"{weights.bytes / GIB:.1f} GiB of weights"
    where = f"on each {accelerator.name}" if settings.tp * settings.pp > 1 else f"on one {accelerator.name}"
    level = "ok"
    message = f"{each} {where}, of {plan.usable / GIB:.1f} GiB"
    if most > room + spread:
        level, message = (
            "block" if known else "warn",
            f"{most / GIB:.1f} GiB {where} do not fit in {plan.usable / GIB:.1f} GiB",
        )
    elif most > room - spread:
        level = "warn"
    return Finding(
        level=level,  # type: ignore[arg-type]
        code="weights",
        message=message,
        suggestion="" if level == "ok" else "more or larger GPUs, or a quantized model",
        numbers=numbers,
        quote="" if level == "ok" else texts.OUT_OF_MEMORY,
        path="" if level == "ok" else "resources.accelerators",
    )


def _cache(case: Case, settings: Settings, cache: Cache, plan: Budget, blocks: int, running: Running) -> Finding:
    """Whether the rest holds at least one request of max_model_len, and what fits."""
    spread = _CERTAIN * plan.deviation
    needed = _needed(settings, cache)
    tokens = cache.logged_tokens(blocks, settings.max_model_len)
    longest = cache.longest(blocks - cache.reserved_blocks, settings.length.derived or settings.max_model_len)
    numbers = {
        "available_gib": round(plan.available / GIB, 2),
        "needed_gib": round(needed / GIB, 2),
        "uncertainty_gib": round(spread / GIB, 2),
        "kv_tokens": tokens,
        "blocks": blocks,
        "block_size": cache.block_tokens,
        "max_model_len": settings.max_model_len,
        "running": running.longest,
        "running_at_mean": running.mean,
        "longest_that_fits": longest,
    }
    missing, reserved = needed - plan.available, cache.reserved_blocks * cache.bytes_per_block
    overridden = settings.flags.num_gpu_blocks_override is not None
    if missing > 0 and not overridden:
        nothing = plan.available <= 0
        sure = needed - plan.at_best > spread and _is_known(case)
        quote = (
            texts.no_memory(settings)
            if nothing
            else texts.cache_too_small(
                settings,
                needed=needed - reserved,
                available=plan.available - reserved,
                stored_tokens=tokens,
                longest=longest,
            )
        )
        return Finding(
            level="block" if sure else "warn",
            code="kv-cache",
            message=_too_small(settings, plan, needed, longest, nothing=nothing, sure=sure),
            suggestion=_advice(settings, longest),
            numbers=numbers,
            quote=quote,
            path="engine.args.max_model_len",
        )
    near = needed > plan.available - spread / 2 and not overridden
    crowded = plan.outside > plan.usable - plan.asked + _CROWDED_GIB * GIB
    message = _fits(case, cache, tokens, running)
    if crowded:
        message += (
            f"; beside it, CUDA itself, communication and CUDA graphs want {plan.outside / GIB:.1f} GiB, of which "
            f"gpu_memory_utilization {settings.utilization:g} leaves {(plan.usable - plan.asked) / GIB:.1f}"
        )
    return Finding(
        level="warn" if near or crowded else "ok",
        code="kv-cache",
        message=message,
        numbers=numbers,
        quote=texts.OUT_OF_MEMORY if crowded else "",
        path="engine.args.gpu_memory_utilization" if crowded else "",
        suggestion="a lower gpu_memory_utilization, or enforce_eager: true" if crowded else "",
    )


def _is_known(case: Case) -> bool:
    """Sizes that were only computed, of an architecture that is not known, prove nothing."""
    return case.model.known or case.model.weights_from == "headers"


def _needed(settings: Settings, cache: Cache) -> float:
    """What one request of max_model_len takes; before 0.2.7 nobody looked, and one block was enough."""
    if settings.length.fitted or settings.release < releases.CAPACITY_IS_CHECKED:
        return float(cache.bytes_per_block)
    return float((cache.request_blocks(settings.max_model_len) + cache.reserved_blocks) * cache.bytes_per_block)


def _too_small(settings: Settings, plan: Budget, needed: float, longest: int, *, nothing: bool, sure: bool) -> str:
    would = "would leave" if sure else "may leave"
    if nothing:
        short = (plan.weights + plan.activation + plan.other) / GIB
        return (
            f"weights and the profiling run take {short:.1f} GiB of the {plan.asked / GIB:.1f} GiB that vLLM may use, "
            f"which {would} nothing for the KV cache"
        )
    tail = f"; the longest that fits is about {longest}" if longest > 0 else ""
    return (
        f"{plan.available / GIB:.1f} GiB {'are' if sure else 'may be'} left for the KV cache, and one request of "
        f"max_model_len {settings.max_model_len} needs {needed / GIB:.1f} GiB{tail}"
    )


def _advice(settings: Settings, longest: int) -> str:
    if longest >= settings.block_size:
        return f"engine.args.max_model_len: {longest // settings.block_size * settings.block_size}"
    return "more or larger GPUs, a quantized model, or a higher gpu_memory_utilization"


def _fits(case: Case, cache: Cache, tokens: int, running: Running) -> str:
    said = f"the KV cache holds {tokens:,} tokens"
    if case.demand is None:
        return f"{said}: {_requests(running.longest)} of max_model_len at once"
    if running.mean > running.longest:
        mean = f", about {running.mean} of mean length ({case.demand.mean_request_tokens:,} tokens)"
    else:
        mean = ""
    longest = (
        f"{_requests(running.longest)} of the longest size ({case.demand.longest_request_tokens:,} tokens) at once"
    )
    return f"{said}: {longest}{mean}"


def _requests(count: int) -> str:
    return f"{count} request" if count == 1 else f"{count} requests"

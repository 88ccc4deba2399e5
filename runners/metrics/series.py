"""A run's state at a moment as points of its series: the same for the live page and for a finished run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from runners.metrics import families as f
from runners.metrics.families import Family
from runners.metrics.histogram import Histogram
from runners.metrics.state import PHASES, RunState

FRESH_S = 10.0
"""An older row of telemetry says nothing about now: what it says is left out, but for what the engine had counted."""
_MIB = 1 << 20
_MHZ = 1_000_000

Labels = tuple[tuple[str, str], ...]


class Point(NamedTuple):
    family: Family
    name: str
    labels: Labels
    value: float


def points(state: RunState, at: float) -> Iterator[Point]:
    """All series of a run at a moment; what nobody knows has none.

    Of a run that has ended the counters, the histograms and the sums stay. What was only true while it went on does
    not: a gauge of a machine that is gone would be a lie.
    """
    run = (("run_id", state.told.run_id), ("recipe", state.told.recipe))
    yield from _run(state, run, at)
    yield from _requests(state, run)
    if (engine := state.rows.get("engine")) is not None:
        yield from _read(_ENGINE_COUNTERS, engine[1], run)
    if state.outcome is None:
        if engine is not None and at - engine[0] <= FRESH_S:
            yield from _read(_ENGINE, engine[1], run)
        host = state.rows.get("host")
        if host is not None and at - host[0] <= FRESH_S:
            yield from _host(state, host[1], run)


def _run(state: RunState, run: Labels, at: float) -> Iterator[Point]:
    told, ended = state.told, state.outcome is not None
    about = ("model", "engine", "engine_version", "provider", "accelerators")
    yield Point(f.RUN_INFO, f.RUN_INFO.name, (*run, *((name, getattr(told, name)) for name in about)), 1)
    yield from _one(f.START, run, state.began)
    yield from _one(f.DEADLINE, run, None if ended else state.deadline)
    if state.outcome is not None:
        yield Point(f.OUTCOME, f.OUTCOME.name, (*run, ("status", state.outcome)), 1)
    seconds = state.seconds_in(at)
    names = (*PHASES, *(name for name in seconds if name not in PHASES))
    for name in () if ended else names:
        yield Point(f.PHASE, f.PHASE.name, (*run, ("phase", name)), float(name == state.phase))
    for name in names:
        yield Point(f.PHASE_SECONDS, f.PHASE_SECONDS.sample_name, (*run, ("phase", name)), seconds.get(name, 0.0))
    yield from _one(f.COST, run, state.cost_usd(at))
    yield from _one(f.PRICE, run, None if ended else state.price_usd_per_h)
    yield from _one(f.BUDGET, run, told.budget_usd)
    billed_s = state.billed_seconds(at)
    yield from _one(f.USEFUL, run, min(1.0, state.busy.seconds / billed_s) if billed_s > 0 else None)
    yield from _one(f.DOCUMENTS_DONE, run, state.documents_done)
    yield from _one(f.DOCUMENTS, run, told.documents)
    yield from _one(f.WARNINGS, run, state.warnings)


def _requests(state: RunState, run: Labels) -> Iterator[Point]:
    for status, number in state.requests.items():
        yield Point(f.REQUESTS, f.REQUESTS.sample_name, (*run, ("status", status)), number)
    yield from _one(f.RETRIED, run, state.retried)
    yield from _one(f.PROMPT_TOKENS, run, state.prompt_tokens)
    yield from _one(f.CACHED_TOKENS, run, state.cached_tokens)
    yield from _one(f.OUTPUT_TOKENS, run, state.output_tokens)
    yield from _histogram(f.TTFT, run, state.ttft)
    yield from _histogram(f.TPOT, run, state.tpot)
    yield from _histogram(f.E2E, run, state.e2e)
    if state.requests_host is not None:
        yield from _histogram(f.REQUEST_LATENCY, (("hostname", state.requests_host), *run), state.e2e)


def _read(fields: Mapping[Family, tuple[str, float]], row: Mapping[str, Any], labels: Labels) -> Iterator[Point]:
    for family, (field, factor) in fields.items():
        yield from _one(family, labels, _times(row.get(field), factor))


def _host(state: RunState, row: Mapping[str, Any], run: Labels) -> Iterator[Point]:
    machine = state.machine
    labels = (("hostname", str(machine.get("hostname") or "")), *run)
    yield from _one(f.LOAD, labels, row.get("load_1m"))
    yield from _one(f.HOST_CPUS, labels, machine.get("cpus"))
    yield from _one(f.HOST_MEMORY, labels, _times(machine.get("ram_total_mib"), _MIB))
    yield from _read(_HOST, row, labels)
    known = {gpu.get("index"): gpu for gpu in machine.get("gpus") or ()}
    for gpu in row.get("gpus") or ():
        yield from _gpu(gpu, known.get(gpu.get("index"), {}), labels, state.throttled.get(gpu.get("index"), ()))


def _gpu(row: Mapping[str, Any], known: Mapping[str, Any], host: Labels, throttled: Iterable[str]) -> Iterator[Point]:
    hostname, *run = host
    labels = (hostname, ("gpu_index", str(row.get("index"))), ("uuid", str(known.get("uuid") or "")), *run)
    total, used = known.get("memory_total_mib"), row.get("memory_used_mib")
    yield from _one(f.GPU_MEMORY_TOTAL, labels, total)
    yield from _one(f.GPU_MEMORY_FREE, labels, None if total is None or used is None else total - used)
    yield from _one(f.GPU_POWER_LIMIT, labels, known.get("power_limit_w"))
    yield from _read(_GPU, row, labels)
    now = {str(reason) for reason in row.get("throttle") or ()}
    for reason in throttled:
        yield Point(f.GPU_THROTTLED, f.GPU_THROTTLED.name, (*labels, ("reason", reason)), float(reason in now))


def _one(family: Family, labels: Labels, value: float | None) -> Iterator[Point]:
    if value is not None:
        yield Point(family, family.sample_name, labels, float(value))


def _times(value: float | None, factor: float) -> float | None:
    """Without the rest that binary fractions leave: 57 and not 56.99999999999999."""
    return None if value is None else round(value * factor, 6)


def _histogram(family: Family, labels: Labels, histogram: Histogram) -> Iterator[Point]:
    count = 0
    for bound, count in histogram.buckets():
        yield Point(family, f"{family.name}_bucket", (*labels, ("le", bound)), count)
    yield Point(family, f"{family.name}_count", labels, count)
    yield Point(family, f"{family.name}_sum", labels, histogram.sum)


_ENGINE: Mapping[Family, tuple[str, float]] = {
    f.ENGINE_RUNNING: ("running", 1),
    f.ENGINE_WAITING: ("waiting", 1),
    f.ENGINE_SWAPPED: ("swapped", 1),
    f.ENGINE_KV: ("kv_usage", 1),
}
_ENGINE_COUNTERS: Mapping[Family, tuple[str, float]] = {
    f.ENGINE_PROMPT: ("prompt_tokens_total", 1),
    f.ENGINE_OUTPUT: ("output_tokens_total", 1),
    f.ENGINE_PREEMPTIONS: ("preemptions_total", 1),
}
_HOST: Mapping[Family, tuple[str, float]] = {
    f.HOST_CPU: ("cpu", 1),
    f.HOST_CPU_ENERGY: ("cpu_energy_j", 1),
    f.HOST_MEMORY_USED: ("ram_used_mib", _MIB),
    f.HOST_DISK_USED: ("disk_used_mib", _MIB),
    f.HOST_DISK_FREE: ("disk_free_mib", _MIB),
    f.HOST_DISK_READ: ("disk_read_bytes", 1),
    f.HOST_DISK_WRITTEN: ("disk_written_bytes", 1),
    f.HOST_NETWORK_RECEIVED: ("net_received_bytes", 1),
    f.HOST_NETWORK_SENT: ("net_sent_bytes", 1),
}
_GPU: Mapping[Family, tuple[str, float]] = {
    f.GPU_UTILIZATION: ("utilization", 100),
    f.GPU_MEMORY_UTILIZATION: ("memory_utilization", 100),
    f.GPU_MEMORY_USED: ("memory_used_mib", 1),
    f.GPU_POWER: ("power_w", 1),
    f.GPU_ENERGY: ("energy_j", 1),
    f.GPU_TEMPERATURE: ("temperature_c", 1),
    f.GPU_SM_CLOCK: ("sm_mhz", _MHZ),
    f.GPU_MEMORY_CLOCK: ("memory_mhz", _MHZ),
}

"""What follows from what was measured: throughput, peaks, latency, cost. Pure functions over records and samples."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any, Generic, Literal, TypeVar

from recipes.traffic import Objective
from runners.engine import EngineSample, LogSample
from runners.records import RequestRecord

T = TypeVar("T", covariant=True)
State = TypeVar("State", EngineSample, LogSample)
PERCENTILES = (50, 90, 95, 99)
MOST_GAPS = 250_000
"""So many inter-token latencies are sorted at most; of more than these every second, third, … is taken."""
_NEAR_S = 1.5
_TOGETHER_S = 0.5
_AS_HIGH = 0.01
"""Rates that differ by less than this share are as high as each other."""
Kind = Literal["prompt", "output"]
Source = Literal["requests", "metrics", "log", "log of one request"]


@dataclass(frozen=True)
class Timed(Generic[T]):
    """A sample and the moment at which it was taken."""

    at: datetime
    sample: T


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The highest throughput of one kind that one source saw, and the engine's state at that moment."""

    kind: Kind
    source: Source
    tokens_per_s: float
    at: datetime
    """The middle of the interval of which this is the mean; of one request in the log, when it was told."""
    running: float | None
    waiting: float | None
    kv_usage: float | None


def throughput(
    records: Sequence[RequestRecord],
    metrics: Sequence[Timed[EngineSample]],
    log: Sequence[Timed[LogSample]],
) -> dict[str, Any]:
    """Tokens and rates from the requests themselves and, beside them, from the engine's metrics and log."""
    answered = [r for r in records if r.prompt_tokens or r.status == "ok"]
    prompt, output = sum(r.prompt_tokens for r in answered), sum(r.output_tokens for r in answered)
    seconds = _span_s(answered)
    of_requests = _request_peaks(answered, metrics)
    own = {peak.kind: peak for peak in of_requests}
    peaks = [*of_requests, *_metric_peaks(metrics, own), *_log_peaks(log, own)]
    return {
        "prompt_tokens": prompt,
        "output_tokens": output,
        "cached_prompt_tokens": sum(r.cached_tokens for r in answered),
        "seconds": round(seconds, 3),
        "prompt_tokens_per_s": _rate(prompt, seconds),
        "output_tokens_per_s": _rate(output, seconds),
        "peak_prompt_tokens_per_s": own["prompt"].tokens_per_s if own else None,
        "peak_output_tokens_per_s": own["output"].tokens_per_s if own else None,
        "peak_at": [{**asdict(p), "at": p.at.isoformat(timespec="milliseconds")} for p in peaks],
        "engine_counters": _counters(metrics),
        "measured_at": "client",
    }


def latency(records: Iterable[RequestRecord]) -> dict[str, Any]:
    """Percentiles of TTFT, TPOT, ITL and E2E in seconds, over the requests that succeeded; their means as well.

    As `vllm bench serve` has them: TTFT from sending to the first piece of text; TPOT (E2E - TTFT) / (output tokens
    - 1) of each request with two tokens or more; ITL each gap between two pieces, of all requests together; E2E to
    the end. What guidellm calls ITL is TPOT here, and its TPOT is E2E / output tokens.
    """
    good = [r for r in records if r.status == "ok"]
    pick: dict[str, Callable[[RequestRecord], float | None]] = {
        "ttft_s": lambda r: r.ttft_s,
        "tpot_s": lambda r: r.tpot_s,
        "e2e_s": lambda r: r.e2e_s,
    }
    found = {name: distribution([v for r in good if (v := get(r)) is not None]) for name, get in pick.items()}
    return {**found, "itl_s": distribution(inter_token_latencies(good))}


def inter_token_latencies(records: Iterable[RequestRecord]) -> Sequence[float]:
    """All gaps between pieces of text, of all requests together; evenly thinned out where there are very many."""
    pooled = array("f")
    for record in records:
        pooled.extend(record.itl_s)
    return pooled[:: -(-len(pooled) // MOST_GAPS)] if len(pooled) > MOST_GAPS else pooled


def distribution(values: Sequence[float]) -> dict[str, float | None]:
    """The mean and the percentiles; None without values."""
    mean = round(math.fsum(values) / len(values), 6) if values else None
    return {"mean": mean, **percentiles(values)}


def meets(record: RequestRecord, slo: Objective) -> bool:
    """Whether an answer came, and within every limit. One without a first token of its own keeps no limit on it."""
    if record.status != "ok":
        return False
    if slo.ttft is not None and (record.ttft_s is None or record.ttft_s > slo.ttft):
        return False
    if slo.tpot is not None and record.tpot_s is not None and record.tpot_s > slo.tpot:
        return False
    if slo.itl is not None and record.itl_s and (percentiles(record.itl_s)["p99"] or 0.0) > slo.itl:
        return False
    return slo.e2e is None or record.e2e_s <= slo.e2e


def goodput(records: Sequence[RequestRecord], slo: Objective, seconds: float) -> dict[str, float]:
    """Requests per second that met the objective, and their share of all, failed ones among them.

    As in DistServe (Zhong et al. 2024, section 2) and `vllm bench serve --goodput`.
    """
    good = sum(meets(record, slo) for record in records)
    share = round(good / len(records), 4) if records else 0.0
    return {"requests": good, "share": share, "requests_per_s": round(good / seconds, 4) if seconds > 0 else 0.0}


def percentiles(values: Iterable[float]) -> dict[str, float | None]:
    """p50, p90, p95 and p99 by linear interpolation between closest ranks (as numpy's default); None without values."""
    ordered = sorted(values)
    found: dict[str, float | None] = {}
    for p in PERCENTILES:
        if not ordered:
            found[f"p{p}"] = None
            continue
        rank = (len(ordered) - 1) * p / 100
        low = int(rank)
        high = min(low + 1, len(ordered) - 1)
        found[f"p{p}"] = round(ordered[low] + (ordered[high] - ordered[low]) * (rank - low), 6)
    return found


def request_counts(records: Sequence[RequestRecord]) -> dict[str, int]:
    return {
        "ok": sum(r.status == "ok" for r in records),
        "failed": sum(r.status == "failed" for r in records),
        "retried": sum(r.tries > 1 for r in records),
        "truncated": sum(r.finish_reason == "length" for r in records),
    }


def most_at_once(records: Iterable[RequestRecord]) -> int:
    """How many requests were under way at the same moment, at most."""
    kept = list(records)
    starts = sorted(r.started_at.timestamp() for r in kept)
    ends = sorted(r.ended_at.timestamp() for r in kept)
    most = ended = 0
    for begun, start in enumerate(starts, 1):
        while ended < len(ends) and ends[ended] <= start:
            ended += 1
        most = max(most, begun - ended)
    return most


def _rate(tokens: float, seconds: float) -> float:
    return round(tokens / seconds, 2) if seconds > 0 else 0.0


def _span_s(records: Sequence[RequestRecord]) -> float:
    if not records:
        return 0.0
    return (max(r.ended_at for r in records) - min(r.started_at for r in records)).total_seconds()


@dataclass(frozen=True)
class Rates:
    """Tokens per second of the requests, interval by interval."""

    origin: datetime
    width_s: float
    per_s: dict[Kind, list[float]]


def request_rates(records: Sequence[RequestRecord]) -> Rates | None:
    """The requests' throughput over time: prompt tokens are spread over the time to first token, output tokens over
    the rest. None if no time passed.

    The run is cut into equal intervals of a second or a little more (a run of less than that is one), so that none of
    it is left out and no peak can lie below the mean.
    """
    span_s = _span_s(records)
    if span_s <= 0:
        return None
    origin = min(r.started_at for r in records)
    whole = max(1, int(span_s))
    width_s = span_s / whole
    rates: dict[Kind, list[float]] = {"prompt": [0.0] * whole, "output": [0.0] * whole}
    for r in records:
        first, end = (r.first_token_at - origin).total_seconds(), (r.ended_at - origin).total_seconds()
        _spread(rates["prompt"], r.prompt_tokens, (r.started_at - origin).total_seconds(), first, width_s)
        _spread(rates["output"], r.output_tokens, first, end, width_s)
    return Rates(origin, width_s, rates)


def _request_peaks(records: Sequence[RequestRecord], metrics: Sequence[Timed[EngineSample]]) -> list[Peak]:
    """The busiest interval of each kind."""
    rates = request_rates(records)
    if rates is None:
        return []
    peaks = []
    for kind, per_interval in rates.per_s.items():
        i = max(range(len(per_interval)), key=per_interval.__getitem__)
        at = rates.origin + timedelta(seconds=(i + 0.5) * rates.width_s)
        peaks.append(_peak(kind, "requests", per_interval[i], at, _state_at(at, metrics)))
    return peaks


def _spread(rates: list[float], tokens: float, begin: float, end: float, width_s: float) -> None:
    """Add tokens to intervals in proportion to the time that falls into each, as tokens per second."""
    if end <= begin:  # all at one moment, as an answer that came in one piece
        rates[min(int(begin / width_s), len(rates) - 1)] += tokens / width_s
        return
    per_s = tokens / (end - begin)
    first, last = int(begin / width_s), min(len(rates) - 1, int(end / width_s))
    for i in {first, last}:  # the ends may be there for a part of their interval
        overlap = min(end, (i + 1) * width_s) - max(begin, i * width_s)
        rates[i] += max(0.0, overlap) / width_s * per_s
    for i in range(first + 1, last):
        rates[i] += per_s


def _peak(kind: Kind, source: Source, rate: float, at: datetime, state: EngineSample | LogSample) -> Peak:
    return Peak(
        kind=kind,
        source=source,
        tokens_per_s=round(rate, 2),
        at=at,
        running=state.running,
        waiting=state.waiting,
        kv_usage=state.kv_usage,
    )


def _state_at(at: datetime, metrics: Sequence[Timed[EngineSample]]) -> EngineSample:
    """The engine's state at a moment, from the nearest sample that saw it work; unknown if none is near."""
    working = [m for m in metrics if m.sample.running and abs((m.at - at).total_seconds()) <= _NEAR_S]
    nearest = min(working, key=lambda m: abs((m.at - at).total_seconds()), default=None)
    return nearest.sample if nearest else EngineSample()


def _metric_peaks(metrics: Sequence[Timed[EngineSample]], own: Mapping[Kind, Peak]) -> list[Peak]:
    peaks = []
    for kind, read in _COUNTERS.items():
        found = []
        for before, after in pairwise(metrics):
            elapsed = (after.at - before.at).total_seconds()
            a, b = read(before.sample), read(after.sample)
            # Shorter intervals come from the last sample of a phase, and would exaggerate.
            if a is None or b is None or elapsed < 0.5:
                continue
            found.append(((b - a) / elapsed, before.at + (after.at - before.at) / 2, after.sample))
        if found:
            peaks.append(_peak(kind, "metrics", *_highest(found, own.get(kind))))
    return peaks


def _log_peaks(log: Sequence[Timed[LogSample]], own: Mapping[Kind, Peak]) -> list[Peak]:
    """The engine's own highest figures; several engines of one server each speak for themselves."""
    peaks = []
    interval = timedelta(seconds=log_interval_s(log))
    for kind, read in _LOG_RATES.items():
        found = [
            (rate, line.at - (interval / 2 if line.sample.of == "engine" else timedelta()), line.sample)
            for line in log
            if (rate := read(line.sample)) is not None
        ]
        if found:
            rate, at, sample = _highest(found, own.get(kind))
            peaks.append(_peak(kind, "log" if sample.of == "engine" else "log of one request", rate, at, sample))
    return peaks


def _highest(found: Sequence[tuple[float, datetime, State]], own: Peak | None) -> tuple[float, datetime, State]:
    """The highest rate. A steady load reaches it often: of those that are as high, that nearest the requests' peak."""
    most = max(rate for rate, _, _ in found)
    high = [one for one in found if one[0] >= most * (1 - _AS_HIGH)]
    if own is None:
        return max(high, key=lambda one: one[0])
    return min(high, key=lambda one: abs((one[1] - own.at).total_seconds()))


def log_interval_s(log: Sequence[Timed[LogSample]]) -> float:
    """Over how long the figures of a line are means: as long as lines are usually apart; 0 if there is only one."""
    times = [line.at for line in log if line.sample.of == "engine"]
    apart = [(b - a).total_seconds() for a, b in pairwise(times)]
    # Several engines of one server tell theirs at nearly the same moment.
    known = [seconds for seconds in apart if seconds >= _TOGETHER_S]
    return median(known) if known else 0.0


def _counters(metrics: Sequence[Timed[EngineSample]]) -> dict[str, Any] | None:
    """What the engine itself counted between the first and the last sample of the drive."""
    if len(metrics) < 2:
        return None
    counted = {}
    for kind, read in _COUNTERS.items():
        a, b = read(metrics[0].sample), read(metrics[-1].sample)
        counted[f"{kind}_tokens"] = None if a is None or b is None else round(b - a)
    return counted


_COUNTERS: dict[Kind, Callable[[EngineSample], float | None]] = {
    "prompt": lambda s: s.prompt_tokens_total,
    "output": lambda s: s.output_tokens_total,
}
_LOG_RATES: dict[Kind, Callable[[LogSample], float | None]] = {
    "prompt": lambda s: s.prompt_tokens_per_s,
    "output": lambda s: s.output_tokens_per_s,
}

"""What a load says of the engine, point by point: pure functions of its records.

A point lasts from its first request to its last answer, as in `vllm bench serve`; throughput is what came out in that
time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipes.traffic import Traffic
from runners.measurement import distribution, goodput, latency, most_at_once, request_counts
from runners.records import RequestRecord
from runners.workloads.load.points import Point, due_times_s

GAIN = 0.15
"""A closed loop is saturated where more requests at once bring less than this share of what they could bring."""
GROWTH = 0.05
"""An open loop is saturated where E2E grows by more than so many seconds for each second of arrivals. Of an engine that
answers at a rate μ below the arrivals' λ, it grows by λ/μ - 1."""
_LATER = 1.25
"""And where requests of the last third take so much longer than those of the first."""
_SURE = 3.0
"""Standard errors by which the growth must differ from none."""
_FEWEST = 12
"""Requests from which a growth can be told."""
_FAILED = 0.05
"""The share of failed requests from which on the engine does not keep up."""
_LATE_S, _BUSY, _ON_TIME = 0.05, 0.9, 0.95
"""Our own client lags where the 99th percentile of lateness is above this, a closed loop has fewer than this share of
its requests under way, or an open one sends less than this share of what was due."""


@dataclass(frozen=True)
class Setting:
    """What the figures depend on, besides the records."""

    traffic: Traffic
    points: tuple[Point, ...]
    forced: bool
    """Whether answers were asked to be of a certain length."""
    most_under_way: int
    """Beyond it the client stops an open loop."""


def figures(setting: Setting, records: Iterable[RequestRecord]) -> dict[str, Any]:
    """All points that have begun, and what follows from them together."""
    by_name: dict[str, list[RequestRecord]] = {}
    for record in records:
        by_name.setdefault(record.document, []).append(record)
    points: list[dict[str, Any]] = []
    for point in setting.points:
        if taken := by_name.get(point.name):
            points.append(point_figures(setting, point, taken, points[-1] if points else None))
    return summed_up(setting, points)


def summed_up(setting: Setting, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The knee, the best goodput, and why the last point was the last."""
    saturated = next((i for i, point in enumerate(points) if point["saturated"]), None)
    good = [point for point in points if point["goodput"] and point["goodput"]["requests"]]
    best = max(good, key=lambda point: float(point["goodput"]["requests_per_s"]), default=None)
    return {
        "kind": "load",
        "points": list(points),
        "knee": points[saturated - 1]["name"] if saturated else None,
        "saturated_at": points[saturated]["name"] if saturated is not None else None,
        "best_goodput": best["name"] if best else None,
        "last": _last(setting, points),
    }


def _last(setting: Setting, points: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not points:
        return None
    name, left = points[-1]["name"], len(setting.points) - len(points)
    if left == 0:
        return {"point": name, "why": "all points were measured", "skipped": 0}
    if points[-1]["saturated"] and setting.traffic.stop_at_saturation:
        return {"point": name, "why": f"saturated: {points[-1]['saturated']}", "skipped": left}
    return {"point": name, "why": "the load was broken off", "skipped": left}


def point_figures(
    setting: Setting, point: Point, records: Sequence[RequestRecord], before: Mapping[str, Any] | None
) -> dict[str, Any]:
    """One point; `before` are the figures of the lighter one."""
    good = [record for record in records if record.status == "ok"]
    begun, ended = min(r.started_at for r in records), max(r.ended_at for r in records)
    seconds = (ended - begun).total_seconds()
    prompt, output = sum(r.prompt_tokens for r in good), sum(r.output_tokens for r in good)
    found: dict[str, Any] = {
        "name": point.name,
        "concurrency": point.concurrency,
        "rate_per_s": point.rate_per_s,
        "started_at": begun.isoformat(timespec="milliseconds"),
        "seconds": round(seconds, 6),
        "finished": _is_whole(point, records),
        "requests": {**request_counts(records), "asked": point.requests},
        "prompt_tokens": prompt,
        "cached_prompt_tokens": sum(r.cached_tokens for r in good),
        "output_tokens": output,
        "short_answers": sum(r.finish_reason != "length" for r in good) if setting.forced else 0,
        "requests_per_s": _per(len(good), seconds),
        "prompt_tokens_per_s": _per(prompt, seconds),
        "output_tokens_per_s": _per(output, seconds),
        "under_way": {"mean": _mean_under_way(records), "most": most_at_once(records)},
        "latency": latency(records),
        "send_s": distribution([r.send_s for r in good]),
        "goodput": goodput(records, setting.traffic.slo, seconds) if setting.traffic.slo else None,
        "arrivals": _arrivals(setting.traffic, point, records) if point.rate_per_s is not None else None,
        "error": next((r.error for r in records if r.status == "failed"), None),
    }
    found["saturated"] = _saturated(setting, found, good, before)
    found["client_lags"] = _lags(found)
    return found


def _is_whole(point: Point, records: Sequence[RequestRecord]) -> bool:
    """Whether everything was sent that the point was to send."""
    if point.arrivals is not None and len(records) >= point.arrivals:
        return True
    if point.rate_per_s is not None or point.duration_s is None:
        return False
    begun, last = min(r.started_at for r in records), max(r.ended_at for r in records)
    return (last - begun).total_seconds() >= point.duration_s


def _per(count: float, seconds: float) -> float:
    return round(count / seconds, 4) if seconds > 0 else 0.0


def _mean_under_way(records: Sequence[RequestRecord]) -> float | None:
    """How many requests were under way on average, from the first to the beginning of the last."""
    begun, last = min(r.started_at for r in records), max(r.started_at for r in records)
    window_s = (last - begun).total_seconds()
    if window_s <= 0:
        return None
    held_s = math.fsum((min(r.ended_at, last) - r.started_at).total_seconds() for r in records)
    return round(held_s / window_s, 2)


def _arrivals(traffic: Traffic, point: Point, records: Sequence[RequestRecord]) -> dict[str, Any]:
    """How the requests were sent, against how they were due.

    The most punctual request is taken to have been sent just when it was due.
    """
    ordered = sorted(records, key=lambda r: r.index)
    due_s = due_times_s(traffic, point)[: ordered[-1].index + 1]
    begun = ordered[0].started_at
    apart = [(r.started_at - begun).total_seconds() - due_s[r.index] for r in ordered]
    punctual = min(apart)
    late = [one - punctual for one in apart]
    due_span = due_s[-1] - due_s[ordered[0].index]
    sent_span = (ordered[-1].started_at - begun).total_seconds()
    return {
        "asked_per_s": point.rate_per_s,
        "due_per_s": _per(len(ordered) - 1, due_span),
        "sent_per_s": _per(len(ordered) - 1, sent_span),
        "lateness_s": {**distribution(late), "most": round(max(late), 6)},
    }


def _lags(found: Mapping[str, Any]) -> str | None:
    """Whether our own client, and not the engine, was what the point measures."""
    arrivals = found["arrivals"]
    if arrivals is not None:
        late = arrivals["lateness_s"]["p99"] or 0.0
        if late > _LATE_S:
            return f"1 % of the requests were sent more than {late * 1000:.0f} ms after they were due"
        if arrivals["sent_per_s"] < _ON_TIME * arrivals["due_per_s"]:
            return f"{arrivals['sent_per_s']:g} requests/s were sent of {arrivals['due_per_s']:g} that were due"
        return None
    mean, asked = found["under_way"]["mean"], found["concurrency"]
    total = found["requests"]["ok"] + found["requests"]["failed"]
    if mean is None or total < 2 * asked or mean >= _BUSY * asked:
        return None
    return f"{mean:g} requests were under way on average, of {asked}"


def _saturated(
    setting: Setting, found: Mapping[str, Any], good: Sequence[RequestRecord], before: Mapping[str, Any] | None
) -> str | None:
    """Why the engine does not keep up at this point; None if it does."""
    total = found["requests"]["ok"] + found["requests"]["failed"]
    if found["requests"]["failed"] > _FAILED * total:
        return f"{found['requests']['failed']:,} of {total:,} requests failed"
    if found["concurrency"] is None:
        if found["under_way"]["most"] >= setting.most_under_way:
            return f"{found['under_way']['most']:,} requests were under way, more than this client goes on with"
        return _growing(good)
    if before is None or not before["requests"]["ok"]:
        return None
    heavier = f"it is heavier than {before['name']}, which is saturated" if before["saturated"] else None
    return _no_gain(before, found) or heavier


def _no_gain(before: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """Whether more requests at once bring no more requests per second.

    A closed loop of N has N / E2E requests per second while it is full (Little's law): free of how it begins and ends.
    """
    fewer, more = before["concurrency"], found["concurrency"]
    e2e_before, e2e = before["latency"]["e2e_s"]["mean"], found["latency"]["e2e_s"]["mean"]
    if not e2e_before or not e2e:
        return None
    gain, longer = (more / e2e) / (fewer / e2e_before), e2e / e2e_before
    if math.log(gain) >= GAIN * math.log(more / fewer):
        return None
    change = f"{more} at once instead of {fewer} change the requests/s by {gain - 1:+.0%}"
    return f"{change}, and each takes {longer:.1f} × as long"


def _growing(good: Sequence[RequestRecord]) -> str | None:
    """Whether answers take longer and longer: the slope of E2E over the time of sending, after the first third."""
    ordered = sorted(good, key=lambda r: r.started_at)
    third = len(ordered) // 3
    if len(ordered) < _FEWEST:
        return None
    first, last = _mean_e2e(ordered[:third]), _mean_e2e(ordered[-third:])
    if last < _LATER * first:
        return None
    later = ordered[third:]
    begun = later[0].started_at
    slope, error = _slope([(r.started_at - begun).total_seconds() for r in later], [r.e2e_s for r in later])
    if slope < GROWTH or slope < _SURE * error:
        return None
    return (
        f"requests wait longer and longer: E2E {first:.2f} s in the first third, {last:.2f} s in the last; "
        f"the engine takes about {1 / (1 + slope):.0%} of them"
    )


def _mean_e2e(records: Sequence[RequestRecord]) -> float:
    return math.fsum(r.e2e_s for r in records) / len(records)


def _slope(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Of the line of least squares, and its standard error."""
    n = len(x)
    mean_x, mean_y = math.fsum(x) / n, math.fsum(y) / n
    spread = math.fsum((a - mean_x) ** 2 for a in x)
    if spread == 0 or n < 3:
        return 0.0, 0.0
    slope = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    rest = math.fsum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    return slope, math.sqrt(rest / (n - 2) / spread)

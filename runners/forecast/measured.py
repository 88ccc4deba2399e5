"""What a run's result keeps for forecasts to come, and how far its own was off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from recipes.ranges import Range
from recipes.spec import Workload, digest_of
from runners.clock import PhaseTime
from runners.forecast.history import median
from runners.forecast.values import Forecast
from runners.measurement import most_at_once
from runners.records import RequestRecord


def work_row(records: Sequence[RequestRecord], settings: Workload, at_once: int | None = None) -> dict[str, Any] | None:
    """The work as it was: by level, with means over its requests. None if nothing was answered, and of a load, whose
    points are too different for one speed.

    `at_once` is how many requests the engine had room for, if the plan knew.
    """
    good = [record for record in records if record.status == "ok"]
    if not good or settings.traffic is not None:
        return None
    first, last = min(r.started_at for r in good), max(r.ended_at for r in good)
    timed = [r.ttft_s for r in good if r.ttft_s is not None]
    outputs = [r.output_tokens for r in good]
    mean = sum(outputs) / len(outputs)
    deviation = math.sqrt(sum((tokens - mean) ** 2 for tokens in outputs) / len(outputs))
    return {
        "concurrency": settings.at_once or most_at_once(good),
        "at_once": at_once,
        "max_tokens": settings.max_tokens,
        "prompt": digest_of(settings.prompt),
        "seconds": round((last - first).total_seconds(), 6),
        "ttft_s": sum(timed) / len(timed) if len(timed) == len(good) else None,
        "e2e_s": sum(r.e2e_s for r in good) / len(good),
        "output_tokens": mean,
        "output_spread": deviation / mean if mean else 0.0,
        "truncated": sum(r.finish_reason == "length" for r in good),
        "levels": [_level_row(number, level) for number, level in sorted(_by_level(good).items())],
    }


def _by_level(records: Sequence[RequestRecord]) -> dict[int, list[RequestRecord]]:
    found: dict[int, list[RequestRecord]] = {}
    for record in records:
        found.setdefault(record.level, []).append(record)
    return found


def _level_row(number: int, level: Sequence[RequestRecord]) -> dict[str, int]:
    return {
        "level": number,
        "documents": len({r.document for r in level}),
        "requests": len(level),
        "prompt_tokens": sum(r.prompt_tokens for r in level),
        "cached_prompt_tokens": sum(r.cached_tokens for r in level),
        "output_tokens": sum(r.output_tokens for r in level),
    }


def compared(forecast: Forecast, phases: Sequence[PhaseTime]) -> dict[str, Any]:
    """The forecast, and its error: what it took, over what was likely, less one.

    Phases that the forecast does not have (the plan's own) are left out. What was billed counts in dollars.
    """
    took: dict[str, tuple[float, float | None]] = {}
    for phase in phases:
        seconds, usd = took.get(phase.name, (0.0, 0.0))
        paid = None if usd is None or phase.usd is None else usd + phase.usd
        took[phase.name] = (seconds + phase.seconds, paid)
    rows = [
        {**asdict(phase), "error": _error(took[phase.name][0], phase.seconds)}
        for phase in forecast.phases
        if phase.name in took
    ]
    named = {phase.name for phase in forecast.phases}
    told = [times for name, times in took.items() if name in named]
    seconds = sum(times[0] for times in told)
    usd = None if any(times[1] is None for times in told) else sum(times[1] or 0.0 for times in told)
    total_s, total_usd = forecast.total_s, forecast.total_usd
    return {
        "phases": rows,
        "total_seconds": asdict(total_s),
        "total_usd": asdict(total_usd) if total_usd else None,
        "took": {"seconds": round(seconds, 3), "usd": None if usd is None else round(usd, 8)},
        "error": {
            "seconds": _error(seconds, total_s),
            "usd": None if usd is None or total_usd is None else _error(usd, total_usd),
            "within": total_s.low <= seconds <= total_s.high,
        },
    }


def _error(actual: float, forecast: Range) -> float | None:
    return round(actual / forecast.likely - 1, 4) if forecast.likely > 0 else None


def accuracy(forecasts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How good the forecasts of completed runs were: the median of their errors without sign, and the share of runs
    whose time lay between low and high. Rows are those of `compared`."""
    errors = {
        kind: [abs(row["error"][kind]) for row in forecasts if row["error"][kind] is not None]
        for kind in ("seconds", "usd")
    }
    phases: dict[str, list[float]] = {}
    for row in forecasts:
        for phase in row["phases"]:
            if phase["error"] is not None:
                phases.setdefault(phase["name"], []).append(abs(phase["error"]))
    within = [bool(row["error"]["within"]) for row in forecasts]
    return {
        "runs": len(forecasts),
        "median_error": {kind: median(found) if found else None for kind, found in errors.items()},
        "median_error_of_phases": {name: median(found) for name, found in phases.items()},
        "within": sum(within) / len(within) if within else None,
    }

"""Whether the figures and times of a result can be true, as far as anybody can tell who was not there.

A list is sorted by them, sums are made of them, and axes drawn: one impossible value would spoil a whole log.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from runners.exporting.columns import as_time

LARGEST = 2**53
"""Of any figure: what floats hold exactly."""
MOST_USD = 1e9
_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
"""Nothing that is served here is older."""
_CLOCKS = timedelta(days=1)
"""So far the clock of another machine may be ahead."""
_SETTINGS = frozenset({"variant", "args"})
"""What somebody chose, and nobody measured: any number may be there."""
_SIGNED = frozenset({"exit_code", "difference_usd", "difference_share", "clock_offset_s", "temperature_c"})
_MEASURED = frozenset({
    *("offer", "lease", "phases", "cost", "throughput", "latency", "requests", "documents", "telemetry"),
    *("prepared", "concurrency", "artifacts"),
})  # fmt: skip
"""The parts in which nothing but what is signed is below zero."""
_SLACK_S, _SLACK = 60.0, 0.05
"""By how much older recipes' phases, or a clock that was set, may miss the run."""


def implausible(result: Mapping[str, Any], now: datetime) -> str | None:
    """What cannot be true of a result that is whole (shape.py); None if nothing is."""
    return next(_doubts(result, now), None)


def _doubts(result: Mapping[str, Any], now: datetime) -> Iterator[str]:
    for name, value in result.items():
        yield from _values(name, name, value, now + _CLOCKS, signed=name not in _MEASURED)
    begun, ended = as_time(result["started_at"]), as_time(result["ended_at"])
    if begun is None or ended is None or ended < begun:
        yield "it ended before it began"
        return
    yield from _phases(result, begun, ended)
    yield from _dollars(result["cost"])


def _values(path: str, name: str, value: Any, latest: datetime, *, signed: bool) -> Iterator[str]:
    """Each number and each moment at this path and below it."""
    if isinstance(value, Mapping) and name not in _SETTINGS:
        for key, inner in value.items():
            yield from _values(f"{path}.{key}", str(key), inner, latest, signed=signed or key in _SIGNED)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _values(f"{path}.{i}", name, inner, latest, signed=signed)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if not -LARGEST <= value <= LARGEST:
            yield f"{path} is no figure of a run"
        elif value < 0 and not signed:
            yield f"{path} is {value}, below zero"
    elif isinstance(value, str) and (name == "at" or name.endswith("_at")):
        instant = as_time(value)
        if instant is not None and not _EARLIEST <= instant <= latest:
            yield f"{path} is {value}, which is no time of a run"


def _phases(result: Mapping[str, Any], begun: datetime, ended: datetime) -> Iterator[str]:
    """Their sum is the run."""
    whole = (ended - begun).total_seconds()
    together = math.fsum(phase["seconds"] for phase in result["phases"])
    slack = _SLACK_S + _SLACK * whole
    if result["phases"] and abs(together - whole) > slack:
        yield f"its phases take {together:,.0f} s together, and it took {whole:,.0f} s"
    for i, phase in enumerate(result["phases"]):
        at = as_time(phase["started_at"])
        if at is None or abs((at - begun).total_seconds()) > whole + slack:
            yield f"phases.{i}.started_at is {phase['started_at']}, outside of the run"


def _dollars(cost: Mapping[str, Any]) -> Iterator[str]:
    total, idle = cost["total_usd"], cost.get("idle_usd")
    if total is None:
        return
    if total > MOST_USD:
        yield f"cost.total_usd is {total:g}: no run costs so much"
    elif idle and math.fsum(idle.values()) > total * (1 + _SLACK) + 0.01:
        yield "cost.idle_usd is more than the whole run cost"

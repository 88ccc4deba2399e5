"""What a run cost, and for what: useful seconds and idle ones by their cause, by document and token. Pure functions.

Everything is added up in whole milliseconds and in whole parts of a dollar, so that each sum is exact: the phases are
the total, and what was useful and what was idle are the total as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from runners.clock import USD_DIGITS, PhaseTime
from runners.records import RequestRecord

CAUSES = ("boot", "download", "load", "waiting", "letting_go", "kept")
"""Why a machine was paid for while no request was under way, in the order of a run."""
_CAUSE_OF = {
    "plan": "boot",
    "provision": "boot",
    "prepare": "download",
    "launch": "load",
    "drive": "waiting",
    "collect": "letting_go",
    "release": "letting_go",
    "keep": "kept",
}
_BEFORE = "before"
_USEFUL = "useful"
_PER_USD: int = 10**USD_DIGITS

Spans = Sequence[tuple[int, int]]
"""Begin and end in microseconds since 1970, in order and without overlap."""


@dataclass(frozen=True)
class Window:
    """A phase of an earlier client of the run."""

    phase: str
    begin: datetime
    end: datetime


@dataclass(frozen=True, kw_only=True)
class Electricity:
    """What power was measured, and what it costs."""

    row: Mapping[str, Any]
    """gpu_wh, cpu_wh, total_wh, covered_seconds, source."""
    wh_by_phase: Sequence[float] = ()
    """Of each of the run's phases, as far as it was measured."""
    price_usd_per_kwh: float | None = None

    @property
    def usd(self) -> float | None:
        wh = self.row.get("total_wh")
        return None if wh is None or self.price_usd_per_kwh is None else wh / 1000 * self.price_usd_per_kwh


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What was billed: the phases, and by the hour for what."""

    phases: Sequence[PhaseTime]
    price_usd_per_h: float | None
    storage_usd_per_h: float = 0.0
    before: Sequence[Window] = ()
    """What the phase "before" holds, of a run that another client has begun."""
    electricity: Electricity | None = None

    @property
    def billed_seconds(self) -> float:
        return round(math.fsum(phase.billed_seconds for phase in self.phases), 3)

    @property
    def priced_by(self) -> str | None:
        """What the total is: the machine's price by the hour, else its electricity, else unknown."""
        if self.price_usd_per_h is not None:
            return "hour"
        return "energy" if self.electricity is not None and self.electricity.usd is not None else None

    def units(self) -> list[int] | None:
        """What each phase cost in the smallest parts of a dollar; None if nobody knows."""
        if self.priced_by == "hour":
            return [_units(phase.usd or 0.0) for phase in self.phases]
        if self.priced_by is None or self.electricity is None:
            return None
        weights = self.electricity.wh_by_phase
        if len(weights) != len(self.phases) or not any(weights):
            weights = [phase.billed_seconds for phase in self.phases]
        return shares(_units(self.electricity.usd or 0.0), weights)


def phase_rows(spent: Spent) -> list[dict[str, Any]]:
    """The phases as result.json has them; their dollars sum up to the total."""
    units = spent.units()
    costs = [None] * len(spent.phases) if units is None else [_usd(part) for part in units]
    return [{**phase.row(), "usd": usd} for phase, usd in zip(spent.phases, costs, strict=True)]


def cost(spent: Spent, records: Sequence[RequestRecord], documents_done: int) -> dict[str, Any]:
    """What the run cost, and what that makes per token and document; None where the price is unknown.

    A second is useful if a request was under way in it; the records' times are on the phases' own clock. `counted` are
    all requests that were paid for, those of earlier clients of the run among them.
    """
    units, billed = spent.units(), spent.billed_seconds
    total = None if units is None else sum(units)
    busy = busy_spans(records)
    uses = [_uses(phase, busy, spent.before) for phase in spent.phases]
    useful_ms = sum(use.useful_ms for use in uses)
    idle_ms = {cause: sum(use.idle_ms.get(cause, 0) for use in uses) for cause in CAUSES}
    useful_units, idle_units = _paid_for(uses, units)
    storage = None if total is None else _storage_units(spent, total)
    prompt, output = sum(r.prompt_tokens for r in records), sum(r.output_tokens for r in records)
    return {
        "price_usd_per_h": spent.price_usd_per_h,
        "storage_usd_per_h": spent.storage_usd_per_h,
        "priced_by": spent.priced_by,
        "billed_seconds": billed,
        "total_usd": _usd(total),
        "compute_usd": None if total is None or storage is None else _usd(total - storage),
        "storage_usd": _usd(storage),
        "forecast_usd": None,
        "useful_fraction": round(useful_ms / 1000 / billed, 4) if billed else 0.0,
        "useful_seconds": useful_ms / 1000,
        "useful_usd": _usd(useful_units),
        "idle_seconds": {cause: ms / 1000 for cause, ms in idle_ms.items()},
        "idle_usd": {cause: _usd(idle_units[cause]) for cause in CAUSES} if idle_units else None,
        "usd_per_million_prompt_tokens": _each(total, prompt / 1e6),
        "usd_per_million_output_tokens": _each(total, output / 1e6),
        "usd_per_million_tokens": _each(total, (prompt + output) / 1e6),
        "usd_per_document": _each(total, documents_done),
        "counted": {"requests": len(records), "prompt_tokens": prompt, "output_tokens": output},
        "energy": _energy_row(spent.electricity),
    }


def windows_before(rows: Iterable[Mapping[str, Any]], end: datetime) -> list[Window]:
    """The phases of a run's earlier clients, from the rows of events.jsonl; `end` is when this client took over.

    One that was on when its client died lasts until then, for nobody was there to begin another.
    """
    found: list[Window] = []
    on: tuple[str, datetime] | None = None
    for row in rows:
        at, kind = datetime.fromisoformat(row["at"]), row["event"]
        if at >= end:
            break
        if on is not None and (kind == "phase-started" or (kind == "phase-ended" and row["phase"] == on[0])):
            found.append(Window(on[0], on[1], at))
            on = None
        if kind == "phase-started":
            on = (row["phase"], at)
    return [*found, Window(on[0], on[1], end)] if on is not None else found


def busy_spans(records: Iterable[RequestRecord]) -> Spans:
    """When at least one request was under way."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted((_us(r.started_at), _us(r.ended_at)) for r in records):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """A sum in proportion to weights, without a rest: each running sum is rounded, and its steps are the shares."""
    whole = math.fsum(weights)
    if whole <= 0:
        return [total if i == 0 else 0 for i in range(len(weights))]
    marks = [round(total * math.fsum(weights[: i + 1]) / whole) for i in range(len(weights) - 1)]
    ends = [0, *marks, total]
    return [after - before for before, after in pairwise(ends)] if weights else []


@dataclass(frozen=True)
class _Use:
    """For what a phase's billed milliseconds were paid."""

    useful_ms: int
    idle_ms: Mapping[str, int] = field(default_factory=dict)


def _uses(phase: PhaseTime, busy: Spans, before: Sequence[Window]) -> _Use:
    if phase.billed_from is None:
        return _Use(0)
    begin = _ms(phase.billed_from)
    end = begin + round(phase.billed_seconds * 1000)
    useful, idle = 0, dict.fromkeys(CAUSES, 0)
    for cause, start, until in _segments(phase.name, begin, end, before):
        under_way = _under_way_ms(busy, start * 1000, until * 1000)
        useful += under_way
        idle[cause] += until - start - under_way
    return _Use(useful, idle)


def _under_way_ms(busy: Spans, begin: int, end: int) -> int:
    return round(sum(min(end, b) - max(begin, a) for a, b in busy if b > begin and a < end) / 1000)


def _segments(name: str, begin: int, end: int, before: Sequence[Window]) -> Iterable[tuple[str, int, int]]:
    """A time in milliseconds by its cause; between the phases of an earlier client the machine waited."""
    if name != _BEFORE:
        yield _CAUSE_OF.get(name, "waiting"), begin, end
        return
    at = begin
    for window in before:
        start, until = max(at, _ms(window.begin)), min(end, _ms(window.end))
        if until <= start:
            continue
        # What lies before the first phase is the machine's own beginning.
        yield "boot" if at == begin else "waiting", at, start
        yield _CAUSE_OF.get(window.phase, "waiting"), start, until
        at = until
    yield "waiting", at, end


def _paid_for(uses: Sequence[_Use], units: Sequence[int] | None) -> tuple[int | None, dict[str, int]]:
    """What was paid for useful time, and for idle time by its cause; the seconds of a phase cost the same."""
    if units is None:
        return None, {}
    paid = dict.fromkeys((_USEFUL, *CAUSES), 0)
    for use, phase_units in zip(uses, units, strict=True):
        weights = {_USEFUL: use.useful_ms, **use.idle_ms}
        if not any(weights.values()):  # its electricity was measured, though nothing was leased yet
            weights = {"boot": 1}
        for cause, part in zip(weights, shares(phase_units, list(weights.values())), strict=True):
            paid[cause] += part
    return paid[_USEFUL], {cause: paid[cause] for cause in CAUSES}


def _storage_units(spent: Spent, total: int) -> int:
    """Of the total what the disks cost."""
    if spent.priced_by != "hour":
        return 0
    return shares(total, [spent.price_usd_per_h or 0.0, spent.storage_usd_per_h])[1]


def _energy_row(electricity: Electricity | None) -> dict[str, Any] | None:
    if electricity is None:
        return None
    usd = electricity.usd
    return {**electricity.row, "usd": None if usd is None else _usd(_units(usd))}


def _each(total: int | None, parts: float) -> float | None:
    """A dollar amount per part, with six digits that count."""
    return None if total is None or not parts else float(f"{total / _PER_USD / parts:.6g}")


def _units(usd: float) -> int:
    return round(usd * _PER_USD)


def _usd(units: int | None) -> float | None:
    return None if units is None else round(units / _PER_USD, USD_DIGITS)


def _us(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)

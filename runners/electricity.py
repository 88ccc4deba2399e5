"""What a run took from the wall, by phase, from its telemetry."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from runners.clock import PhaseTime
from runners.costing import Electricity
from runners.telemetry.energy import Energy, EnergyMeter


def electricity(
    rows: Iterable[Mapping[str, Any]], phases: Sequence[PhaseTime], price_usd_per_kwh: float | None
) -> Electricity | None:
    """Of the rows of telemetry.jsonl; None if nothing in them tells of energy.

    What was taken between two samples is of the phase in which the later one lies.
    """
    meter, by_phase, before = EnergyMeter(), [0.0] * len(phases), 0.0
    begun = [phase.started_at for phase in phases]
    for row in rows:
        if row["source"] == "engine":
            continue
        meter.add(row)
        if row["source"] != "host":
            continue
        now = _total(meter.energy())
        if now > before:
            by_phase[max(0, bisect_right(begun, datetime.fromisoformat(row["at"])) - 1)] += now - before
            before = now
    found = meter.energy()
    if found is None or not phases:
        return None
    row = {
        "gpu_wh": _rounded(found.gpu_wh),
        "cpu_wh": _rounded(found.cpu_wh),
        "total_wh": _rounded(_total(found)),
        "covered_seconds": found.covered_seconds,
        "source": found.source,
    }
    return Electricity(row=row, wh_by_phase=tuple(by_phase), price_usd_per_kwh=price_usd_per_kwh)


def _total(found: Energy | None) -> float:
    return 0.0 if found is None else (found.gpu_wh or 0.0) + (found.cpu_wh or 0.0)


def _rounded(wh: float | None) -> float | None:
    return None if wh is None else round(wh, 6)

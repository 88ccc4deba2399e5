"""What a month has cost, by the ledger and the journal of leases."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from provisioners.journal import Entry, Journal
from runners.ledger import Ledger
from runners.ledger.leases import so_far


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a calendar month has cost, in UTC: the runs that began in it, and what bills on from before."""

    month: str
    """2026-11."""
    ended_usd: float
    going_usd: float
    """Of runs that are going on: what they are likely to cost, or have cost by now if that is more."""
    unminded_usd: float
    """Of machines without a living run: until they were let go, or until now if they may be billing."""
    going: int
    unminded: int
    """How many of these may be billing now."""
    next_month: str
    """The day on which the next begins."""

    @property
    def usd(self) -> float:
        return self.ended_usd + self.going_usd + self.unminded_usd


def nothing_spent(now: datetime) -> Spent:
    """Where nothing has run yet."""
    began, after = _month(now)
    return Spent(
        month=f"{began:%Y-%m}",
        ended_usd=0.0,
        going_usd=0.0,
        unminded_usd=0.0,
        going=0,
        unminded=0,
        next_month=f"{after:%Y-%m-%d}",
    )


def spent_in_month(ledger: Ledger, now: datetime) -> Spent:
    """What the month of this moment has cost up to it."""
    began, after = _month(now)
    standing, journal = ledger.standing(), Journal(ledger.path)
    running = {run_id for run_id, status in standing.items() if status == "running"}
    of_lost = journal.of_runs(standing.keys() - running)
    of_ended = [entry for entry in journal.open_leases() if entry.lease.run_id not in standing]
    going = so_far(journal.of_runs(running), now, since=began)
    unminded = [so_far(of_lost, now, since=began)]
    # Until its run ended, a machine that was not proven gone is in that run's own cost.
    unminded += [so_far([entry], now, since=max(began, _ended(ledger, entry) or began)) for entry in of_ended]
    folder = ledger.path.parent / "runs"
    return replace(
        nothing_spent(now),
        ended_usd=ledger.ended_usd(since=began, until=after),
        going_usd=sum(max(going.get(run_id, 0.0), _likely_usd(folder / run_id)) for run_id in running),
        unminded_usd=sum(usd for each in unminded for usd in each.values()),
        going=len(running),
        unminded=sum(entry.open for entry in (*of_lost, *of_ended)),
    )


def _month(now: datetime) -> tuple[datetime, datetime]:
    """When the month of this moment began, and when the next will."""
    began = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return began, (began + timedelta(days=32)).replace(day=1)


def _ended(ledger: Ledger, entry: Entry) -> datetime | None:
    row = ledger.run(entry.lease.run_id)
    return datetime.fromisoformat(row["ended_at"]) if row and row["ended_at"] else None


def _likely_usd(folder: Path) -> float:
    """What a run that is going on was forecast to cost, and at most its limits.max_cost."""
    try:
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        likely, most = plan["forecast"]["total_usd"]["likely"], plan["limits"].get("max_cost")
        return float(likely if most is None else min(likely, most))
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0

"""What a month has cost, by the ledger and the journal of leases."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from provisioners.journal import Journal
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


def spent_in_month(ledger: Ledger, now: datetime) -> Spent:
    """What the month of this moment has cost up to it."""
    began = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    after = (began + timedelta(days=32)).replace(day=1)
    standing = ledger.standing()
    running = {run_id for run_id, status in standing.items() if status == "running"}
    journal = Journal(ledger.path)
    of_lost = journal.of_runs(run_id for run_id in standing if run_id not in running)
    of_going = journal.of_runs(running)
    left = [entry for entry in journal.open_leases() if entry.lease.run_id not in standing]
    going = so_far(of_going, now, since=began)
    folder = ledger.path.parent / "runs"
    unminded = sum(so_far(of_lost, now, since=began).values())
    for entry in left:  # its run's own cost counts until it ended
        row = ledger.run(entry.lease.run_id)
        ended = datetime.fromisoformat(row["ended_at"]) if row and row["ended_at"] else began
        unminded += sum(so_far([entry], now, since=max(began, ended)).values())
    return Spent(
        month=f"{began:%Y-%m}",
        ended_usd=ledger.ended_usd(since=began),
        going_usd=sum(max(going.get(run_id, 0.0), _likely_usd(folder / run_id)) for run_id in running),
        unminded_usd=unminded,
        going=len(running),
        unminded=sum(entry.open for entry in (*of_lost, *left)),
        next_month=f"{after:%Y-%m-%d}",
    )


def _likely_usd(folder: Path) -> float:
    """What a run that is going on was forecast to cost."""
    try:
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        return float(plan["forecast"]["total_usd"]["likely"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0

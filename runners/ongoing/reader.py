"""Reads what is going on, time and again; writes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from provisioners.guarded import gone_since
from provisioners.journal import Entry, Journal
from runners.ledger import Filter, Ledger, Row
from runners.live import LIVE, SCHEMA_VERSION
from runners.machine import Machine
from runners.ongoing.overview import ENDED_SHOWN_S, Ended, Found, State
from runners.run_folder import DRIVER_BEGUN

_NEWEST = 100
"""So many of the newest runs are looked through for those that have ended meanwhile."""
_SUM_EVERY_S = 10.0


class Reader:
    """`read` gives the present state, of all runs or of one."""

    def __init__(self, home: Path, only: str | None = None) -> None:
        self._home, self._only = home, only
        self._ledger: Ledger | None = None
        self._journal: Journal | None = None
        self._seen: dict[str, Ended] = {}
        """Runs that have ended lately."""
        self._going: set[str] | None = None
        """Those that went on when this looked last."""
        self._today: tuple[float, float] = (-_SUM_EVERY_S, 0.0)

    def read(self) -> State:
        """Raises UsageError if the ledger cannot be read."""
        now = datetime.now(UTC)
        if not self._open():
            return State(at=now, home=str(self._home), only=self._only)
        assert self._ledger is not None
        assert self._journal is not None
        # A log may be long; whether anything goes on at all is known at once.
        standing = self._ledger.standing()
        rows = self._ledger.rows(Filter(status=("running", "lost")), sort="started") if standing else []
        entries = {entry.lease.run_id: entry for entry in self._journal.open_leases()}
        lost_usd = self._ledger.so_far_usd([row.run_id for row in rows if row.status == "lost"])
        found = [self._found(row, entries, lost_usd) for row in rows if self._asked_for(row.run_id)]
        known = {one.run_id for one in found}
        alone = [
            self._machine(entry, lives=False)
            for run_id, entry in entries.items()
            if run_id not in known and self._asked_for(run_id)
        ]
        return State(
            at=now,
            home=str(self._home),
            found=found,
            ended=self._ended(now, {one.run_id for one in found if one.lives}),
            alone=alone,
            ended_today_usd=self._ended_today(now),
            only=self._only,
        )

    def _open(self) -> bool:
        """Where nothing has run yet, nothing is made either."""
        if self._ledger is None and (self._home / "ledger.db").is_file():
            self._ledger = Ledger(self._home)
            self._journal = Journal(self._ledger.path)
        return self._ledger is not None

    def _asked_for(self, run_id: str) -> bool:
        return self._only is None or run_id == self._only

    def _found(self, row: Row, entries: Mapping[str, Entry], lost_usd: Mapping[str, float]) -> Found:
        entry, lives = entries.get(row.run_id), row.status == "running"
        if entry is not None and not lives and gone_since(entry.lease):
            entry = None
        return Found(
            run_id=row.run_id,
            recipe=row.recipe,
            started_at=_instant(row.started_at),
            lives=lives,
            pid=row.pid,
            live=_read(self._home / "runs" / row.run_id / LIVE),
            machine=self._machine(entry, lives=lives) if entry else None,
            usd=lost_usd.get(row.run_id),
        )

    def _machine(self, entry: Entry, *, lives: bool) -> Machine:
        return Machine(
            lease=entry.lease,
            client="running" if lives else "gone",
            state=entry.state,
            since=entry.asked_at,
            driver=(self._home / "runs" / entry.lease.run_id / DRIVER_BEGUN).exists(),
        )

    def _ended(self, now: datetime, going: set[str]) -> list[Ended]:
        """The newest of the log, and those that went on when this looked before, however long ago they began."""
        assert self._ledger is not None
        newest = self._ledger.rows(sort="-started", limit=_NEWEST)
        if self._going is None:
            newest = [*newest, *self._ledger.rows(sort="-ended", limit=_NEWEST)]
        for row in newest:
            if row.ended_at and row.origin is None and self._asked_for(row.run_id):
                self._seen[row.run_id] = _of_row(row)
        vanished = (self._going or set() if self._only is None else {self._only}) - going - self._seen.keys()
        for result in self._ledger.results(sorted(vanished)) if vanished else ():
            self._seen[result["run_id"]] = _of_result(result)
        self._going = going
        since = now - timedelta(seconds=ENDED_SHOWN_S)
        self._seen = {i: one for i, one in self._seen.items() if self._only is not None or one.ended_at >= since}
        return [replace(one, report=self._report_of(one.run_id)) for one in self._seen.values()]

    def _report_of(self, run_id: str) -> str | None:
        report = self._home / "runs" / run_id / "report.html"
        return str(report) if report.is_file() else None

    def _ended_today(self, now: datetime) -> float:
        """Of the runs that began today, summed up now and then."""
        assert self._ledger is not None
        summed_at, usd = self._today
        if time.monotonic() - summed_at >= _SUM_EVERY_S:
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
            usd = self._ledger.ended_usd(since=midnight)
            self._today = (time.monotonic(), usd)
        return usd


def _of_row(row: Row) -> Ended:
    return Ended(
        run_id=row.run_id,
        recipe=row.recipe,
        status=row.status,
        ended_at=_instant(row.ended_at or row.started_at),
        exit_code=row.exit_code,
        phase=row.phase,
        seconds=row.seconds,
        usd=row.total_usd,
        output_tokens_per_s=row.output_tokens_per_s,
    )


def _of_result(result: dict[str, Any]) -> Ended:
    outcome = result["outcome"]
    return Ended(
        run_id=result["run_id"],
        recipe=result["recipe"],
        status=outcome["status"],
        ended_at=_instant(result["ended_at"]),
        exit_code=result["exit_code"],
        phase=outcome["phase"],
        seconds=round(sum(phase["seconds"] for phase in result["phases"]), 3),
        usd=result["cost"]["total_usd"],
        output_tokens_per_s=result["throughput"]["output_tokens_per_s"],
    )


def _read(path: Path) -> dict[str, Any] | None:
    """live.json; None if there is none, or it is not one of this version."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("schema_version") == SCHEMA_VERSION else None


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)

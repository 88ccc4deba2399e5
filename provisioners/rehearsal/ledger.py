"""What every pod has cost, to the moment at which its last process was dead: the judge of a rehearsal.

Instants are those of the real clock; seconds and dollars are the emulator's, which pass `scale` times as fast.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HOURS_PER_MONTH = 730.0

_TABLES = """
CREATE TABLE IF NOT EXISTS requests (name TEXT NOT NULL, at REAL NOT NULL, outcome TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pods (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, gpu TEXT NOT NULL, count INTEGER NOT NULL, cloud TEXT NOT NULL,
  price REAL NOT NULL, created REAL NOT NULL, ended REAL, ended_by TEXT
);
CREATE TABLE IF NOT EXISTS spans (
  pod TEXT NOT NULL, gpu_per_h REAL NOT NULL, disk_per_h REAL NOT NULL, start REAL NOT NULL, until REAL
);
CREATE TABLE IF NOT EXISTS volume_requests (name TEXT NOT NULL, at REAL NOT NULL, outcome TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS volumes (
  volume TEXT NOT NULL, name TEXT NOT NULL, size_gb INTEGER NOT NULL, usd_per_h REAL NOT NULL, start REAL NOT NULL,
  until REAL
);
"""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a pod costs in one of its states, in dollars per hour."""

    gpu_usd_per_h: float
    disk_usd_per_h: float


@dataclass(frozen=True, kw_only=True)
class Span:
    """A time during which a pod had the same rates; `until` is None while it lasts."""

    pod: str
    rates: Rates
    start: float
    until: float | None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One pod's account."""

    id: str
    name: str
    gpu: str
    count: int
    cloud: str
    price_usd_per_h: float
    created_at: datetime
    billing_until: datetime | None
    """None while it bills; it bills from its creation on."""
    billed_s: float
    usd: float
    billing: bool
    gone: bool
    """Terminated; a pod that was only stopped is not, even where its disks cost nothing."""
    ended_by: str | None
    """Who ended it, and how: "account: DELETE", "pod: action terminate", "emulator: closed"."""

    def to_json(self) -> dict[str, Any]:
        raw = asdict(self)
        until = self.billing_until
        return {**raw, "created_at": _rfc3339(self.created_at), "billing_until": _rfc3339(until) if until else None}


@dataclass(frozen=True, kw_only=True)
class VolumeEntry:
    """One network volume's account; it bills from its creation to its deletion."""

    id: str
    name: str
    size_gb: int
    """Now, or at last."""
    usd: float
    billing: bool


class Ledger:
    """Kept in SQLite; may be read from any thread."""

    def __init__(self, path: Path, *, scale: float = 1.0, now: Callable[[], float] = time.time) -> None:
        self._scale, self._now = scale, now
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_TABLES)
        for (pod,) in self._query("SELECT id FROM pods WHERE ended IS NULL"):
            self.close_pod(pod, "emulator: died, found at the next start")

    def asked(self, name: str, outcome: str) -> None:
        """Note a create request and what came of it: a pod's id, or the status of the refusal."""
        self._write("INSERT INTO requests VALUES (?, ?, ?)", (name, self._now(), outcome))

    def open_pod(self, pod: str, name: str, *, gpu: str, count: int, cloud: str, rates: Rates) -> float:
        """Begin to bill; returns the instant."""
        now = self._now()
        price = rates.gpu_usd_per_h
        self._write(
            "INSERT INTO pods VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL)", (pod, name, gpu, count, cloud, price, now)
        )
        self._begin(pod, rates, now)
        return now

    def change_rates(self, pod: str, rates: Rates) -> None:
        now = self._now()
        self._write("UPDATE spans SET until = ? WHERE pod = ? AND until IS NULL", (now, pod))
        self._begin(pod, rates, now)

    def close_pod(self, pod: str, ended_by: str) -> None:
        """End the billing; a second time changes nothing."""
        now = self._now()
        self._write("UPDATE spans SET until = ? WHERE pod = ? AND until IS NULL", (now, pod))
        self._write("UPDATE pods SET ended = ?, ended_by = ? WHERE id = ? AND ended IS NULL", (now, ended_by, pod))

    def volume_asked(self, name: str, outcome: str) -> None:
        """Note a request for a volume and what came of it: its id, or the status of the refusal."""
        self._write("INSERT INTO volume_requests VALUES (?, ?, ?)", (name, self._now(), outcome))

    def volume_has(self, volume: str, name: str, size_gb: int, usd_per_h: float) -> float:
        """From now on a volume has this size and costs so much; returns the instant."""
        now = self._now()
        self._write("UPDATE volumes SET until = ? WHERE volume = ? AND until IS NULL", (now, volume))
        self._write("INSERT INTO volumes VALUES (?, ?, ?, ?, ?, NULL)", (volume, name, size_gb, usd_per_h, now))
        return now

    def close_volume(self, volume: str) -> None:
        """End its billing; a second time changes nothing."""
        self._write("UPDATE volumes SET until = ? WHERE volume = ? AND until IS NULL", (self._now(), volume))

    def volumes(self) -> list[VolumeEntry]:
        """Every volume that was ever created, in that order."""
        now, found = self._now(), dict[str, VolumeEntry]()
        for volume, name, size_gb, usd_per_h, start, until in self._query("SELECT * FROM volumes ORDER BY rowid"):
            before = found[volume].usd if volume in found else 0.0
            usd = before + usd_per_h * self.seconds(start, now if until is None else until) / 3600
            found[volume] = VolumeEntry(id=volume, name=name, size_gb=size_gb, usd=usd, billing=until is None)
        return list(found.values())

    def volume_requests(self) -> dict[str, list[str]]:
        """What came of each request for a volume, by the name that it asked for."""
        return self._outcomes("volume_requests")

    def entries(self) -> list[Entry]:
        """Every pod that was ever created, in that order."""
        spans: dict[str, list[Span]] = {}
        for span in self.spans():
            spans.setdefault(span.pod, []).append(span)
        rows = self._query("SELECT * FROM pods ORDER BY created, rowid")
        return [self._entry(row, spans[row[0]]) for row in rows]

    def billing(self) -> list[Entry]:
        """The pods that cost something now."""
        return [entry for entry in self.entries() if entry.billing]

    def spans(self, pod: str | None = None) -> list[Span]:
        rows = self._query("SELECT * FROM spans WHERE ?1 IS NULL OR pod = ?1 ORDER BY start, rowid", (pod,))
        return [
            Span(pod=row[0], rates=Rates(gpu_usd_per_h=row[1], disk_usd_per_h=row[2]), start=row[3], until=row[4])
            for row in rows
        ]

    def requests(self) -> dict[str, list[str]]:
        """What came of each create request, by the name that it asked for."""
        return self._outcomes("requests")

    def seconds(self, start: float, until: float) -> float:
        """The emulator's seconds between two instants."""
        return max(0.0, until - start) * self._scale

    def to_json(self) -> dict[str, Any]:
        requests = self.requests()
        return {
            "pods": [entry.to_json() for entry in self.entries()],
            "create_requests": {name: len(outcomes) for name, outcomes in requests.items()},
            "create_outcomes": requests,
            "volumes": [asdict(entry) for entry in self.volumes()],
            "volume_outcomes": self.volume_requests(),
        }

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _entry(self, row: tuple[Any, ...], spans: list[Span]) -> Entry:
        now = self._now()
        last = spans[-1]
        usd = billed_s = 0.0
        for span in spans:
            seconds = self.seconds(span.start, now if span.until is None else span.until)
            rate = span.rates.gpu_usd_per_h + span.rates.disk_usd_per_h
            usd += rate * seconds / 3600
            billed_s += seconds if span.rates.gpu_usd_per_h else 0.0
        billing = last.until is None and last.rates.gpu_usd_per_h + last.rates.disk_usd_per_h > 0
        until = None if billing else last.start if last.until is None else last.until
        return Entry(
            id=row[0],
            name=row[1],
            gpu=row[2],
            count=row[3],
            cloud=row[4],
            price_usd_per_h=row[5],
            created_at=datetime.fromtimestamp(row[6], UTC),
            billing_until=None if until is None else datetime.fromtimestamp(until, UTC),
            billed_s=billed_s,
            usd=usd,
            billing=billing,
            gone=row[7] is not None,
            ended_by=row[8],
        )

    def _outcomes(self, table: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, outcome in self._query(f"SELECT name, outcome FROM {table} ORDER BY at, rowid"):  # noqa: S608
            found.setdefault(name, []).append(outcome)
        return found

    def _begin(self, pod: str, rates: Rates, now: float) -> None:
        values = (pod, rates.gpu_usd_per_h, rates.disk_usd_per_h, now)
        self._write("INSERT INTO spans VALUES (?, ?, ?, ?, NULL)", values)

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._lock:
            self._db.execute(statement, values)

    def _query(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()


def _rfc3339(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""The lease journal: what may be billing, on disk before it is asked for."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from provisioners.contract import Gone, Lease, Release
from recipes.errors import UsageError

OPEN = ("intended", "created", "reached", "releasing", "may-still-bill")
"""The states in which something may be billing."""
_COLUMNS = (
    "name, run_id, provider, id, state, price_usd_per_h, storage_usd_per_h, deadline, details, "
    "intended_at, created_at, changed_at, proof"
)
_TABLE = """
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    id TEXT,
    state TEXT NOT NULL,
    price_usd_per_h REAL,
    storage_usd_per_h REAL NOT NULL DEFAULT 0,
    deadline TEXT,
    details TEXT NOT NULL,
    intended_at TEXT,
    created_at TEXT,
    changed_at TEXT NOT NULL,
    proof TEXT
)
"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A lease as the journal last saw it."""

    lease: Lease
    state: str
    intended_at: datetime | None
    created_at: datetime | None
    changed_at: datetime
    proof: str | None

    @property
    def open(self) -> bool:
        """Whether it may be billing."""
        return self.state in OPEN

    @property
    def asked_at(self) -> datetime | None:
        """When the provider was asked for it: from then on it may be billing."""
        return self.intended_at or self.created_at


class Journal:
    """Every transition of a lease is on disk (fsync) when its method returns."""

    def __init__(self, path: Path, mask: Callable[[str], str] = str) -> None:
        """`mask` keeps secrets out of what providers say."""
        self._path, self._mask = path, mask
        try:
            self._prepare()
        except sqlite3.OperationalError as error:
            advice = "see who writes to it, or export RECIPE_HOME=… to a folder that you may write to"
            raise UsageError(f"{path} cannot be written: {error}", advice=advice) from error

    def _prepare(self) -> None:
        with closing(self._connect()) as db:
            if _is_whole(db):  # whoever only reads waits for nobody who writes
                return
        with self._writing() as db:
            if not _is_current(db):
                db.execute("ALTER TABLE leases RENAME TO leases_before")
            db.execute(_TABLE)
            db.execute("CREATE INDEX IF NOT EXISTS leases_run ON leases (run_id)")
            db.execute("CREATE INDEX IF NOT EXISTS leases_state ON leases (state)")
            if _exists(db, "leases_before"):
                same = "name, run_id, provider, id, state, price_usd_per_h, deadline, details, changed_at, proof"
                db.execute(f"INSERT OR IGNORE INTO leases ({same}) SELECT {same} FROM leases_before")  # noqa: S608
                db.execute("DROP TABLE leases_before")
            if "storage_usd_per_h" not in _columns(db):
                db.execute("ALTER TABLE leases ADD COLUMN storage_usd_per_h REAL NOT NULL DEFAULT 0")

    def intend(self, lease: Lease) -> None:
        """Before the provider is asked."""
        self._write(lease, "intended", None)

    def created(self, lease: Lease) -> None:
        """As soon as the provider has named an id."""
        self._write(lease, "created", None)

    def reached(self, lease: Lease) -> None:
        """When the machine could be used for the first time."""
        self._write(lease, "reached", None)

    def releasing(self, lease: Lease) -> None:
        """Before the provider is asked to let it go."""
        self._write(lease, "releasing", None)

    def released(self, lease: Lease, release: Release) -> None:
        """After the attempt to let go, whether it was proven or not. What is gone is so since it was seen to be."""
        if isinstance(release, Gone):
            self._write(lease, "gone", release.proof, release.at)
        else:
            self._write(lease, "may-still-bill", release.reason)

    def state(self, name: str) -> str | None:
        """The last state written for this lease."""
        with closing(self._connect()) as db:
            row = db.execute("SELECT state FROM leases WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def open_leases(self) -> list[Entry]:
        """Everything that may be billing, the oldest first."""
        marks = ",".join("?" * len(OPEN))
        return self._read(f"WHERE state IN ({marks})", OPEN)

    def of_run(self, run_id: str) -> Entry | None:
        """The run's lease that may be billing; without one, its latest."""
        found = self._read("WHERE run_id = ?", (run_id,))
        return next((entry for entry in found if entry.open), found[-1] if found else None)

    def of_runs(self, run_ids: Iterable[str]) -> list[Entry]:
        """Every lease of these runs, the oldest first."""
        return self._read("WHERE run_id IN (SELECT value FROM json_each(?))", (json.dumps(list(run_ids)),))

    def _read(self, where: str, values: tuple[str, ...]) -> list[Entry]:
        with closing(self._connect()) as db:
            db.row_factory = sqlite3.Row
            query = f"SELECT {_COLUMNS} FROM leases {where} ORDER BY rowid"  # noqa: S608 (constants)
            return [_entry(row) for row in db.execute(query, values)]

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=30)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        return db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with closing(self._connect()) as db, db:
            db.execute("BEGIN IMMEDIATE")
            yield db

    def _write(self, lease: Lease, state: str, proof: str | None, at: datetime | None = None) -> None:
        now = datetime.now(UTC).isoformat()
        with self._writing() as db:
            before = db.execute("SELECT intended_at, created_at FROM leases WHERE name = ?", (lease.name,)).fetchone()
            intended_at, created_at = before or (None, None)
            row = (
                lease.name,
                lease.run_id,
                lease.provider,
                lease.id,
                state,
                lease.price_usd_per_h,
                lease.storage_usd_per_h,
                lease.deadline.isoformat() if lease.deadline else None,
                json.dumps(dict(lease.details)),
                intended_at or now,
                created_at or (now if lease.id else None),
                at.astimezone(UTC).isoformat() if at else now,
                None if proof is None else self._mask(proof),
            )
            db.execute(f"INSERT OR REPLACE INTO leases ({_COLUMNS}) VALUES ({','.join('?' * len(row))})", row)  # noqa: S608


def _exists(db: sqlite3.Connection, table: str) -> bool:
    return bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone())


def _is_current(db: sqlite3.Connection) -> bool:
    """Whether the table has what cannot be added to it, or is not there yet."""
    columns = _columns(db)
    return not columns or "intended_at" in columns


def _is_whole(db: sqlite3.Connection) -> bool:
    """Whether nothing is left to be made or changed."""
    names = ("leases", "leases_run", "leases_state")
    made = all(_exists(db, name) for name in names) and not _exists(db, "leases_before")
    return made and {"intended_at", "storage_usd_per_h"} <= set(_columns(db))


def _columns(db: sqlite3.Connection) -> list[str]:
    return [row[1] for row in db.execute("PRAGMA table_info(leases)")]


def _entry(row: sqlite3.Row) -> Entry:
    lease = Lease(
        provider=row["provider"],
        name=row["name"],
        run_id=row["run_id"],
        id=row["id"],
        price_usd_per_h=row["price_usd_per_h"],
        storage_usd_per_h=row["storage_usd_per_h"],
        deadline=_instant(row["deadline"]),
        details=json.loads(row["details"]),
    )
    return Entry(
        lease=lease,
        state=row["state"],
        intended_at=_instant(row["intended_at"]),
        created_at=_instant(row["created_at"]),
        changed_at=datetime.fromisoformat(row["changed_at"]),
        proof=row["proof"],
    )


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None

"""The lease journal: what may be billing, on disk before it is asked for."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from provisioners.contract import Gone, Lease, Release

_TABLE = """
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    id TEXT,
    state TEXT NOT NULL CHECK (state IN ('intended', 'created', 'gone', 'may-still-bill')),
    price_usd_per_h REAL,
    deadline TEXT,
    details TEXT NOT NULL,
    changed_at TEXT NOT NULL,
    proof TEXT
)
"""


class Journal:
    """Every transition of a lease is on disk (fsync) when its method returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._connect()) as db, db:
            db.execute(_TABLE)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=30)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        return db

    def intend(self, lease: Lease) -> None:
        """Before the provider is asked."""
        self._write(lease, "intended", None)

    def created(self, lease: Lease) -> None:
        """As soon as the provider has named an id."""
        self._write(lease, "created", None)

    def released(self, lease: Lease, release: Release) -> None:
        """After the attempt to let go, whether it was proven or not."""
        if isinstance(release, Gone):
            self._write(lease, "gone", release.proof)
        else:
            self._write(lease, "may-still-bill", release.reason)

    def _write(self, lease: Lease, state: str, proof: str | None) -> None:
        row = (
            lease.name,
            lease.run_id,
            lease.provider,
            lease.id,
            state,
            lease.price_usd_per_h,
            lease.deadline.isoformat() if lease.deadline else None,
            json.dumps(dict(lease.details)),
            datetime.now(UTC).isoformat(),
            proof,
        )
        with closing(self._connect()) as db, db:
            db.execute("INSERT OR REPLACE INTO leases VALUES (?,?,?,?,?,?,?,?,?,?)", row)

    def state(self, name: str) -> str | None:
        """The last state written for this lease."""
        with closing(self._connect()) as db:
            row = db.execute("SELECT state FROM leases WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

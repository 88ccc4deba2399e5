"""The experiment log: one SQLite row per run, in RECIPE_HOME/ledger.db."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from recipes.errors import UsageError
from runners.events import Event

SCHEMA_VERSION = 2
UNFINISHED = ("lost", "failed", "interrupted")
"""How runs end whose answers another may go on from."""
_COLUMNS = "run_id, recipe, started_at, ended_at, status, phase, total_usd, pid, result, adopted_at"
_PATIENCE_S = 30.0
"""How long a call waits for another process that writes."""
_TABLES = """
CREATE TABLE IF NOT EXISTS experiments (
    run_id TEXT PRIMARY KEY,
    recipe TEXT NOT NULL,
    recipe_digest TEXT NOT NULL,
    started_at TEXT NOT NULL,
    ended_at TEXT,
    status TEXT NOT NULL,
    phase TEXT,
    total_usd REAL,
    pid INTEGER,
    result TEXT,
    adopted_at TEXT
);
CREATE INDEX IF NOT EXISTS experiments_started ON experiments (started_at);
CREATE TABLE IF NOT EXISTS events (run_id TEXT NOT NULL, at TEXT NOT NULL, event TEXT NOT NULL, data TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_run ON events (run_id);
"""


class Ledger:
    """Opens for each call, so that many runs may write at once; `record` keeps its connection until the run ends."""

    def __init__(self, home: Path) -> None:
        self._events: sqlite3.Connection | None = None
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"RECIPE_HOME {home} cannot be made: {error.strerror}"
            raise UsageError(what, advice="export RECIPE_HOME=… to a folder that you may write to") from error
        self.path = home / "ledger.db"
        with self._open() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise UsageError(
                    f"{self.path} was written by a newer recipe: schema {version}, and this one knows {SCHEMA_VERSION}",
                    advice="upgrade recipe, or set RECIPE_HOME to another folder",
                )
            if version < SCHEMA_VERSION:
                if version == 1:
                    db.execute("ALTER TABLE experiments ADD COLUMN adopted_at TEXT")
                db.executescript(_TABLES)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            opened = sqlite3.connect(self.path, timeout=_PATIENCE_S)
        with closing(opened) as db:
            with self._explained():
                _log_ahead(db)
            with db:
                yield db

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            advice = "see who else has it open, whether it may be written, and whether the disk is full"
            raise UsageError(f"{self.path} cannot be opened: {error}", advice=advice) from error
        except sqlite3.DatabaseError as error:
            raise UsageError(f"{self.path} is not a ledger: {error}", advice="move it away") from error

    def begin(self, run_id: str, recipe: str, digest: str, started_at: str, pid: int) -> None:
        with self._explained():
            self._kept()
        with self._open() as db:
            db.execute(
                "INSERT INTO experiments (run_id, recipe, recipe_digest, started_at, status, pid) "
                "VALUES (?, ?, ?, ?, 'running', ?)",
                (run_id, recipe, digest, started_at, pid),
            )

    def adopt(self, run_id: str, pid: int) -> None:
        """Another process goes on with a run whose client died. Raises UsageError if one more was quicker."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            db.row_factory = sqlite3.Row
            row = db.execute(f"SELECT {_COLUMNS} FROM experiments WHERE run_id = ?", (run_id,)).fetchone()  # noqa: S608
            if row is None:
                raise UsageError(f"{run_id} is not in {self.path}", advice=f"recipe down {run_id} ends its machine")
            found = _row(row)
            if found["status"] != "lost":
                raise UsageError(
                    f"{run_id} was taken over meanwhile by process {found['pid']}", advice=f"recipe logs -f {run_id}"
                )
            db.execute(
                "UPDATE experiments SET pid = ?, adopted_at = ? WHERE run_id = ?",
                (pid, datetime.now(UTC).isoformat(), run_id),
            )

    def lose(self, run_id: str) -> None:
        """The run has ended without a result: nobody minds it any more."""
        with self._open() as db:
            db.execute("UPDATE experiments SET pid = NULL WHERE run_id = ? AND status = 'running'", (run_id,))
        self._no_more_events()

    def record(self, run_id: str, event: Event) -> None:
        """Keep an event, if it is one that lasts."""
        if not event.lasting:
            return
        row = event.row(datetime.now(UTC))
        at, kind = row.pop("at"), row.pop("event")
        with self._explained():
            self._kept().execute("INSERT INTO events VALUES (?, ?, ?, ?)", (run_id, at, kind, json.dumps(row)))

    def _kept(self) -> sqlite3.Connection:
        """The run's own connection. While it is open, SQLite need not tidy up whenever another one is closed."""
        if self._events is None:
            # No transaction is ever open here, whoever calls: an event is one statement.
            self._events = sqlite3.connect(
                self.path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False
            )
            _log_ahead(self._events)
            # They outlive this process, and need not outlive a power cut: events.jsonl has them as well.
            self._events.execute("PRAGMA synchronous = NORMAL")
        return self._events

    def _no_more_events(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def end(self, result: dict[str, Any]) -> None:
        outcome = result["outcome"]
        with self._open() as db:
            db.execute(
                "UPDATE experiments SET ended_at = ?, status = ?, phase = ?, total_usd = ?, result = ? "
                "WHERE run_id = ?",
                (
                    result["ended_at"],
                    outcome["status"],
                    outcome["phase"],
                    result["cost"]["total_usd"],
                    json.dumps(result, ensure_ascii=False),
                    result["run_id"],
                ),
            )
        self._no_more_events()

    def runs(self, *, limit: int | None = None, recipe: str | None = None) -> list[dict[str, Any]]:
        """The newest first. A run that says it is going on, but whose process is gone, has the status "lost"."""
        query = f"SELECT {_COLUMNS} FROM experiments"  # noqa: S608 (constants)
        where = " WHERE recipe = ?" if recipe else ""
        with self._open() as db:
            db.row_factory = sqlite3.Row
            arguments = [*([recipe] if recipe else []), -1 if limit is None else limit]
            rows = db.execute(f"{query}{where} ORDER BY started_at DESC, rowid DESC LIMIT ?", arguments).fetchall()
        return [_row(row) for row in rows]

    def unfinished(self, recipe: str) -> list[str]:
        """The runs of this recipe since the last that was completed, the newest first; none that is still going on."""
        found = []
        query = "SELECT run_id, started_at, status, pid, adopted_at, NULL AS result FROM experiments WHERE recipe = ?"
        with self._open() as db:
            db.row_factory = sqlite3.Row
            for row in db.execute(f"{query} ORDER BY started_at DESC, rowid DESC", (recipe,)):
                status = _row(row)["status"]
                if status == "completed":
                    break
                if status in UNFINISHED:
                    found.append(row["run_id"])
        return found

    def completed(self, *, model: str, engine: str, limit: int = 50) -> list[dict[str, Any]]:
        """Results of the newest runs of this model and engine that were completed, the newest first.

        Only the newest thousand runs are looked through, so that a long log costs no time.
        """
        query = (
            "SELECT result FROM (SELECT rowid AS number, * FROM experiments ORDER BY started_at DESC LIMIT 1000) "
            "WHERE status = 'completed' "
            "AND json_extract(result, '$.model.identifier') = ? AND json_extract(result, '$.engine.name') = ? "
            "ORDER BY started_at DESC, number DESC LIMIT ?"
        )
        with self._open() as db:
            return [json.loads(row[0]) for row in db.execute(query, (model, engine, limit))]

    def run(self, run_id: str) -> dict[str, Any] | None:
        """One run's row, as `runs` gives it."""
        with self._open() as db:
            db.row_factory = sqlite3.Row
            found = db.execute(f"SELECT {_COLUMNS} FROM experiments WHERE run_id = ?", (run_id,)).fetchone()  # noqa: S608
        return _row(found) if found else None


def _row(row: sqlite3.Row) -> dict[str, Any]:
    found = {**dict(row), "result": json.loads(row["result"]) if row["result"] else None}
    since = found.pop("adopted_at") or found["started_at"]
    if found["status"] == "running" and not _lives(found["pid"], datetime.fromisoformat(since)):
        found["status"] = "lost"
    return found


def _lives(pid: int | None, since: datetime) -> bool:
    """Whether the process is still the one of that time, and not a later one of the same number."""
    try:
        process = psutil.Process(pid) if pid is not None else None
        if process is None or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return bool(process.create_time() <= since.timestamp() + 1)
    except psutil.Error:
        return False


def _log_ahead(db: sqlite3.Connection) -> None:
    """Turn write-ahead logging on. SQLite does not wait by itself where several turn it on at once, so this does."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return

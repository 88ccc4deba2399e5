"""Ledgers as older versions of recipe wrote them, and what is in them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

_FIRST = """
CREATE TABLE experiments (
    run_id TEXT PRIMARY KEY, recipe TEXT NOT NULL, recipe_digest TEXT NOT NULL, started_at TEXT NOT NULL,
    ended_at TEXT, status TEXT NOT NULL, phase TEXT, total_usd REAL, pid INTEGER, result TEXT
);
CREATE INDEX experiments_started ON experiments (started_at);
CREATE TABLE events (run_id TEXT NOT NULL, at TEXT NOT NULL, event TEXT NOT NULL, data TEXT NOT NULL);
CREATE INDEX events_run ON events (run_id);
"""


def older_ledger(home: Path, results: Iterable[Mapping[str, Any]], *, version: int = 2) -> Path:
    """A file of schema 1 or 2 with these runs, and one more that was lost in its drive: "lost-1"."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / "ledger.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(_FIRST)
        if version == 2:
            db.execute("ALTER TABLE experiments ADD COLUMN adopted_at TEXT")
        insert = (
            "INSERT INTO experiments (run_id, recipe, recipe_digest, started_at, ended_at, status, phase, total_usd, "
            "pid, result) VALUES (?,?,?,?,?,?,?,?,?,?)"
        )
        for result in results:
            outcome, head = result["outcome"], [result[n] for n in ("run_id", "recipe", "recipe_digest", "started_at")]
            told = [result["ended_at"], outcome["status"], outcome["phase"], result["cost"]["total_usd"]]
            db.execute(insert, [*head, *told, 1, json.dumps(result, ensure_ascii=False)])
        lost = ["lost-1", "lost", "d", "2023-01-01T00:00:00+00:00", None, "running", None, None, 2**22 - 1, None]
        db.execute(insert, lost)
        event = ("lost-1", "2023-01-01T00:00:01+00:00", "phase-started", '{"phase": "drive"}')
        db.execute("INSERT INTO events VALUES (?,?,?,?)", event)
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()
    return path

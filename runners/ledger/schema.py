"""The ledger's tables, and how an older file becomes a newer one: in one transaction, whole or not at all."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from recipes.errors import UsageError
from runners.ledger.connection import is_read_only
from runners.ledger.filters import TEXTS
from runners.ledger.rows import COLUMNS, columns_of, tags_of

SCHEMA_VERSION = 3
_PATIENCE_MS = 600_000
"""Another process may be bringing a long ledger up to date."""
_ROOM = 1.25
"""Bytes of the log for each of the file's."""
_SMALL = 10_000_000
"""Bytes of a file that is brought up to date without a look at the disk."""
_TELL_AFTER_S = 1.0
_AT_ONCE = 200
_TABLES = (
    # Columns are what lists and totals need. `result` stays empty: a run that an older recipe began, before this one
    # was installed, is ended by that older one, which writes there.
    """
CREATE TABLE experiments (
    run_id TEXT PRIMARY KEY,
    recipe TEXT NOT NULL,
    recipe_digest TEXT NOT NULL,
    variant TEXT,
    started_at TEXT NOT NULL,
    ended_at TEXT,
    status TEXT NOT NULL,
    phase TEXT,
    exit_code INTEGER,
    pid INTEGER,
    adopted_at TEXT,
    model TEXT,
    engine TEXT,
    engine_version TEXT,
    gpu TEXT,
    gpu_count INTEGER,
    provider TEXT,
    price_usd_per_h REAL,
    total_usd REAL,
    idle_usd REAL,
    seconds REAL,
    prompt_tokens INTEGER,
    output_tokens INTEGER,
    prompt_tokens_per_s REAL,
    output_tokens_per_s REAL,
    documents_done INTEGER,
    documents_total INTEGER,
    unit TEXT,
    usd_per_document REAL,
    energy_wh REAL,
    origin TEXT,
    result TEXT
)""",
    "CREATE INDEX experiments_started ON experiments (started_at)",
    "CREATE INDEX experiments_recipe ON experiments (recipe, started_at)",
    "CREATE INDEX experiments_completed ON experiments (model, engine, started_at) WHERE status = 'completed'",
    # Whether a name is there whole is asked of these, so that a filter looks through the runs once.
    *(f"CREATE INDEX experiments_{name} ON experiments (lower({name}))" for name in TEXTS if name != "recipe"),
    "CREATE INDEX experiments_recipes ON experiments (lower(recipe))",
    "CREATE INDEX experiments_running ON experiments (run_id) WHERE status = 'running'",
    "CREATE INDEX experiments_strays ON experiments (run_id) WHERE result IS NOT NULL",
    "CREATE TABLE results (run_id TEXT PRIMARY KEY, result TEXT NOT NULL)",
    "CREATE TABLE tags (run_id TEXT NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (run_id, tag)) WITHOUT ROWID",
    "CREATE INDEX tags_tag ON tags (lower(tag))",
    "CREATE TABLE IF NOT EXISTS events "
    "(run_id TEXT NOT NULL, at TEXT NOT NULL, event TEXT NOT NULL, data TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS events_run ON events (run_id)",
)


def prepare(db: sqlite3.Connection, path: Path, say: Callable[[str], None]) -> None:
    """Bring the file to this schema; `say` is told if that takes long.

    Raises UsageError if a newer recipe wrote it, or if there is no room for it.
    """
    if is_read_only(db):
        if _version(db, path) < SCHEMA_VERSION:
            raise UsageError(
                f"{path} was written by an older recipe, and cannot be brought up to date where nothing may be written",
                advice=f"export RECIPE_HOME=… to a copy of {path.parent}",
            )
    elif _version(db, path) < SCHEMA_VERSION:
        db.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
        db.execute("BEGIN IMMEDIATE")
        if _version(db, path) < SCHEMA_VERSION:  # nobody was quicker
            _look_for_room(path)
            _migrate(db, path, say)
    elif db.execute("SELECT 1 FROM experiments WHERE result IS NOT NULL LIMIT 1").fetchone():
        db.execute("BEGIN IMMEDIATE")
        _take_in_strays(db)


def _version(db: sqlite3.Connection, path: Path) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"{path} was written by a newer recipe: schema {version}, and this one knows {SCHEMA_VERSION}",
            advice="upgrade recipe, or set RECIPE_HOME to another folder",
        )
    return version


def _look_for_room(path: Path) -> None:
    """All that changes is in the log beside the file until the end. Raises UsageError if there is too little room."""
    size = path.stat().st_size
    needed, free = _ROOM * size, shutil.disk_usage(path.parent).free
    if size > _SMALL and free < needed:
        what = f"{path} is to be brought up to date, which needs {needed / 1e9:.1f} GB beside it for a while"
        raise UsageError(f"{what}: {free / 1e9:.1f} GB are free", advice="make room, and try again: it stays as it was")


def _migrate(db: sqlite3.Connection, path: Path, say: Callable[[str], None]) -> None:
    before = _columns(db, "experiments")
    if before:
        db.execute("ALTER TABLE experiments RENAME TO experiments_before")
        db.execute("DROP INDEX IF EXISTS experiments_started")
    for statement in _TABLES:
        db.execute(statement)
    if before:
        same = ", ".join(name for name in (*COLUMNS, "adopted_at", "result") if name in before)
        some = f"SELECT rowid AS number, {same} FROM experiments_before ORDER BY rowid LIMIT {_AT_ONCE}"  # noqa: S608
        _move(db, some, path, say)
        db.execute("DROP TABLE experiments_before")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _move(db: sqlite3.Connection, some: str, path: Path, say: Callable[[str], None]) -> None:
    """Every run to where it belongs. What has been moved is deleted, so that the file need not grow."""
    count, begun = db.execute("SELECT count(*) FROM experiments_before").fetchone()[0], time.monotonic()
    told = False
    while rows := list(_rows(db.execute(some))):
        for row in rows:
            number, text = row.pop("number"), row.pop("result")
            result = _read(text)
            add(db, {**known_of(result), **row}, text if result else None, tags_of(result))
        db.execute("DELETE FROM experiments_before WHERE rowid <= ?", (number,))
        if not told and time.monotonic() - begun > _TELL_AFTER_S:
            told = True
            say(f"{path} is brought up to date with this recipe, once: {count:,} runs")


def _take_in_strays(db: sqlite3.Connection) -> None:
    """Runs that an older recipe ended in this newer file."""
    strays = db.execute("SELECT run_id, result FROM experiments WHERE result IS NOT NULL").fetchall()
    for run_id, text in strays:
        if result := _read(text):
            end(db, result, text)
        db.execute("UPDATE experiments SET result = NULL WHERE run_id = ?", (run_id,))


def add(db: sqlite3.Connection, columns: Mapping[str, Any], result: str | None, tags: Iterable[str]) -> bool:
    """A run with its result and tags; False, and nothing is written, if one of its id is there already."""
    marks = ",".join("?" * len(columns))
    into = f"INSERT INTO experiments ({','.join(columns)}) VALUES ({marks})"  # noqa: S608 (constants)
    query = f"{into} ON CONFLICT (run_id) DO NOTHING"
    if not db.execute(query, tuple(columns.values())).rowcount:
        return False
    if result is not None:
        db.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (columns["run_id"], result))
    tag(db, columns["run_id"], tags)
    return True


def known_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of which a result says something."""
    return {name: value for name, value in columns_of(result).items() if value is not None} if result else {}


def end(db: sqlite3.Connection, result: Mapping[str, Any], text: str) -> None:
    """What a run's result says of it. What the result does not say stays as it is."""
    columns = known_of(result)
    run_id = columns.pop("run_id")
    columns["phase"] = result["outcome"]["phase"]
    begun = ("started_at", "recipe", "recipe_digest")
    to_set = {name: value for name, value in columns.items() if name not in begun}
    names = ",".join(f"{name} = ?" for name in to_set)
    db.execute(f"UPDATE experiments SET {names} WHERE run_id = ?", (*to_set.values(), run_id))  # noqa: S608 (constants)
    db.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (run_id, text))
    tag(db, run_id, tags_of(result))


def tag(db: sqlite3.Connection, run_id: str, tags: Iterable[str]) -> None:
    db.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", [(run_id, each) for each in tags])


def _rows(cursor: sqlite3.Cursor) -> Iterator[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return (dict(zip(names, row, strict=True)) for row in cursor)


def _read(text: str | None) -> dict[str, Any]:
    """A result; nothing if there is none, or one that cannot be read: its row stays all the same."""
    try:
        found = json.loads(text) if text else {}
        known_of(found)
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]

"""Opening the ledger's file: write-ahead logging, patience with others who write, and errors that people understand.

Where nothing may be written, it is read all the same.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from recipes.errors import UsageError

PATIENCE_S = 30.0
"""How long a call waits for another process that writes."""


@contextmanager
def opened(path: Path, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection; what was done with it is committed at the end, or nothing of it. Raises UsageError."""
    with explained(path):
        db = connect(path) if writing or not path.is_file() or may_be_written(path) else _read_only(path)
    with _explained_as_used(path), closing(db), db:
        yield db


def may_be_written(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def is_read_only(db: sqlite3.Connection) -> bool:
    return bool(db.execute("PRAGMA query_only").fetchone()[0])


def connect(path: Path, *, statement_by_statement: bool = False) -> sqlite3.Connection:
    """A connection; one that commits each statement may be used from any thread. Raises sqlite3.Error."""
    db = (
        sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
        if statement_by_statement
        else sqlite3.connect(path, timeout=PATIENCE_S)
    )
    try:
        _log_ahead(db)
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What SQLite says of the file, in words with a way out."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if _code(error) == sqlite3.SQLITE_FULL:
            raise _no_room(path) from error
        raise UsageError(f"{path} cannot be opened: {error}", advice=_way_out(path, error)) from error
    except sqlite3.DatabaseError as error:
        what = "is damaged" if _code(error) == sqlite3.SQLITE_CORRUPT else "is not a ledger"
        again = f"move {path}* away, and make it again from the runs' folders: recipe import {path.parent / 'runs'}"
        raise UsageError(f"{path} {what}: {error}", advice=again) from error


def _way_out(path: Path, error: sqlite3.Error) -> str:
    if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another process writes to it: try again, or find it: fuser {path}"
    if path.is_file() and not may_be_written(path):
        return f"nothing may be written there: export RECIPE_HOME=… to a copy of {path.parent}"
    return "see whether it is a file, and whether you may write to it"


def _read_only(path: Path) -> sqlite3.Connection:
    """Without a log beside it, which could not be made. A log that is there is read too, or the file not at all."""
    from urllib.parse import quote  # few need it

    log = path.with_name(f"{path.name}-wal")
    whole = not log.exists() or not log.stat().st_size
    uri = f"file:{quote(str(path.absolute()))}?mode=ro{'&immutable=1' if whole else ''}"
    db = sqlite3.connect(uri, uri=True, timeout=PATIENCE_S)
    db.execute("PRAGMA query_only = ON")
    return db


@contextmanager
def _explained_as_used(path: Path) -> Iterator[None]:
    """The same for statements and their commit: what the file or its disk has, not what a statement has wrong."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if _code(error) not in _OF_THE_FILE:
            raise
        with explained(path):
            raise


def _no_room(path: Path) -> UsageError:
    what = f"{path} cannot be written: the disk is full; what stood there before is whole"
    return UsageError(what, advice=f"make room at {path.parent}, and give the command again")


_OF_THE_FILE = (
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_BUSY),
)


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for an error that is Python's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _log_ahead(db: sqlite3.Connection) -> None:
    """Turn write-ahead logging on. SQLite does not wait by itself where several turn it on at once, so this does."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return

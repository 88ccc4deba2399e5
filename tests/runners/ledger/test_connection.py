"""What the ledger says when its file cannot be used: the reason and a way out, and what stood there is whole."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from recipes.errors import ExitCode, UsageError
from runners.events import PhaseStarted
from runners.ledger import Ledger, connection, ledger
from tests.runners.exporting.made import result_of, run_id


def filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection may make its file any longer, as on a full disk: SQLite says SQLITE_FULL itself."""
    real = connection.connect

    def connect(path: Path, **how: bool) -> sqlite3.Connection:
        db = real(path, **how)
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        return db

    for module in (connection, ledger):
        monkeypatch.setattr(module, "connect", connect)


def test_a_full_disk_is_told_with_a_way_out_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Ledger(tmp_path)
    log.insert(result_of(run_id(1)), origin="x")
    log.begin("own", "made", "digest", "2026-01-01T00:00:00+00:00", 1)
    long = result_of(run_id(2), warnings=["x" * 1_000_000])
    with monkeypatch.context() as patch:
        filled(patch)
        with pytest.raises(UsageError, match="the disk is full") as full:
            log.insert(long, origin="x")
        assert full.value.exit_code == ExitCode.USAGE
        assert str(tmp_path) in full.value.advice
        with pytest.raises(UsageError, match="the disk is full"):
            log.end({**long, "run_id": "own"})
        with pytest.raises(UsageError, match="the disk is full"):
            for _ in range(1000):
                Ledger(tmp_path).record("own", PhaseStarted("plan" * 1000))
    assert {row.run_id for row in Ledger(tmp_path).rows()} == {run_id(1), "own"}
    assert Ledger(tmp_path).insert(long, origin="x")


def test_what_a_caller_does_wrong_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    log = Ledger(tmp_path)
    log.begin("own", "made", "digest", "2026-01-01T00:00:00+00:00", 1)
    with pytest.raises(sqlite3.IntegrityError):
        log.begin("own", "made", "digest", "2026-01-01T00:00:00+00:00", 1)
    with pytest.raises(sqlite3.OperationalError), log._open() as db:
        db.execute("SELECT beauty FROM experiments")
    assert [row.run_id for row in log.rows()] == ["own"]

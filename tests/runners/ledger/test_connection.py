"""What the ledger says when its file cannot be used: the reason and a way out, and what stood there is whole."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from provisioners.contract import Lease
from provisioners.journal import Journal
from recipes.errors import ExitCode, UsageError
from runners.events import PhaseStarted
from runners.ledger import Ledger, connection, ledger
from tests.runners.exporting.made import keep, result_of, run_id
from tests.runners.ledger.older import older_ledger

ROOT = Path(__file__).parents[3]


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
            Ledger(tmp_path).record("own", PhaseStarted("plan" * 100_000))
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


def test_a_damaged_file_says_how_to_make_it_again(tmp_path: Path) -> None:
    log = Ledger(tmp_path)
    log.insert_all((result_of(run_id(i), warnings=["x" * 500]) for i in range(200)), origin=None)
    with closing(sqlite3.connect(log.path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(log.path.read_bytes())
    content[8192:] = b"\x5a" * (len(content) - 8192)
    log.path.write_bytes(content)
    with pytest.raises(UsageError, match="is damaged: ") as caught:
        Ledger(tmp_path).rows()
    assert caught.value.advice.endswith(f"recipe import {tmp_path / 'runs'}")


def test_who_only_reads_waits_for_nobody_who_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Ledger(tmp_path)
    log.begin("own", "made", "digest", "2026-01-01T00:00:00+00:00", 1)
    Journal(log.path).intend(Lease(provider="x", name="m", run_id="own", price_usd_per_h=3.0))
    monkeypatch.setattr("runners.ledger.connection.PATIENCE_S", 0.05)
    with closing(sqlite3.connect(log.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        again = Ledger(tmp_path)
        assert [row.run_id for row in again.rows()] == ["own"]
        assert again.so_far_usd(["own"])["own"] > 0
        with pytest.raises(UsageError, match="locked") as caught:
            again.insert(result_of(run_id(1)), origin="x")
        assert "another process writes to it" in caught.value.advice


CALL = """
import json, sys
from runners.cli import main
sys.exit(next((code for arguments in json.loads(sys.argv[1]) if (code := main(arguments))), 0))
"""
READING = (["runs"], ["runs", "--by", "recipe"], ["runs", "--json"], ["export", "--format", "jsonl"])


def called_there(home: Path, *commands: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Commands of somebody who may not write there."""
    as_others = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-all"] if os.geteuid() == 0 else []
    if as_others and shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv to give that up")
    for path in home.iterdir():
        path.chmod(0o444)
    home.chmod(0o555)
    env = {**os.environ, "RECIPE_HOME": str(home)}
    try:
        command = [*as_others, sys.executable, "-c", CALL, json.dumps(commands)]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    finally:
        home.chmod(0o755)


@pytest.mark.real
@pytest.mark.parametrize("open_elsewhere", [False, True])
def test_a_log_is_read_where_nothing_may_be_written(tmp_path: Path, *, open_elsewhere: bool) -> None:
    log = Ledger(tmp_path)
    log.insert_all([result_of(run_id(1)), result_of(run_id(2))], origin="x")
    log.begin("going", "made", "digest", "2026-01-01T00:00:00+00:00", 1)
    if not open_elsewhere:
        log.lose("going")
    ended = called_there(tmp_path, *READING)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count(run_id(2)) >= 3
    assert "going" in ended.stdout
    assert (len(list(tmp_path.iterdir())) > 1) == open_elsewhere


@pytest.mark.real
def test_an_older_log_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    older_ledger(tmp_path, [result_of(run_id(1))])
    ended = called_there(tmp_path, ["runs"])
    assert ended.returncode == 2
    assert "cannot be brought up to date where nothing may be written" in ended.stderr
    assert f"a copy of {tmp_path}" in ended.stderr


@pytest.mark.real
@pytest.mark.parametrize("command", [["up", "local-smoke"], ["import", "other"], ["ps"]])
def test_what_would_write_there_says_that_it_may_not(tmp_path: Path, command: list[str]) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    Ledger(home).insert(result_of(run_id(1)), origin="x")
    keep(other, result_of(run_id(2)))
    ended = called_there(home, [str(other) if word == "other" else word for word in command])
    assert ended.returncode == 2, ended.stderr
    assert "a bug" not in ended.stderr
    assert "export RECIPE_HOME=… to a folder that you may write to" in ended.stderr

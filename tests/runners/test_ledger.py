"""The ledger under what a disk and other processes may do to it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from recipes.errors import UsageError
from runners.events import Advanced, PhaseStarted, Warned
from runners.ledger import SCHEMA_VERSION, Ledger

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from pathlib import Path
from runners.events import PhaseStarted
from runners.ledger import Ledger

home, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    ledger = Ledger(home)
    ledger.begin(f"{name}-{number}", name, "digest", f"2026-01-02T03:04:05.{number:06d}+00:00", 1)
    ledger.record(f"{name}-{number}", PhaseStarted("plan"))
    print(number, flush=True)
"""


def writer(home: Path, name: str, count: int) -> subprocess.Popen[str]:
    """A process that writes runs of its own, once it is told to begin."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home), name, str(count)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def result(run_id: str, **outcome: Any) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "ended_at": "2026-01-02T04:00:00+00:00",
        "outcome": {"status": "completed", "phase": None, "error": None, **outcome},
        "cost": {"total_usd": 1.25},
        "text": "naïve 漢字",
    }


def test_a_run_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "new" / "home")
    ledger.begin("r-1", "r", "d", datetime.now(UTC).isoformat(), os.getpid())
    (row,) = ledger.runs()
    assert (row["run_id"], row["status"], row["pid"], row["result"]) == ("r-1", "running", os.getpid(), None)
    ended = result("r-1", status="failed", phase="launch", error="no")
    ledger.end(ended)
    (row,) = ledger.runs()
    assert (row["status"], row["phase"], row["total_usd"]) == ("failed", "launch", 1.25)
    assert row["ended_at"] == ended["ended_at"]
    assert row["result"] == ended


def test_the_newest_come_first_and_may_be_chosen(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number, recipe in enumerate(["a", "b", "a"]):
        ledger.begin(f"{recipe}-{number}", recipe, "d", f"2026-01-0{number + 1}T00:00:00+00:00", 1)
    assert [row["run_id"] for row in ledger.runs()] == ["a-2", "b-1", "a-0"]
    assert [row["run_id"] for row in ledger.runs(limit=2)] == ["a-2", "b-1"]
    assert [row["run_id"] for row in ledger.runs(recipe="a")] == ["a-2", "a-0"]
    assert ledger.runs(recipe="nobody") == []


def test_only_lasting_events_are_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for event in (PhaseStarted("plan"), Advanced("prepare", "12 of 40 MB"), Warned("drive", "sløw")):
        ledger.record("r-1", event)
    with closing(sqlite3.connect(ledger.path)) as db:
        rows = db.execute("SELECT run_id, event, data FROM events ORDER BY rowid").fetchall()
    assert [row[:2] for row in rows] == [("r-1", "phase-started"), ("r-1", "warned")]


def test_an_id_is_used_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin("r-1", "r", "d", "2026-01-02T03:00:00+00:00", 1)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.begin("r-1", "other", "d", "2026-01-02T03:00:00+00:00", 2)
    assert [row["recipe"] for row in ledger.runs()] == ["r"]


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    """They also make the file at once: none of them finds it there."""
    names, count = ("one", "two", "three"), 15
    processes = [writer(tmp_path, name, count) for name in names]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    expected = {f"{name}-{number}" for name in names for number in range(count)}
    ledger = Ledger(tmp_path)
    assert {row["run_id"] for row in ledger.runs()} == expected
    with closing(sqlite3.connect(ledger.path)) as db:
        assert {row[0] for row in db.execute("SELECT run_id FROM events")} == expected


def test_it_is_readable_after_a_writer_was_killed(tmp_path: Path) -> None:
    process = writer(tmp_path, "killed", 100_000)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    written = 0
    for line in process.stdout:
        written = int(line) + 1
        if written == 5:
            process.send_signal(signal.SIGKILL)
            break
    written += len(process.communicate(timeout=60)[0].splitlines())
    ledger = Ledger(tmp_path)
    found = {row["run_id"] for row in ledger.runs()}
    assert found >= {f"killed-{number}" for number in range(written)}
    ledger.begin("next-1", "next", "d", "2026-01-03T00:00:00+00:00", os.getpid())
    assert ledger.runs(limit=1)[0]["run_id"] == "next-1"
    with closing(sqlite3.connect(ledger.path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = Ledger(tmp_path).path
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(UsageError) as caught:
        Ledger(tmp_path)
    assert f"schema {SCHEMA_VERSION + 1}" in caught.value.message
    assert "RECIPE_HOME" in caught.value.advice
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)


def test_an_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.execute("PRAGMA user_version = 0")
    Ledger(tmp_path).begin("r-1", "r", "d", "2026-01-02T03:00:00+00:00", 1)
    assert [row["run_id"] for row in Ledger(tmp_path).runs()] == ["r-1"]


@pytest.mark.parametrize("content", [b"these are my notes, and no database at all\n" * 50, b"\x00" * 4096])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.db").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        Ledger(tmp_path)
    assert f"{tmp_path / 'ledger.db'} is not a ledger" in caught.value.message
    assert caught.value.advice.endswith(f"recipe import {tmp_path / 'runs'}")
    assert (tmp_path / "ledger.db").read_bytes() == content


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(UsageError, match="cannot be opened"):
        Ledger(tmp_path)


def test_a_ledger_that_is_locked_is_not_called_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody should be told to move away a ledger that is only busy."""
    ledger = Ledger(tmp_path)
    monkeypatch.setattr("runners.ledger.connection.PATIENCE_S", 0.05)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UsageError) as caught:
            ledger.runs()
    assert "move it away" not in caught.value.advice
    assert "locked" in caught.value.message


def test_completed_runs_of_a_model_and_engine_come_newest_first(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    rows = [("a-0", "lead", "llamacpp", {}), ("b-1", "lead", "vllm", {}), ("a-2", "lead", "llamacpp", {})]
    rows += [("a-3", "lead", "llamacpp", {"status": "failed"}), ("a-4", "other", "llamacpp", {})]
    for number, (run_id, model, engine, outcome) in enumerate(rows):
        ledger.begin(run_id, "r", "d", f"2026-01-0{number + 1}T00:00:00+00:00", 1)
        ledger.end({**result(run_id, **outcome), "model": {"identifier": model}, "engine": {"name": engine}})
    ledger.begin("a-9", "r", "d", "2026-01-09T00:00:00+00:00", 1)
    found = ledger.completed(model="lead", engine="llamacpp")
    assert [row["run_id"] for row in found] == ["a-2", "a-0"]
    assert [row["run_id"] for row in ledger.completed(model="lead", engine="llamacpp", limit=1)] == ["a-2"]


def test_unfinished_runs_are_those_since_the_last_that_was_completed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    nobody, living = 2**22 - 1, os.getpid()
    statuses = ["failed", "completed", "interrupted", "lost", "failed", "running"]
    for number, status in enumerate(statuses):
        pid = living if status == "running" else nobody
        began = datetime.now(UTC).replace(year=2025, microsecond=number) if status != "running" else datetime.now(UTC)
        ledger.begin(f"r-{number}", "books", "digest", began.isoformat(), pid)
        if status not in ("lost", "running"):
            ledger.end(result(f"r-{number}", status=status))
    ledger.begin("other", "films", "digest", "2025-01-02T00:00:00+00:00", nobody)
    assert ledger.unfinished("books") == ["r-4", "r-3", "r-2"], "the newest first, and none that is going on"
    assert ledger.unfinished("films") == ["other"]
    assert ledger.unfinished("nothing") == []

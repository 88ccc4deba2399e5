"""An older ledger becomes a newer one: whole, once, and also if that was broken off."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recipes.errors import UsageError
from runners.ledger import SCHEMA_VERSION, Filter, Ledger, schema
from tests.emulators.many_runs import synthetic
from tests.runners.ledger.older import older_ledger

ROOT = Path(__file__).parents[3]
OPEN = """
import sys
from pathlib import Path
from runners.ledger import Ledger, schema

add = schema.add
def told(db, columns, *rest):
    done = add(db, columns, *rest)
    print(columns["run_id"], flush=True)
    return done
schema.add = told
print("ready", flush=True)
sys.stdin.readline()
Ledger(Path(sys.argv[1]))
"""


def opener(home: Path) -> subprocess.Popen[str]:
    """A process that opens the ledger once it is told to, and says which run it has moved."""
    process = subprocess.Popen(
        [sys.executable, "-c", OPEN, str(home)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def is_sound(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        return bool(db.execute("PRAGMA integrity_check").fetchone() == ("ok",)) and version == SCHEMA_VERSION


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_ledger_keeps_every_run_and_can_be_searched(tmp_path: Path, version: int) -> None:
    results = list(synthetic(60))
    path = older_ledger(tmp_path, results, version=version)
    ledger = Ledger(tmp_path)
    rows = ledger.rows()
    assert [row.run_id for row in rows] == [*(r["run_id"] for r in reversed(results)), "lost-1"]
    assert list(ledger.results(r["run_id"] for r in results)) == results
    by_id = {row.run_id: row for row in rows}
    for result in results:
        row = by_id[result["run_id"]]
        assert (row.model, row.engine) == (result["model"]["identifier"], result["engine"]["name"])
        assert (row.gpu, row.total_usd) == (result["offer"]["accelerator"], result["cost"]["total_usd"])
        assert list(row.tags) == result["tags"]
        assert row.variant == result["variant"]
    assert (rows[-1].status, rows[-1].phase) == ("lost", "drive")
    assert is_sound(path)


def test_what_cannot_be_read_of_a_result_costs_no_run(tmp_path: Path) -> None:
    """Its row has what the older recipe wrote into its columns."""
    results = list(synthetic(3))
    path = older_ledger(tmp_path, results)
    broken = [("{half a", results[0]), (json.dumps({"run_id": 1, "phases": [3]}), results[1])]
    with closing(sqlite3.connect(path)) as db:
        for text, result in broken:
            db.execute("UPDATE experiments SET result = ? WHERE run_id = ?", (text, result["run_id"]))
        db.commit()
    found = {row.run_id: row for row in Ledger(tmp_path).rows()}
    for _, result in broken:
        row = found[result["run_id"]]
        assert (row.recipe, row.status, row.total_usd) == (
            result["recipe"], result["outcome"]["status"], result["cost"]["total_usd"],
        )  # fmt: skip
        assert row.model is None
    assert found[results[2]["run_id"]].model == results[2]["model"]["identifier"]


@pytest.mark.parametrize("text", ["[]", "3", '"text"', "null", "{half a"])
def test_a_result_that_is_none_hinders_nobody(tmp_path: Path, text: str) -> None:
    first, second = synthetic(2)
    path = older_ledger(tmp_path, [first, second])
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE experiments SET result = ? WHERE run_id = ?", (text, first["run_id"]))
        db.commit()
    ledger = Ledger(tmp_path)
    ids = [row.run_id for row in ledger.rows()]
    assert len(ids) == 3
    assert list(ledger.results(ids)) == [second]
    found = ledger.run(first["run_id"])
    assert found is not None
    assert found["result"] is None


def test_a_result_that_was_damaged_later_is_passed_over(tmp_path: Path) -> None:
    first, second = synthetic(2)
    ledger = Ledger(tmp_path)
    ledger.insert_all([first, second], origin=None)
    with closing(sqlite3.connect(ledger.path)) as db:
        db.execute("UPDATE results SET result = '{half a' WHERE run_id = ?", (first["run_id"],))
        db.commit()
    assert list(ledger.results([first["run_id"], second["run_id"]])) == [second]
    assert [row["result"] for row in ledger.runs()] == [second, None]


def test_whoever_waits_for_it_is_told_and_nobody_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    older_ledger(tmp_path / "quick", synthetic(3))
    Ledger(tmp_path / "quick")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(schema, "_TELL_AFTER_S", -1.0)
    path = older_ledger(tmp_path / "slow", synthetic(500))
    Ledger(tmp_path / "slow")
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{path} is brought up to date with this recipe, once: 501 runs\n")
    Ledger(tmp_path / "slow")
    assert capsys.readouterr() == ("", "")


def test_the_file_stays_about_as_large_as_it_was(tmp_path: Path) -> None:
    def long() -> Iterator[dict[str, Any]]:
        for result in synthetic(600):
            yield {**result, "padding": "x" * 10_000}

    path = older_ledger(tmp_path, long())
    before = path.stat().st_size
    Ledger(tmp_path)
    assert path.stat().st_size < 1.4 * before
    assert len(list(Ledger(tmp_path).results(r["run_id"] for r in synthetic(600)))) == 600


def test_without_room_for_it_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = older_ledger(tmp_path, synthetic(3))
    before = path.read_bytes()
    monkeypatch.setattr(schema, "_SMALL", 0)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(UsageError, match=r"which needs .* GB beside it") as caught:
            Ledger(tmp_path)
    assert "make room" in caught.value.advice
    assert path.read_bytes() == before
    assert len(Ledger(tmp_path).rows()) == 4


@pytest.mark.real
@pytest.mark.parametrize("moved", [1, 150, 299])
def test_a_kill_while_it_is_brought_up_to_date_loses_nothing(tmp_path: Path, moved: int) -> None:
    results = list(synthetic(300))
    path = older_ledger(tmp_path, results)
    process = opener(tmp_path)
    go(process)
    assert process.stdout is not None
    for _ in range(moved):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    ledger = Ledger(tmp_path)
    assert {row.run_id for row in ledger.rows()} == {*(r["run_id"] for r in results), "lost-1"}
    assert list(ledger.results(r["run_id"] for r in results)) == results
    assert is_sound(path)


@pytest.mark.real
def test_two_processes_bring_it_up_to_date_once(tmp_path: Path) -> None:
    results = list(synthetic(200))
    path = older_ledger(tmp_path, results)
    processes = [opener(tmp_path) for _ in range(3)]
    for process in processes:
        go(process)
    moved = []
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        moved.append(len(out.splitlines()))
    assert sorted(moved) == [0, 0, 201], "one of them moved all runs"
    assert len(Ledger(tmp_path).rows()) == 201
    assert is_sound(path)


def test_a_run_that_an_older_recipe_began_may_end_in_the_newer_file(tmp_path: Path) -> None:
    """It was going on while recipe was upgraded, and does what its own version does."""
    (result,) = synthetic(1)
    older_ledger(tmp_path, [])
    ledger = Ledger(tmp_path)
    with closing(sqlite3.connect(ledger.path)) as db:
        head = (result["run_id"], result["recipe"], result["recipe_digest"], result["started_at"])
        columns = "run_id, recipe, recipe_digest, started_at, status, pid"
        db.execute(f"INSERT INTO experiments ({columns}) VALUES (?, ?, ?, ?, 'running', 1)", head)
        db.execute(
            "UPDATE experiments SET ended_at = ?, status = ?, phase = ?, total_usd = ?, result = ? WHERE run_id = ?",
            (result["ended_at"], "completed", None, 1.5, json.dumps(result), result["run_id"]),
        )
        db.commit()
    (row,) = Ledger(tmp_path).rows(Filter(model=result["model"]["identifier"]))
    assert row.run_id == result["run_id"]
    assert list(Ledger(tmp_path).results([row.run_id])) == [result]
    with closing(sqlite3.connect(ledger.path)) as db:
        assert db.execute("SELECT count(*) FROM experiments WHERE result IS NOT NULL").fetchone() == (0,)

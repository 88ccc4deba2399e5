"""Several processes that write whole runs at once, and one that is killed in the middle of it, again and again."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from runners.ledger import Ledger

ROOT = Path(__file__).parents[3]
WRITER = """
import sys
from pathlib import Path
from runners.events import PhaseStarted
from runners.ledger import Known, Ledger
from tests.emulators.many_runs import synthetic

home, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number, result in enumerate(synthetic(count)):
    run_id = result["run_id"] = f"{name}-{number}"
    ledger = Ledger(home)
    ledger.begin(run_id, result["recipe"], "digest", result["started_at"], 1, Known(tags=[name]))
    ledger.record(run_id, PhaseStarted("plan"))
    ledger.end(result)
    print(run_id, flush=True)
"""


def writer(home: Path, name: str, count: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home), name, str(count)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.real
def test_four_writers_at_once_lose_no_run_no_tag_and_no_event(tmp_path: Path) -> None:
    names, count = ("one", "two", "three", "four"), 120
    processes = [writer(tmp_path, name, count) for name in names]
    for process in processes:
        go(process)
    ledger = Ledger(tmp_path)
    while any(process.poll() is None for process in processes):
        ledger.rows(limit=20)  # a reader is never in their way, nor they in its
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    expected = {f"{name}-{number}" for name in names for number in range(count)}
    rows = ledger.rows()
    assert {row.run_id for row in rows} == expected
    assert all(row.run_id.startswith(row.tags) and row.total_usd is not None for row in rows)
    assert {result["run_id"] for result in ledger.results(sorted(expected))} == expected
    with closing(sqlite3.connect(ledger.path)) as db:
        assert db.execute("SELECT count(DISTINCT run_id), count(*) FROM events").fetchone() == (4 * count, 4 * count)


@pytest.mark.real
def test_a_writer_that_is_killed_leaves_what_it_had_said_and_a_sound_file(tmp_path: Path) -> None:
    dice = random.Random(7)
    acknowledged: set[str] = set()
    for round_ in range(8):
        process = writer(tmp_path, f"round{round_}", 100_000)
        go(process)
        assert process.stdout is not None
        for _ in range(dice.randrange(1, 25)):
            acknowledged.add(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
        # Not by communicate(), which reads past what is in the buffer: perhaps from the middle of a line on.
        acknowledged |= set(process.stdout.read().split())
        process.communicate(timeout=60)
        ledger = Ledger(tmp_path)
        rows = {row.run_id: row for row in ledger.rows()}
        assert acknowledged <= set(rows)
        whole = [row.run_id for row in rows.values() if row.status != "lost"]
        assert {result["run_id"] for result in ledger.results(whole)} == set(whole)
        assert len(rows) - len(whole) <= round_ + 1, "at most one run is on its way at a time"
        with closing(sqlite3.connect(ledger.path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)

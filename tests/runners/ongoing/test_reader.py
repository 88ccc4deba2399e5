"""What is going on under a home, read from its ledger, its journal and its runs' files."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Gone, Lease
from provisioners.journal import Journal
from runners.ledger import Ledger
from runners.live import LIVE
from runners.ongoing.overview import overview
from runners.ongoing.reader import Reader
from tests.runners.ongoing.states import live

NOBODY = 2**22 + 1
"""No process has this number."""
RUN, OTHER = "smoke-20261121-051200-9f3a", "smoke-20261121-051300-aaaa"


def begin(home: Path, run_id: str, *, pid: int, **changes: Any) -> Path:
    """A run that began a minute ago, with its live.json."""
    now = datetime.now(UTC)
    Ledger(home).begin(run_id, "smoke", "digest", now.isoformat(), pid)
    folder = home / "runs" / run_id
    folder.mkdir(parents=True)
    known = {"at": now.isoformat(), "started_at": (now - timedelta(minutes=1)).isoformat()}
    (folder / LIVE).write_text(json.dumps(live(run_id=run_id, **{**known, **changes})))
    return folder


def end(home: Path, run_id: str, *, minutes_ago: float = 0, status: str = "completed") -> None:
    at = (datetime.now(UTC) - timedelta(minutes=minutes_ago)).isoformat()
    Ledger(home).end(
        {
            "run_id": run_id,
            "recipe": "smoke",
            "recipe_digest": "digest",
            "started_at": (datetime.now(UTC) - timedelta(minutes=minutes_ago + 1)).isoformat(),
            "ended_at": at,
            "outcome": {"status": status, "phase": None},
            "exit_code": 0,
            "phases": [{"name": "drive", "seconds": 60.0, "usd": 0.5}],
            "cost": {"total_usd": 0.5},
            "throughput": {"output_tokens_per_s": 100.0},
        }
    )


def leased(home: Path, run_id: str) -> tuple[Journal, Lease]:
    lease = Lease(provider="runpod", name=f"recipe-me-{run_id}", run_id=run_id, id="x", price_usd_per_h=3.6, details={})
    journal = Journal(Ledger(home).path)
    journal.intend(lease)
    return journal, lease


def now(reader: Reader) -> dict[str, Any]:
    return overview(reader.read())


def test_a_home_without_a_ledger_stays_without_one(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    assert now(reader)["runs"] == []
    assert list(tmp_path.iterdir()) == []
    begin(tmp_path, RUN, pid=os.getpid())
    assert [run["run_id"] for run in now(reader)["runs"]] == [RUN], "one that comes later is seen"


def test_living_clients_are_told_from_dead_ones_and_those_that_hold_a_machine_from_the_rest(tmp_path: Path) -> None:
    begin(tmp_path, RUN, pid=os.getpid())
    begin(tmp_path, OTHER, pid=NOBODY)
    held = "smoke-20261121-051400-bbbb"
    begin(tmp_path, held, pid=NOBODY)
    journal, lease = leased(tmp_path, held)
    document = now(Reader(tmp_path))
    assert {run["run_id"]: run["client"] for run in document["runs"]} == {RUN: "running", held: "gone"}
    assert [(run["run_id"], run["status"]) for run in document["ended"]] == [(OTHER, "lost")]
    assert document["usd_per_h"] == pytest.approx(3.58 + 3.6)
    journal.released(lease, Gone("absent twice"))
    assert [run["run_id"] for run in now(Reader(tmp_path))["runs"]] == [RUN]


def test_what_a_lost_run_has_cost_stays_in_what_was_spent_today(tmp_path: Path) -> None:
    begin(tmp_path, RUN, pid=NOBODY, usd=0.002, started_at=datetime.now(UTC).isoformat())  # today, also at midnight
    journal, lease = leased(tmp_path, RUN)
    held = now(Reader(tmp_path))
    time.sleep(0.1)  # in which it bills
    journal.released(lease, Gone("absent twice"))
    document = now(Reader(tmp_path))
    (run,) = document["ended"]
    assert (run["status"], document["runs"]) == ("lost", [])
    assert run["usd"] == pytest.approx(Ledger(tmp_path).so_far_usd([RUN])[RUN])
    assert document["usd_today"] == pytest.approx(run["usd"])
    assert document["usd_today"] > held["usd_today"] > 0


def test_a_machine_that_was_a_process_of_a_client_that_died_is_seen_to_be_gone(tmp_path: Path) -> None:
    begin(tmp_path, RUN, pid=NOBODY, usd=0.002)
    work_dir = tmp_path / "work" / "recipe-me"
    work_dir.mkdir(parents=True)
    lease = Lease(
        provider="local",
        name=work_dir.name,
        run_id=RUN,
        id=None,
        price_usd_per_h=3.6,
        details={"work_dir": str(work_dir)},
    )
    journal = Journal(Ledger(tmp_path).path)
    journal.intend(lease)
    left = subprocess.Popen(["sleep", "60"], start_new_session=True, env={**os.environ, "RECIPE_LEASE": lease.name})
    try:
        journal.created(replace(lease, id=str(left.pid)))
        assert [run["client"] for run in now(Reader(tmp_path))["runs"]] == ["gone"], "something of it runs on"
    finally:
        left.kill()
        left.wait()
    first, later = now(Reader(tmp_path)), now(Reader(tmp_path))
    assert (first["runs"], first["usd_per_h"]) == ([], 0)
    (run,) = first["ended"]
    assert run["status"] == "lost"
    assert run["usd"] <= 0.002
    assert run["usd"] == later["ended"][0]["usd"], "nothing is billed any more"


def test_a_machine_of_no_run_of_this_home_is_told_of(tmp_path: Path) -> None:
    leased(tmp_path, RUN)
    (machine,) = now(Reader(tmp_path))["machines"]
    assert (machine["run_id"], machine["client"], machine["provider"]) == (RUN, "gone", "runpod")


def test_runs_that_end_are_followed_however_long_ago_they_began(tmp_path: Path) -> None:
    begin(tmp_path, RUN, pid=os.getpid())
    reader = Reader(tmp_path)
    assert now(reader)["ended"] == []
    end(tmp_path, RUN, minutes_ago=5)
    (run,) = now(reader)["ended"]
    assert (run["run_id"], run["usd"], run["seconds"], run["output_tokens_per_s"]) == (RUN, 0.5, 60.0, 100.0)
    assert run["ago_s"] == pytest.approx(300, abs=30)
    assert run["report"] is None
    report = tmp_path / "runs" / RUN / "report.html"
    report.write_text("")
    assert now(reader)["ended"][0]["report"] == str(report)
    end(tmp_path, RUN, minutes_ago=60)
    assert now(Reader(tmp_path))["ended"] == []


def test_what_ended_today_was_spent_today(tmp_path: Path) -> None:
    begin(tmp_path, RUN, pid=os.getpid())
    end(tmp_path, RUN)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    began_today = datetime.now(UTC) - timedelta(minutes=1) >= midnight
    assert now(Reader(tmp_path))["usd_today"] == (0.5 if began_today else 0.0)


def test_of_one_run_nothing_else_is_told_and_its_end_however_old(tmp_path: Path) -> None:
    begin(tmp_path, RUN, pid=os.getpid())
    begin(tmp_path, OTHER, pid=os.getpid())
    leased(tmp_path, "third-20261121-051400-bbbb")
    document = now(Reader(tmp_path, RUN))
    assert ([run["run_id"] for run in document["runs"]], document["machines"]) == ([RUN], [])
    end(tmp_path, RUN, minutes_ago=500)
    end(tmp_path, OTHER)
    document = now(Reader(tmp_path, RUN))
    assert (document["runs"], [run["run_id"] for run in document["ended"]]) == ([], [RUN])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text(path.read_text()[:100]),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text(json.dumps({**live(), "schema_version": 99, "phases": "?"})),
    ],
    ids=["none", "torn", "no-document", "of-a-newer-recipe"],
)
def test_a_live_json_that_says_nothing_leaves_what_the_ledger_knows(
    tmp_path: Path, spoil: Callable[[Path], Any]
) -> None:
    spoil(begin(tmp_path, RUN, pid=os.getpid()) / LIVE)
    (run,) = now(Reader(tmp_path))["runs"]
    assert (run["run_id"], run["client"], run["phase"], run["driven"]) == (RUN, "running", None, None)


def test_a_ledger_that_another_process_writes_is_read_meanwhile(tmp_path: Path) -> None:
    begin(tmp_path, RUN, pid=os.getpid())
    reader = Reader(tmp_path)
    now(reader)
    import sqlite3

    with sqlite3.connect(tmp_path / "ledger.db", isolation_level=None) as db:
        db.execute("BEGIN IMMEDIATE")
        assert len(now(reader)["runs"]) == 1
        db.execute("ROLLBACK")

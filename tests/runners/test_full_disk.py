"""What a full disk does to a run's records: said once in plain words, and mended when there is room again."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Gone
from recipes.errors import UsageError
from runners.events import Event, EventLog, Noted, no_room
from runners.failures import unwritten
from runners.ledger import Ledger

RUN = "demo-20260102-030405-abcd"
NOBODY = 2**22 - 1
"""A process that there never was."""
RESULT: dict[str, Any] = {
    "run_id": RUN,
    "recipe": "demo",
    "started_at": "2026-01-02T03:04:05+00:00",
    "ended_at": "2026-01-02T03:05:05+00:00",
    "outcome": {"status": "failed", "phase": "drive", "error": "the disk is full"},
    "exit_code": 2,
    "cost": {"total_usd": 0.5},
}


def test_who_could_not_write_for_want_of_room_is_told_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    def ledger(event: Event) -> None:
        heard.append(event)
        if len(heard) < 3:
            raise UsageError("the log cannot be written") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    emit = EventLog(tmp_path / "events.jsonl", ledger)
    for _ in range(4):
        emit(Noted("drive", "x"))
    emit.close()
    assert len(heard) == 4
    (told,) = caplog.records
    assert "the disk is full" in told.message
    assert told.exc_info is None


def test_only_a_want_of_room_is_one() -> None:
    assert no_room(OSError(errno.EDQUOT, "quota"))
    assert not no_room(OSError(errno.EACCES, "not allowed"))
    db = sqlite3.connect(":memory:")
    db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.OperationalError) as full:
        db.execute("CREATE TABLE t (x)")
    db.close()
    assert no_room(full.value)


@pytest.mark.parametrize(
    ("pid", "text", "status"),
    [
        (NOBODY, json.dumps(RESULT), "failed"),
        (os.getpid(), json.dumps(RESULT), "running"),
        (NOBODY, json.dumps(RESULT)[:40], "lost"),
        (NOBODY, json.dumps({**RESULT, "outcome": None}), "lost"),
        (NOBODY, json.dumps({**RESULT, "run_id": "another-20260102-030405-abcd"}), "lost"),
        (NOBODY, "", "lost"),
    ],
    ids=["whole", "its-client-lives", "torn", "no-outcome", "of-another-run", "empty"],
)
def test_a_result_that_could_not_be_logged_is_taken_in_later(tmp_path: Path, pid: int, text: str, status: str) -> None:
    Ledger(tmp_path).begin(RUN, "demo", "d", datetime.now(UTC).isoformat(), pid)
    folder = tmp_path / "runs" / RUN
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(text)
    (row,) = Ledger(tmp_path).rows()
    assert row.status == status
    assert row.total_usd == (0.5 if status == "failed" else None)


def test_whoever_reads_the_end_knows_whether_there_is_a_result(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    error = OSError(errno.ENOSPC, "No space left")
    assert "the result could not be written" in unwritten(error, Gone("seen"), path).message
    path.write_text("{}")
    message = unwritten(error, Gone("seen"), path).message
    assert f"{path} is whole" in message
    assert "proven: seen" in message

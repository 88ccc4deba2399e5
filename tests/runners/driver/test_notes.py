"""What a driver says is written down at home, each row once, however often it is heard."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recipes.errors import HostCommandFailed
from runners.drive import Measured
from runners.driver.notes import Notes
from runners.events import Answered, Event
from runners.run_folder import RunFolder
from runners.telemetry import TelemetryFile

AT = datetime(2026, 1, 2, tzinfo=UTC).isoformat()


def request(n: int, **changes: Any) -> dict[str, Any]:
    place = {"id": f"a.txt/1/{n}", "document": "a.txt", "level": 1, "index": n}
    return {**place, "status": "ok", "tries": 1, "started_at": AT, "e2e_s": 0.25, **changes}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "r")


def noted(folder: RunFolder, measured: Measured, **how: Any) -> Notes:
    return Notes(folder, measured, TelemetryFile(folder.path / "telemetry.jsonl"), **how)


def rows(folder: RunFolder, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.path / f"{name}.jsonl").read_text().splitlines()]


def test_what_is_heard_twice_is_written_and_counted_once(folder: RunFolder) -> None:
    measured = Measured()
    notes = noted(folder, measured)
    for n in (0, 1, 0):
        notes.row("answers", {"id": f"a.txt/1/{n}", "key": "k", "text": "é\ud800"})
        notes.row("requests", request(n))
    notes.close()
    assert [row["index"] for row in rows(folder, "requests")] == [0, 1]
    assert len(rows(folder, "answers")) == 2
    assert [record.index for record in measured.records] == [0, 1]


def test_what_another_client_wrote_counts_here_and_is_not_written_again(folder: RunFolder) -> None:
    """The driver has measured all of it; what was asked before it is the earlier client's."""
    first = noted(folder, Measured())
    first.row("requests", request(0))
    first.close()
    with (folder.path / "requests.jsonl").open("a") as file:
        file.write(json.dumps(request(7, document="b.txt")) + "\n" + json.dumps(request(1))[:30])
    measured = Measured()
    second = noted(folder, measured)
    assert len(measured.earlier) == 2
    for n in (0, 1):
        second.row("requests", request(n))
    second.close()
    whole = [line for line in (folder.path / "requests.jsonl").read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["index"] for line in whole] == [0, 7, 1]
    assert [record.index for record in measured.records] == [0, 1]
    assert [record.index for record in measured.earlier] == [7]


def test_a_document_is_done_with_its_output(folder: RunFolder) -> None:
    measured = Measured()
    notes = noted(folder, measured)
    notes.row("documents", {"document": "none.txt", "output": "none.json"})
    notes.output("a.json", "{}")
    notes.row("documents", {"document": "a.txt", "output": "a.json"})
    notes.close()
    assert [path.name for path in measured.outputs] == ["a.json"]
    assert rows(folder, "documents") == [{"document": "a.txt", "output": "a.json"}]


def test_no_output_is_overwritten(folder: RunFolder) -> None:
    (folder.outputs / "a.json").write_text("another")
    notes = noted(folder, Measured())
    for _ in range(2):
        notes.output("a.json", "mine")
        notes.row("documents", {"document": "a.txt", "output": "a.json"})
    notes.close()
    assert {p.name: p.read_text() for p in folder.outputs.iterdir()} == {"a.json": "another", "a.1.json": "mine"}
    assert rows(folder, "documents") == [{"document": "a.txt", "output": "a.1.json"}]


@pytest.mark.parametrize("name", ["../result.json", "/etc/motd", "sub/../../x"])
def test_no_output_leads_out_of_its_folder(folder: RunFolder, name: str) -> None:
    notes = noted(folder, Measured())
    with pytest.raises(HostCommandFailed, match="leads out of its folder"):
        notes.output(name, "text")
    notes.close()


def test_telemetry_counts_as_samples(folder: RunFolder) -> None:
    measured = Measured()
    notes = noted(folder, measured)
    notes.row("telemetry", {"at": AT, "source": "engine", "running": 3.0, "unknown": 1})
    notes.row("elsewhere", {"at": AT})
    notes.close()
    assert [(one.at.isoformat(), one.sample.running) for one in measured.metrics] == [(AT, 3.0)]


def test_what_else_it_says_is_kept_and_its_last_words_are_known(folder: RunFolder) -> None:
    notes = noted(folder, Measured())
    for line in (b"Traceback", b"MemoryError", b""):
        notes.besides(line)
    notes.close()
    assert notes.last_words == "MemoryError"
    assert (folder.path / "driver.log").read_text() == "Traceback\nMemoryError\n\n"


def test_what_the_machine_says_is_put_on_the_runs_clock_the_same_each_time(folder: RunFolder) -> None:
    """Its clock is 30 s ahead; a second client hears all of it again."""
    sample = {"source": "engine", "running": 3.0, "output_tokens_total": 7.0}
    gap = {"source": "gap", "of": "engine", "seconds": 4.0, "why": "HTTP 500"}
    here = [(datetime(2026, 1, 2, tzinfo=UTC) - timedelta(seconds=30 - n)).isoformat() for n in range(4)]
    there = [(datetime(2026, 1, 2, tzinfo=UTC) + timedelta(seconds=n)).isoformat() for n in range(4)]
    for client in range(2):
        measured, told = Measured(), list[Event]()
        notes = noted(folder, measured, emit=told.append, offset_s=30.0)
        notes.row("requests", request(0, started_at=there[0]))
        notes.row("telemetry", {"at": there[1], **sample})
        notes.row("telemetry", {"at": there[2], **gap})
        if client:
            notes.row("telemetry", {"at": there[3], **sample})
        notes.close()
        assert [record.started_at.isoformat() for record in measured.records] == here[:1]
        assert [one.at.isoformat() for one in measured.metrics] == here[1 : 4 if client else 2 : 2]
        assert [event.record.index for event in told if isinstance(event, Answered)] == [0]
    assert [row["started_at"] for row in rows(folder, "requests")] == here[:1]
    seen = [(datetime.fromisoformat(row["at"]).isoformat(), row["source"]) for row in rows(folder, "telemetry")]
    assert seen == [(here[1], "engine"), (here[2], "gap"), (here[3], "engine")]

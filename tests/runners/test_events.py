"""The event log: what is kept, what is only shown, and that nothing in it can stop a run."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from runners.events import Advanced, Driven, Event, EventLog, LeaseChanged, PhaseEnded, PhaseStarted, RunEnded, Warned

FULL = Path("/dev/full")
DRIVEN = Driven(1, 2, 1, 0, 1, 10.0, 5.0, 1, 0, 0.5, 0.01)


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lasting_events_are_kept_and_the_others_only_shown(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    shown: list[Event] = []
    log = EventLog(path, shown.append)
    events: list[Event] = [PhaseStarted("plan"), Advanced("prepare", "half"), DRIVEN, Warned("drive", "nüll")]
    for event in events:
        log(event)
    assert shown == events
    kept = rows(path)
    assert [row["event"] for row in kept] == ["phase-started", "warned"]
    assert kept[1]["message"] == "nüll"
    assert all(datetime.fromisoformat(str(row["at"])).tzinfo for row in kept)
    log.close()


def test_an_event_is_on_disk_when_the_call_returns(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for number in range(3):
        log(RunEnded(f"r-{number}", "completed", 0))
        assert len(rows(path)) == number + 1
    log.close()


def test_a_log_that_exists_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for phase in ("plan", "drive"):
        log = EventLog(path)
        log(PhaseStarted(phase))
        log.close()
    assert [row["phase"] for row in rows(path)] == ["plan", "drive"]


def test_a_rows_fields_are_the_events(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log(PhaseEnded("launch", 1.5, None, ok=False, note="it died"))
    log(LeaseChanged("recipe-1", "gone", "no process"))
    log.close()
    ended, lease = rows(path)
    assert {k: v for k, v in ended.items() if k != "at"} == {
        "event": "phase-ended",
        "phase": "launch",
        "seconds": 1.5,
        "usd": None,
        "ok": False,
        "note": "it died",
    }
    assert (lease["event"], lease["state"], lease["proof"]) == ("lease-changed", "gone", "no process")


def test_a_listener_that_raises_is_dropped_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before: list[Event] = []
    after: list[Event] = []
    calls = []

    def broken(event: Event) -> None:
        calls.append(event)
        raise RuntimeError("the terminal is gone")

    log = EventLog(tmp_path / "events.jsonl", before.append, broken, after.append)
    first, second = PhaseStarted("plan"), PhaseStarted("drive")
    with caplog.at_level(logging.ERROR):
        log(first)
    log(second)
    assert calls == [first]
    assert before == after == [first, second]
    assert [row["phase"] for row in rows(tmp_path / "events.jsonl")] == ["plan", "drive"]
    assert "the terminal is gone" in caplog.text, "a dropped listener leaves its traceback"
    log.close()


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_a_full_disk_stops_nothing() -> None:
    shown: list[Event] = []
    log = EventLog(FULL, shown.append)
    log(PhaseStarted("plan"))
    log(PhaseStarted("drive"))
    log.close()
    assert shown == [PhaseStarted("plan"), PhaseStarted("drive")]


def test_an_event_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    shown: list[Event] = []
    path = tmp_path / "events.jsonl"
    log = EventLog(path, shown.append)
    log(Warned("drive", "half of a pair: \ud83d"))
    log(PhaseStarted("collect"))
    log.close()
    log(PhaseStarted("release"))
    assert len(shown) == 3
    assert rows(path)[-1]["phase"] == "collect"


def test_events_are_values() -> None:
    assert replace(DRIVEN, done=2) != DRIVEN == replace(DRIVEN)
    with pytest.raises(AttributeError):
        DRIVEN.done = 3  # type: ignore[misc]

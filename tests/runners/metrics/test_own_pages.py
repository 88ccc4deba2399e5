"""The engine's own series of a run that is over: all that changed, no more than needed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runners.events import PageRead, PhaseEnded
from runners.metrics import own_pages
from runners.metrics.own_pages import NAME, PageRecorder, recorded

DRIVEN = PhaseEnded("drive", 1.0, None, True)


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def now(self, _: object) -> datetime:
        return self.at

    @staticmethod
    def fromtimestamp(stamp: float, zone: object) -> datetime:
        return datetime.fromtimestamp(stamp, UTC)

    @staticmethod
    def fromisoformat(text: str) -> datetime:
        return datetime.fromisoformat(text)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(own_pages, "datetime", clock)
    return clock


def play(folder: Path, clock: Time, pages: list[str], every_s: float = 1.0) -> None:
    recorder = PageRecorder(folder)
    for page in pages:
        recorder.heard(PageRead(page))
        clock.at += timedelta(seconds=every_s)
    recorder.heard(DRIVEN)


def test_values_are_there_at_every_moment_whether_or_not_they_changed(tmp_path: Path, clock: Time) -> None:
    play(
        tmp_path, clock, ['v:a{x="1"} 1\nv:b 5\n', 'v:a{x="1"} 2\nv:b 5\npython_info 1\n', 'v:c 7\nv:a{x="1"} 2\nv:b 5']
    )
    found = {one.series: one.values for one in recorded(tmp_path)}
    assert found == {'v:a{x="1"}': [1, 2, 2], "v:b": [5, 5, 5], "v:c": [7]}
    rows = [json.loads(line) for line in (tmp_path / NAME).read_text().splitlines()]
    assert [row["values"] for row in rows] == [{"0": 1, "1": 5}, {"0": 2}, {"2": 7}], "only what changed is written"


def test_the_last_page_of_the_drive_is_always_there(tmp_path: Path, clock: Time) -> None:
    play(tmp_path, clock, [f"v:a {n}" for n in range(8)], every_s=0.3)
    (series,) = recorded(tmp_path)
    assert series.values[-1] == 7
    assert len(series.values) < 6


def test_a_day_on_vllm_stays_small(tmp_path: Path, clock: Time) -> None:
    recorder = PageRecorder(tmp_path)
    for second in range(0, 86400, 5):
        changing = "".join(f'vllm:h_bucket{{engine="0",le="{i}",model_name="m"}} {second * i}\n' for i in range(150))
        recorder.heard(PageRead(changing))
        clock.at += timedelta(seconds=5)
    assert 1e6 < (tmp_path / NAME).stat().st_size < 9e6


def test_a_client_that_goes_on_begins_anew(tmp_path: Path, clock: Time) -> None:
    play(tmp_path, clock, ["v:a 1\nv:b 2"])
    play(tmp_path, clock, ["v:b 3\nv:a 4"])
    assert {one.series: one.values for one in recorded(tmp_path)} == {"v:a": [1, 4], "v:b": [2, 3]}


def test_what_is_no_number_or_no_page_is_left_out(tmp_path: Path, clock: Time) -> None:
    play(tmp_path, clock, ["v:a NaN\nv:b +Inf\n<html>\nv:c{ 1\nv:d 1e3 1700000000\n\x00"])
    assert {one.series: one.values for one in recorded(tmp_path)} == {"v:d": [1000]}

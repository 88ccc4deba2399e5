"""The clock: phases without gaps, and money only while something is leased."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from types import SimpleNamespace

import pytest

from runners import clock
from runners.clock import LEASED, Clock

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Hands:
    """Both clocks, moving together when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self, tz: tzinfo) -> datetime:
        return (START + timedelta(seconds=self.now - 1000)).astimezone(tz)


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    moved = Hands()
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=moved.monotonic))
    monkeypatch.setattr(clock, "datetime", SimpleNamespace(now=moved.wall))
    return moved


def go(timed: Clock, hands: Hands, **phases: float) -> None:
    for name, seconds in phases.items():
        hands.now += seconds
        timed.end_phase(name)


def test_phases_are_contiguous_and_sum_up_to_the_run(hands: Hands) -> None:
    timed = Clock()
    go(timed, hands, plan=1, provision=30, prepare=200.5, launch=60, drive=600, collect=5, release=2.25)
    assert [phase.seconds for phase in timed.phases] == [1, 30, 200.5, 60, 600, 5, 2.25]
    assert sum(phase.seconds for phase in timed.phases) == hands.now - 1000


def test_each_phase_begins_at_the_instant_at_which_the_one_before_ended(hands: Hands) -> None:
    timed = Clock()
    go(timed, hands, plan=1, provision=30.5, drive=600)
    assert timed.started_at == START
    assert [(phase.started_at - START).total_seconds() for phase in timed.phases] == [0, 1, 31.5]


def test_only_leased_phases_cost(hands: Hands) -> None:
    timed = Clock()
    timed.price_usd_per_h = 3.6
    go(timed, hands, plan=500, provision=30, drive=70, report=900)
    assert [phase.usd for phase in timed.phases] == pytest.approx([0, 0.03, 0.07, 0])
    assert timed.billed_seconds() == 100


def test_every_phase_between_lease_and_release_is_billed(hands: Hands) -> None:
    timed = Clock()
    timed.price_usd_per_h = 3600
    go(timed, hands, **dict.fromkeys(LEASED, 1.0))
    assert set(LEASED) == {"provision", "prepare", "launch", "drive", "collect", "release"}
    assert timed.billed_seconds() == len(LEASED)
    assert [phase.usd for phase in timed.phases] == pytest.approx([1] * len(LEASED))


def test_without_a_price_the_cost_is_unknown(hands: Hands) -> None:
    timed = Clock()
    go(timed, hands, plan=1, provision=1)
    assert [phase.usd for phase in timed.phases] == [None, None]
    assert timed.spent_usd() is None
    assert timed.phases[1].row()["usd"] is None
    assert timed.billed_seconds() == 1


def test_what_is_spent_so_far_holds_the_phase_that_is_on(hands: Hands) -> None:
    timed = Clock()
    timed.price_usd_per_h = 3600
    assert timed.spent_usd() == 0, "nothing is leased before the first phase has ended"
    go(timed, hands, plan=100, provision=10)
    hands.now += 5
    assert timed.spent_usd() == pytest.approx(15)


def test_a_phases_row(hands: Hands) -> None:
    timed = Clock()
    timed.price_usd_per_h = 2.0
    go(timed, hands, drive=1.23456)
    row = timed.phases[0].row()
    assert (row["name"], row["seconds"], row["usd"]) == ("drive", 1.235, pytest.approx(0.00068587))
    assert row["started_at"] == timed.started_at.isoformat(timespec="milliseconds")

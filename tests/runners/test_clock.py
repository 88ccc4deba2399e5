"""The clock: phases without gaps, and money only while something is leased."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from types import SimpleNamespace

import pytest

from runners import clock
from runners.clock import Clock

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


def test_only_what_is_leased_costs(hands: Hands) -> None:
    timed = Clock()
    timed.price_usd_per_h = 3.6
    go(timed, hands, plan=500)
    hands.now += 20  # waiting for capacity
    timed.leased()
    go(timed, hands, provision=10, drive=70)
    assert [phase.seconds for phase in timed.phases] == [500, 30, 70]
    assert [phase.usd for phase in timed.phases] == pytest.approx([0, 0.01, 0.07])
    assert timed.billed_seconds() == 80


def test_what_was_refused_was_not_billed(hands: Hands) -> None:
    timed = Clock()
    timed.price_usd_per_h = 3600
    timed.leased()
    hands.now += 5
    timed.not_leased()
    go(timed, hands, provision=1)
    assert timed.billed_seconds() == 0


def test_a_lease_of_an_earlier_client_is_billed_from_its_beginning(hands: Hands) -> None:
    hands.now += 100
    timed = Clock()
    timed.price_usd_per_h = 3600
    timed.leased(START)
    go(timed, hands, before=0, drive=10)
    assert timed.started_at == START
    assert [phase.seconds for phase in timed.phases] == [100, 10]
    assert timed.spent_usd() == pytest.approx(110)


def test_without_a_price_the_cost_is_unknown(hands: Hands) -> None:
    timed = Clock()
    timed.leased()
    go(timed, hands, provision=1, drive=1)
    assert [phase.usd for phase in timed.phases] == [None, None]
    assert timed.spent_usd() is None
    assert timed.phases[1].row()["usd"] is None
    assert timed.billed_seconds() == 2


def test_what_is_spent_so_far_holds_the_phase_that_is_on(hands: Hands) -> None:
    timed = Clock()
    timed.price_usd_per_h = 3600
    go(timed, hands, plan=100)
    assert timed.spent_usd() == 0, "nothing is leased yet"
    timed.leased()
    go(timed, hands, provision=10)
    hands.now += 5
    assert timed.spent_usd() == pytest.approx(15)


def test_a_phases_row(hands: Hands) -> None:
    timed = Clock()
    timed.price_usd_per_h = 2.0
    timed.leased()
    go(timed, hands, drive=1.23456)
    row = timed.phases[0].row()
    assert (row["name"], row["seconds"], row["usd"]) == ("drive", 1.235, pytest.approx(2 * 1.235 / 3600))
    assert row["started_at"] == timed.started_at.isoformat(timespec="milliseconds")

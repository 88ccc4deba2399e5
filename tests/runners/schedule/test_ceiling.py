"""What refusals do to the limit: outages, a share of refusals, a fixed number of connections; in virtual time."""

from __future__ import annotations

import pytest

from runners.schedule.ceiling import Ceiling
from runners.schedule.concurrency import Concurrency
from tests.runners.schedule.plant import Plant

SEEDS = range(6)
METRICS = pytest.mark.parametrize("metrics", [True, False])
SEEDED = pytest.mark.parametrize("seed", SEEDS)


@METRICS
@SEEDED
@pytest.mark.parametrize("begin_s", [9, 30])
def test_after_an_outage_the_engine_is_soon_full_again(metrics: bool, seed: int, begin_s: int) -> None:
    end_s = begin_s + 8
    plant = Plant(slots=[(0, 64)], faults=[(begin_s, end_s, 1.0)], metrics=metrics, seed=seed).run(Concurrency(), 70)
    assert min(limit for at_s, limit in plant.limits if at_s > begin_s) >= 45
    assert plant.mean_running(end_s + 9, end_s + 10) >= 0.9 * 64
    assert plant.busy(end_s + 11, 70) >= 0.97
    assert plant.limit_at(69) <= 80
    assert not plant.given_up


@METRICS
@SEEDED
def test_an_outage_brings_the_limit_to_no_less_than_half(metrics: bool, seed: int) -> None:
    plant = Plant(slots=[(0, 64)], faults=[(30, 90, 1.0)], metrics=metrics, seed=seed).run(Concurrency(), 90)
    assert plant.limit_at(29) // 2 <= plant.limit_at(89) < 64


@METRICS
@SEEDED
def test_a_share_of_refusals_for_a_moment_is_soon_forgotten(metrics: bool, seed: int) -> None:
    plant = Plant(slots=[(0, 16)], faults=[(20, 24, 0.15)], metrics=metrics, seed=seed).run(Concurrency(), 50)
    assert plant.mean_running(20, 34) >= 0.7 * 16
    assert plant.mean_running(33, 34) >= 0.9 * 16
    assert plant.busy(34, 50) >= 0.97


@METRICS
@SEEDED
@pytest.mark.parametrize("answer_s", [1.3, 12.0])
def test_a_fixed_number_of_connections_is_found_and_seldom_tried(metrics: bool, seed: int, answer_s: float) -> None:
    concurrency = Concurrency()
    plant = Plant(slots=[(0, 64)], gateway=[(0, 12)], answer_s=answer_s, metrics=metrics, seed=seed)
    plant.run(concurrency, 180)
    assert 11 <= concurrency.limit <= 14
    assert plant.mean_running(60, 180) >= 0.9 * 12
    assert plant.refusals_in(60, 180) <= 0.4 * 120
    assert plant.given_up <= 2


@METRICS
@SEEDED
def test_more_connections_are_used_when_they_are_allowed(metrics: bool, seed: int) -> None:
    plant = Plant(slots=[(0, 64)], gateway=[(0, 12), (60, 1000)], metrics=metrics, seed=seed).run(Concurrency(), 100)
    assert plant.limit_at(59) <= 14
    assert plant.busy(80, 100) >= 0.97


@SEEDED
def test_answers_in_one_piece_bring_the_limit_back_to_where_it_began(seed: int) -> None:
    plant = Plant(slots=[(0, 20)], faults=[(20, 28, 1.0)], metrics=False, whole=True, seed=seed).run(Concurrency(), 45)
    assert plant.limit_at(29) < 20
    assert plant.limit_at(40) == plant.limit_at(44) == 20


def test_a_burst_is_cut_once() -> None:
    ceiling = Ceiling()
    for i in range(40):
        ceiling.refused(100, ceiling.allowed(100, 1 + i / 10), at_s=1 + i / 10)
    assert ceiling.most == 85
    ceiling.answered(sent_s=0.5)  # it was sent before
    ceiling.refused(100, 85, at_s=5.2)
    assert ceiling.most == 85
    ceiling.answered(sent_s=2.0)
    ceiling.refused(85, 85, at_s=5.3)
    assert ceiling.most is not None
    assert ceiling.most < 85


def test_nothing_rises_before_an_answer_has_come() -> None:
    ceiling = Ceiling()
    ceiling.refused(100, 100, at_s=0.0)
    assert ceiling.allowed(100, 60.0) == 85
    ceiling.answered(sent_s=59.0)
    assert [ceiling.allowed(100, 61.0 + second) for second in range(5)] == [86, 88, 92, 100, 100]


def test_a_rise_that_is_refused_is_taken_back_and_tried_later() -> None:
    ceiling = Ceiling()
    ceiling.refused(13, 13, at_s=0.0)
    tried = []
    for tenth in range(10, 600):
        at_s = tenth / 10
        ceiling.answered(sent_s=at_s - 0.05)
        if ceiling.allowed(20, at_s) > 12:
            tried.append(at_s)
            ceiling.refused(13, 13, at_s)
    assert ceiling.most is not None
    assert 11 <= ceiling.most <= 12
    assert len(tried) <= 9
    assert tried[-1] - tried[-2] >= 10

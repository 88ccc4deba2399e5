"""How many are under way at once, judged by what it does to an engine; time passes only in the simulation."""

from __future__ import annotations

import pytest

from runners.engine import EngineSample
from runners.schedule.concurrency import MOST, UNKNOWN_SLOTS, Concurrency
from tests.runners.schedule.plant import Plant

SLOTS = [1, 4, 16, 64, 256]
SEEDS = range(4)


@pytest.mark.parametrize("slots", SLOTS)
def test_the_engines_slots_are_found_from_its_metrics(slots: int) -> None:
    concurrency = Concurrency()
    plant = Plant(slots=[(0, slots)]).run(concurrency, 30)
    assert plant.busy(1, 30) >= 0.99
    assert all(slots < plant.limit_at(at_s) <= slots + 1 + slots // 8 for at_s in (1, 2, 5, 30))
    assert concurrency.summary()["engine_slots"] == slots
    assert concurrency.summary()["found_from"] == "metrics"


@pytest.mark.parametrize(("slots", "most_s"), [(16, 0.2), (64, 0.5), (256, 0.8)])
def test_they_are_found_within_a_moment(slots: int, most_s: float) -> None:
    plant = Plant(slots=[(0, slots)], spread=0.0).run(Concurrency(), 2)
    assert plant.busy(most_s, 1.4) >= 0.99


def test_what_the_plan_knows_is_where_it_begins() -> None:
    assert Concurrency(start=64).limit == 70
    assert Concurrency().limit == UNKNOWN_SLOTS


def test_a_fixed_number_is_never_more_and_never_less() -> None:
    concurrency = Concurrency(7)
    plant = Plant(slots=[(0, 64), (10, 2)], most_waiting=3).run(concurrency, 20)
    assert {limit for _, limit in plant.limits} == {7}
    assert plant.refusals
    assert concurrency.summary()["found_from"] == "fixed"


@pytest.mark.parametrize("metrics", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_slots_that_shrink_are_followed_within_ten_seconds(metrics: bool, seed: int) -> None:
    plant = Plant(slots=[(0, 64), (30, 16)], metrics=metrics, seed=seed).run(Concurrency(), 60)
    assert plant.limit_at(29) >= 64
    assert 16 <= plant.limit_at(40) <= 24
    assert plant.mean_waiting(45, 60) <= 8
    assert plant.busy(30, 60) >= 0.99


@pytest.mark.parametrize("metrics", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_slots_that_grow_are_followed_within_ten_seconds(metrics: bool, seed: int) -> None:
    plant = Plant(slots=[(0, 16), (30, 64)], metrics=metrics, seed=seed).run(Concurrency(), 60)
    assert plant.limit_at(29) < 30
    assert plant.busy(40, 60) >= 0.99


def test_a_long_way_to_the_engine_needs_a_larger_reserve() -> None:
    near = Plant(slots=[(0, 16)]).run(Concurrency(), 60)
    far = Plant(slots=[(0, 16)], trip_s=0.1).run(Concurrency(), 60)
    assert far.limit_at(59) > near.limit_at(59)
    assert far.busy(5, 60) >= 0.93


@pytest.mark.parametrize("slots", [1, 4, 16, 64])
@pytest.mark.parametrize("seed", SEEDS)
def test_an_engine_that_says_nothing_is_judged_by_its_answers(slots: int, seed: int) -> None:
    concurrency = Concurrency()
    plant = Plant(slots=[(0, slots)], metrics=False, seed=seed).run(concurrency, 60)
    assert plant.busy(10, 60) >= 0.98
    assert slots < plant.limit_at(59) <= 1.5 * slots + 5
    assert concurrency.summary()["found_from"] == "answers"


@pytest.mark.parametrize(
    "behaviour",
    [
        {"cached_share": 0.2},
        {"per_prompt_token_s": 0.0005},
        {"ttft_s": 1.5},
        {"spread": 0.9},
        {"spread": 0.0},
        {"trip_s": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_limit_does_not_collapse_where_first_tokens_mislead(behaviour: dict[str, float], seed: int) -> None:
    plant = Plant(slots=[(0, 16)], metrics=False, seed=seed, **behaviour).run(Concurrency(), 60)  # type: ignore[arg-type]
    assert plant.busy(10, 60) >= 0.95


def test_answers_count_for_nothing_while_the_metrics_are_there() -> None:
    concurrency = Concurrency()
    concurrency.sampled(EngineSample(running=4, waiting=3), 7, at_s=1.0)
    limit = concurrency.limit
    for i in range(40):
        concurrency.answered(ttft_s=0.1, e2e_s=1.0, prompt_tokens=100, under_way=limit, at_s=1.0 + i / 10)
    assert concurrency.limit == limit == 5


def test_answers_in_one_piece_tell_nothing() -> None:
    concurrency = Concurrency()
    for i in range(100):
        concurrency.answered(ttft_s=None, e2e_s=1.0, prompt_tokens=100, under_way=20, at_s=i / 10)
    assert concurrency.limit == UNKNOWN_SLOTS


def test_an_engine_that_preempts_gets_fewer() -> None:
    without = Plant(slots=[(0, 256)], kv_requests=30).run(Concurrency(40), 120)
    concurrency = Concurrency()
    plant = Plant(slots=[(0, 256)], kv_requests=30).run(concurrency, 120)
    assert plant.preemptions < without.preemptions / 4
    assert plant.answers > 0.9 * without.answers  # in this engine a preemption costs little
    assert 25 <= plant.limit_at(119) <= 45


def test_requests_in_the_hosts_memory_count_as_preempted() -> None:
    concurrency = Concurrency()
    concurrency.sampled(EngineSample(running=20, waiting=0, swapped=2), 20, at_s=1.0)
    assert concurrency.limit == 19


@pytest.mark.parametrize("metrics", [True, False])
def test_refusals_lower_the_limit(metrics: bool) -> None:
    concurrency = Concurrency()
    plant = Plant(slots=[(0, 16)], most_waiting=0, metrics=metrics).run(concurrency, 60)
    assert 12 <= plant.limit_at(59) <= 32
    assert plant.answers >= 500  # of 640 that the slots could have answered


def test_the_limit_is_never_below_one_nor_above_what_a_client_can() -> None:
    concurrency = Concurrency(start=2)
    for second in range(20):
        concurrency.refused(concurrency.limit, at_s=2.0 * second)
    assert concurrency.limit == 1
    concurrency = Concurrency()
    for second in range(60):
        concurrency.sampled(EngineSample(running=concurrency.limit, waiting=0), concurrency.limit, at_s=second)
    assert concurrency.limit == MOST


def test_too_little_work_is_no_reason_to_raise() -> None:
    concurrency = Concurrency()
    for second in range(60):
        concurrency.sampled(EngineSample(running=5, waiting=0), 5, at_s=second)
    assert concurrency.limit == UNKNOWN_SLOTS


def test_the_engine_is_looked_at_more_often_until_the_limit_is_found() -> None:
    concurrency = Concurrency()
    concurrency.sampled(EngineSample(running=0, waiting=0), 0, at_s=0.0)
    assert concurrency.look_again_s < 0.2
    for tenth in range(20):
        concurrency.sampled(EngineSample(running=16, waiting=2), 18, at_s=1.0 + tenth / 10)
    assert concurrency.look_again_s == 1.0
    concurrency.sampled(EngineSample(running=18, waiting=0), 18, at_s=4.0)  # it has more slots now
    assert concurrency.look_again_s < 0.2
    assert Concurrency(5).look_again_s == 1.0


def test_an_engine_that_does_not_say_what_waits_keeps_what_it_does_not_run_waiting() -> None:
    concurrency = Concurrency()
    concurrency.sampled(EngineSample(running=4), 20, at_s=1.0)
    assert concurrency.limit == 5

"""The points of a sweep, and when an open loop's requests are due."""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import Any

import pytest

from recipes.traffic import Traffic
from runners.workloads.load.points import due_times_s, points_of


def traffic(**settings: Any) -> Traffic:
    return Traffic.model_validate(settings)


def gaps(settings: Traffic) -> list[float]:
    times = due_times_s(settings, points_of(settings)[0])
    return [later - earlier for earlier, later in pairwise([0.0, *times])]


def test_a_sweep_has_a_point_for_each_value_by_its_name() -> None:
    closed, open_loop = points_of(traffic(concurrency=[1, 8])), points_of(traffic(rate=[0.5, 4]))
    assert [point.name for point in (*closed, *open_loop)] == ["concurrency=1", "concurrency=8", "rate=0.5", "rate=4"]


@pytest.mark.parametrize(
    ("settings", "requests"),
    [
        ({"concurrency": 1}, 100),
        ({"concurrency": 64}, 256),
        ({"concurrency": 64, "requests": 10}, 10),
        ({"concurrency": 64, "duration": 10.0}, None),
        ({"rate": 4}, 100),
        ({"rate": 4, "duration": 10.0}, 40),
        ({"rate": 4, "duration": 10.0, "requests": 30}, 30),
        ({"rate": 0.01, "duration": 10.0}, 1),
    ],
)
def test_how_many_requests_a_point_has(settings: dict[str, Any], requests: int | None) -> None:
    settings = {**settings, "duration": f"{settings['duration']}s"} if "duration" in settings else settings
    assert points_of(traffic(**settings))[0].arrivals == requests


@pytest.mark.parametrize("shape", [{}, {"arrivals": "gamma", "burstiness": 0.2}, {"arrivals": "constant"}], ids=str)
def test_so_many_requests_arrive_in_the_time_that_the_rate_says(shape: dict[str, Any]) -> None:
    settings = traffic(rate=20, requests=2000, **shape)
    times = due_times_s(settings, points_of(settings)[0])
    assert len(times) == 2000
    assert list(times) == sorted(times)
    assert times[0] >= 0
    assert times[-1] == pytest.approx(100, rel=0.02)
    assert times[-1] <= 100


@pytest.mark.parametrize(
    ("shape", "variation"),
    [({}, 1.0), ({"arrivals": "gamma", "burstiness": 0.25}, 2.0), ({"arrivals": "gamma", "burstiness": 16}, 0.25)],
    ids=str,
)
def test_gaps_are_spread_as_the_distribution_has_it(shape: dict[str, Any], variation: float) -> None:
    """A gamma distribution of shape k has the coefficient of variation 1/√k."""
    found = gaps(traffic(rate=10, requests=20_000, **shape))
    assert statistics.stdev(found) / statistics.mean(found) == pytest.approx(variation, rel=0.05)


def test_constant_arrivals_are_evenly_apart() -> None:
    assert gaps(traffic(rate=4, requests=5, arrivals="constant")) == [0, 0.25, 0.25, 0.25, 0.25]


def test_the_same_seed_gives_the_same_arrivals_and_another_others() -> None:
    one, same, other = (gaps(traffic(rate=3, requests=50, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_points_of_one_sweep_do_not_repeat_each_other() -> None:
    settings = traffic(rate=[2, 4], requests=50)
    slow, fast = (due_times_s(settings, point) for point in points_of(settings))
    assert [2 * time for time in fast] != pytest.approx(list(slow))

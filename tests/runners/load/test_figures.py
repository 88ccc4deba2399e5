"""What a load says of the engine: percentiles, saturation, goodput, and whether our own client was late."""

from __future__ import annotations

import heapq
import random
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recipes.traffic import Traffic
from runners.records import RequestRecord
from runners.workloads.load.figures import Setting, figures
from runners.workloads.load.points import Point, due_times_s, points_of

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


def setting(*, forced: bool = True, most_under_way: int = 1000, **traffic: Any) -> Setting:
    given = Traffic.model_validate(traffic)
    return Setting(given, points_of(given), forced, most_under_way)


def record(point: str, index: int, start_s: float, e2e_s: float, **more: Any) -> RequestRecord:
    given: dict[str, Any] = {
        "id": f"{point}/1/{index}",
        "document": point,
        "level": 1,
        "index": index,
        "status": "ok",
        "tries": 1,
        "started_at": START + timedelta(seconds=start_s),
        "prompt_tokens": 100,
        "output_tokens": 11,
        "ttft_s": e2e_s / 2,
        "tpot_s": e2e_s / 20,
        "itl_s": array("f", [e2e_s / 20] * 10),
        "e2e_s": e2e_s,
        "finish_reason": "length",
    }
    return RequestRecord(**{**given, **more})


def closed(concurrency: int, e2e_s: float, rounds: int = 5, begun_s: float = 0.0) -> Iterator[RequestRecord]:
    """A closed loop in which every request takes as long."""
    for number in range(concurrency * rounds):
        at = begun_s + number // concurrency * e2e_s
        yield record(f"concurrency={concurrency}", number, at, e2e_s)


def served(
    given: Setting, point: Point, slots: int, service_s: Callable[[], float], late_s: float = 0.0
) -> Iterator[RequestRecord]:
    """An open loop before a queue with so many servers (G/G/c), first come, first served."""
    free = [0.0] * slots
    for index, due in enumerate(due_times_s(given.traffic, point)):
        begun = max(due, heapq.heappop(free))
        ended = begun + service_s()
        heapq.heappush(free, ended)
        yield record(point.name, index, due + (late_s if index % 7 == 3 else 0.0), ended - due)


def only(found: dict[str, Any]) -> dict[str, Any]:
    (point,) = found["points"]
    return dict(point)


def test_a_point_by_hand() -> None:
    found = only(figures(setting(concurrency=2, requests=10), closed(2, 0.5)))
    assert found["requests"] == {"ok": 10, "failed": 0, "retried": 0, "truncated": 10, "asked": 10}
    assert (found["seconds"], found["requests_per_s"]) == (2.5, 4)
    assert (found["prompt_tokens_per_s"], found["output_tokens_per_s"]) == (400, 44)
    assert found["latency"]["ttft_s"] == {"mean": 0.25, "p50": 0.25, "p90": 0.25, "p95": 0.25, "p99": 0.25}
    assert found["latency"]["itl_s"]["p99"] == pytest.approx(0.025)
    assert found["under_way"] == {"mean": 2.0, "most": 2}
    assert found["arrivals"] is None
    assert found["client_lags"] is None


@pytest.mark.parametrize(
    ("traffic", "sent", "finished"),
    [
        ({"concurrency": 1, "requests": 10}, 10, True),
        ({"concurrency": 1, "requests": 10}, 9, False),
        ({"concurrency": 1, "duration": "9.5s"}, 10, True),
        ({"concurrency": 1, "duration": "20s"}, 10, False),
        ({"concurrency": 1, "duration": "20s", "requests": 10}, 10, True),
        ({"rate": 2, "duration": "5s"}, 10, True),
        ({"rate": 2, "duration": "5s"}, 9, False),
    ],
    ids=str,
)
def test_a_point_is_finished_when_all_was_sent(traffic: dict[str, Any], sent: int, finished: bool) -> None:
    name = setting(**traffic).points[0].name
    rows = [record(name, number, number, 1.0) for number in range(sent)]
    assert only(figures(setting(**traffic), rows))["finished"] is finished


def test_failed_requests_are_no_throughput_and_have_no_latency() -> None:
    rows = [record("concurrency=1", n, n, 1.0) for n in range(20)]
    rows.append(record("concurrency=1", 20, 20, 60.0, status="failed", error="HTTP 500: no", output_tokens=0))
    found = only(figures(setting(concurrency=1), rows))
    assert (found["requests"]["ok"], found["requests"]["failed"], found["error"]) == (20, 1, "HTTP 500: no")
    assert found["latency"]["e2e_s"]["p99"] == 1
    assert found["requests_per_s"] == 0.25
    assert found["saturated"] is None


def test_an_engine_that_refuses_requests_is_saturated() -> None:
    rows = [record("rate=4", n, n / 4, 1.0, status="failed" if n % 10 == 0 else "ok") for n in range(100)]
    assert only(figures(setting(rate=4), rows))["saturated"] == "10 of 100 requests failed"


def test_a_closed_loop_is_saturated_where_more_at_once_bring_no_more() -> None:
    rows = [*closed(1, 0.1), *closed(4, 0.12, begun_s=10), *closed(8, 0.24, begun_s=20), *closed(16, 0.48, begun_s=30)]
    found = figures(setting(concurrency=[1, 4, 8, 16]), rows)
    assert [point["saturated"] is not None for point in found["points"]] == [False, False, True, True]
    assert (found["knee"], found["saturated_at"]) == ("concurrency=4", "concurrency=8")
    assert (
        "8 at once instead of 4 change the requests/s by +0%, and each takes 2.0 × as long"
        in found["points"][2]["saturated"]
    )
    assert found["last"] == {"point": "concurrency=16", "why": "all points were measured", "skipped": 0}


@pytest.mark.parametrize(("e2e_s", "saturated"), [(0.1, False), (0.15, False), (0.19, True), (0.25, True)])
def test_a_little_more_is_not_yet_saturated(e2e_s: float, saturated: bool) -> None:
    found = figures(setting(concurrency=[4, 8]), [*closed(4, 0.1), *closed(8, e2e_s, begun_s=10)])
    assert (found["points"][1]["saturated"] is not None) == saturated


def test_one_point_alone_cannot_be_judged() -> None:
    assert only(figures(setting(concurrency=64), closed(64, 9.0)))["saturated"] is None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("load", "requests", "saturated"), [(0.3, 100, False), (0.6, 300, False), (1.3, 200, True), (2.0, 100, True)]
)
def test_an_open_loop_is_saturated_where_the_queue_grows(
    load: float,
    requests: int,
    saturated: bool,
    seed: int,
) -> None:
    """Eight servers and Poisson arrivals at a share of what they can do: only above 1 the queue grows without end."""
    rate, chance = load * 8, random.Random(seed)
    given = setting(rate=rate, requests=requests, seed=seed)
    rows = served(given, given.points[0], 8, lambda: chance.uniform(0.7, 1.3))
    assert (only(figures(given, rows))["saturated"] is not None) == saturated


def test_the_growth_of_a_queue_tells_what_the_engine_takes() -> None:
    given = setting(rate=20, requests=1000, arrivals="constant")
    said = only(figures(given, served(given, given.points[0], 8, lambda: 0.8)))["saturated"]
    assert "the engine takes about 50% of them" in said


def test_an_open_loop_beyond_what_the_client_goes_on_with_is_saturated() -> None:
    given = setting(rate=100, requests=60, most_under_way=50)
    rows = [record("rate=100", n, due, 30.0) for n, due in enumerate(due_times_s(given.traffic, given.points[0]))]
    assert "60 requests were under way" in only(figures(given, rows))["saturated"]


def test_requests_that_were_sent_late_are_told() -> None:
    given = setting(rate=10, requests=200)
    found = only(figures(given, served(given, given.points[0], 50, lambda: 0.1, late_s=0.3)))
    assert found["arrivals"]["lateness_s"]["p50"] == pytest.approx(0, abs=1e-5)
    assert found["arrivals"]["lateness_s"]["most"] == pytest.approx(0.3, abs=1e-5)
    assert "more than 300 ms after they were due" in found["client_lags"]
    punctual = only(figures(given, served(given, given.points[0], 50, lambda: 0.1)))
    assert punctual["client_lags"] is None
    assert punctual["arrivals"]["sent_per_s"] == pytest.approx(punctual["arrivals"]["due_per_s"])


def test_a_closed_loop_whose_places_stay_empty_is_told() -> None:
    rows = [record("concurrency=1", n, n, 0.5) for n in range(30)]
    assert "0.5 requests were under way on average, of 1" in only(figures(setting(concurrency=1), rows))["client_lags"]


def test_goodput_counts_what_met_every_limit_over_all_that_was_sent() -> None:
    rows = [record("concurrency=1", n, n, 1.0) for n in range(8)]
    rows[1] = record("concurrency=1", 1, 1, 1.0, ttft_s=0.7)
    rows[2] = record("concurrency=1", 2, 2, 1.0, tpot_s=0.2)
    rows[3] = record("concurrency=1", 3, 3, 1.0, itl_s=array("f", [0.01, 0.3]))
    rows[4] = record("concurrency=1", 4, 4, 1.0, status="failed")
    slo = {"ttft": "600ms", "tpot": "100ms", "itl": "200ms"}
    found = only(figures(setting(concurrency=1, slo=slo), rows))
    assert found["goodput"] == {"requests": 4, "share": 0.5, "requests_per_s": 0.5}
    assert only(figures(setting(concurrency=1, slo={"e2e": "1s"}), rows))["goodput"]["requests"] == 7
    assert only(figures(setting(concurrency=1), rows))["goodput"] is None


def test_the_best_goodput_need_not_be_the_highest_throughput() -> None:
    rows = [*closed(1, 0.2), *closed(4, 0.3, begun_s=10), *closed(8, 0.45, begun_s=20)]
    found = figures(setting(concurrency=[1, 4, 8], slo={"e2e": "400ms"}), rows)
    assert found["best_goodput"] == "concurrency=4"
    assert found["points"][2]["goodput"]["requests"] == 0


def test_why_a_point_was_the_last() -> None:
    rows = [*closed(4, 0.1), *closed(8, 0.2, begun_s=10)]
    stopped = figures(setting(concurrency=[4, 8, 16, 32], stop_at_saturation=True), rows)["last"]
    assert (stopped["point"], stopped["skipped"]) == ("concurrency=8", 2)
    assert stopped["why"].startswith("saturated: 8 at once instead of 4")
    broken_off = figures(setting(concurrency=[4, 8, 16, 32]), rows)["last"]
    assert broken_off["why"] == "the load was broken off"


def test_answers_shorter_than_asked_are_counted() -> None:
    rows = [record("concurrency=1", n, n, 1.0, finish_reason="stop" if n < 3 else "length") for n in range(10)]
    assert only(figures(setting(concurrency=1), rows))["short_answers"] == 3
    assert only(figures(setting(concurrency=1, forced=False), rows))["short_answers"] == 0


def test_nothing_measured_is_nothing_made_up() -> None:
    found = figures(setting(concurrency=1), [])
    assert (found["points"], found["knee"], found["last"], found["best_goodput"]) == ([], None, None, None)
    rows = [record("concurrency=1", 0, 0, 1.0, status="failed", output_tokens=0, prompt_tokens=0)]
    point = only(figures(setting(concurrency=1, slo={"ttft": "1s"}), rows))
    assert point["latency"]["ttft_s"]["p50"] is None
    assert point["goodput"]["share"] == 0

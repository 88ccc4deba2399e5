"""What a run cost and for what, worked out by hand; and that every sum is exact, whatever the figures."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.clock import USD_DIGITS, PhaseTime
from runners.costing import CAUSES, Electricity, Spent, Window, busy_spans, cost, phase_rows, shares, windows_before
from runners.records import RequestRecord

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def request(begin: float, end: float, **fields: Any) -> RequestRecord:
    """One request from `begin` to `end`, in seconds from START."""
    made: dict[str, Any] = {
        "id": f"a/1/{begin}",
        "document": "a",
        "level": 1,
        "index": 0,
        "status": "ok",
        "tries": 1,
        "prompt_tokens": 100,
        "output_tokens": 10,
        "finish_reason": "stop",
        "ttft_s": None,
    }
    return RequestRecord(**{**made, **fields}, started_at=after(begin), e2e_s=end - begin)


def phases(price: float | None, *timed: tuple[str, float, float]) -> tuple[PhaseTime, ...]:
    """Phases of so many seconds, one after the other, the last so many of each billed."""
    found, at = [], 0.0
    for name, seconds, billed in timed:
        usd = None if price is None else round(price * billed / 3600, USD_DIGITS)
        since = after(at + seconds - billed) if billed else None
        found.append(PhaseTime(name, after(at), seconds, billed, usd, since))
        at += seconds
    return tuple(found)


def spent(price: float | None, *timed: tuple[str, float, float], **more: Any) -> Spent:
    rate = None if price is None else price + more.get("storage_usd_per_h", 0.0)
    return Spent(phases=phases(rate, *timed), price_usd_per_h=price, **more)


def driven(price: float | None, seconds: float) -> Spent:
    return spent(price, ("drive", seconds, seconds))


WHOLE_RUN = (
    ("plan", 5, 0),
    ("provision", 60, 50),
    ("prepare", 100, 100),
    ("launch", 40, 40),
    ("drive", 600, 600),
    ("keep", 30, 30),
    ("collect", 3, 3),
    ("release", 7, 7),
)


def sums(found: dict[str, Any]) -> None:
    """What is useful and what is idle are all; the disks and the rest are all."""
    seconds = math.fsum([found["useful_seconds"], *found["idle_seconds"].values()])
    assert round(seconds, 3) == found["billed_seconds"]
    if found["total_usd"] is None:
        assert (found["useful_usd"], found["idle_usd"]) == (None, None)
        return
    assert round(math.fsum([found["useful_usd"], *found["idle_usd"].values()]), USD_DIGITS) == found["total_usd"]
    assert round(found["compute_usd"] + found["storage_usd"], USD_DIGITS) == found["total_usd"]


@pytest.mark.parametrize(
    ("intervals", "spans"),
    [
        ([], []),
        ([(0, 2)], [(0, 2)]),
        ([(0, 2), (1, 3)], [(0, 3)]),
        ([(0, 10), (2, 3), (4, 5)], [(0, 10)]),
        ([(5, 7), (0, 1)], [(0, 1), (5, 7)]),
        ([(0, 10), (2, 3), (9, 12), (20, 21)], [(0, 12), (20, 21)]),
        ([(0, 1), (1, 2)], [(0, 2)]),
        ([(3, 3)], [(3, 3)]),
    ],
)
def test_when_requests_were_under_way(intervals: list[tuple[float, float]], spans: list[tuple[float, float]]) -> None:
    begun = round(START.timestamp() * 1_000_000)
    found = busy_spans(request(begin, end) for begin, end in intervals)
    assert [((a - begun) / 1_000_000, (b - begun) / 1_000_000) for a, b in found] == spans


def test_cost_with_a_price() -> None:
    records = [request(0, 60, prompt_tokens=3_000_000, output_tokens=100_000), request(30, 90, output_tokens=0)]
    found = cost(driven(3.6, 100), records, documents_done=4)
    assert (found["price_usd_per_h"], found["billed_seconds"], found["priced_by"]) == (3.6, 100, "hour")
    assert found["total_usd"] == pytest.approx(0.1)
    assert found["usd_per_million_prompt_tokens"] == pytest.approx(0.1 / 3.0001, rel=1e-5)
    assert found["usd_per_million_output_tokens"] == pytest.approx(1)
    assert found["usd_per_million_tokens"] == pytest.approx(0.1 / 3.1001, rel=1e-5)
    assert found["usd_per_document"] == pytest.approx(0.025)
    assert found["useful_fraction"] == 0.9


def test_each_idle_second_has_its_cause() -> None:
    found = cost(spent(3.6, *WHOLE_RUN), [request(215, 500), request(400, 700)], documents_done=1)
    assert found["useful_seconds"] == 485
    assert found["idle_seconds"] == {
        "boot": 50,
        "download": 100,
        "load": 40,
        "waiting": 115,
        "letting_go": 10,
        "kept": 30,
    }
    assert found["idle_usd"] == {cause: pytest.approx(s / 1000) for cause, s in found["idle_seconds"].items()}
    assert found["useful_usd"] == pytest.approx(0.485)
    assert found["total_usd"] == pytest.approx(0.83)
    sums(found)


def test_what_a_driver_asked_before_the_client_saw_it_is_useful_where_it_was() -> None:
    found = cost(spent(3.6, *WHOLE_RUN), [request(195, 215)], documents_done=0)
    assert (found["useful_seconds"], found["idle_seconds"]["load"], found["idle_seconds"]["waiting"]) == (20, 30, 590)


def test_the_disks_are_a_part_of_it() -> None:
    run = spent(3.0, *WHOLE_RUN, storage_usd_per_h=0.6)
    found = cost(run, [], documents_done=0)
    assert found["total_usd"] == pytest.approx(0.83)
    assert found["storage_usd"] == pytest.approx(0.83 / 6)
    assert found["compute_usd"] == pytest.approx(0.83 * 5 / 6)
    sums(found)


def test_cost_without_a_price_is_unknown_and_not_nothing() -> None:
    found = cost(driven(None, 100), [request(0, 50)], documents_done=1)
    assert {name for name, value in found.items() if value is None} == {
        "price_usd_per_h",
        "priced_by",
        "total_usd",
        "compute_usd",
        "storage_usd",
        "useful_usd",
        "idle_usd",
        "forecast_usd",
        "usd_per_million_prompt_tokens",
        "usd_per_million_output_tokens",
        "usd_per_million_tokens",
        "usd_per_document",
        "energy",
    }
    assert (found["billed_seconds"], found["useful_fraction"]) == (100, 0.5)
    assert [row["usd"] for row in phase_rows(driven(None, 100))] == [None]
    sums(found)


def test_a_machine_that_costs_nothing_costs_nothing() -> None:
    found = cost(driven(0.0, 100), [request(0, 50)], documents_done=1)
    assert (found["total_usd"], found["usd_per_document"], found["useful_usd"]) == (0, 0, 0)


def test_cost_of_a_run_that_did_nothing() -> None:
    found = cost(driven(3.6, 10), [], documents_done=0)
    assert found["total_usd"] == pytest.approx(0.01)
    assert (found["usd_per_document"], found["usd_per_million_output_tokens"]) == (None, None)
    assert found["useful_fraction"] == 0
    nothing = cost(spent(3.6, ("plan", 3, 0)), [], documents_done=0)
    assert (nothing["useful_fraction"], nothing["total_usd"], nothing["billed_seconds"]) == (0, 0, 0)


def test_small_sums_keep_their_digits() -> None:
    assert cost(driven(0.01, 1.0), [], documents_done=1)["total_usd"] == pytest.approx(2.7778e-6)


def electricity(kwh: float | None = 0.30, **more: Any) -> Electricity:
    row = {"gpu_wh": 900.0, "cpu_wh": 100.0, "total_wh": 1000.0, "covered_seconds": 830.0, "source": "counter"}
    return Electricity(row={**row, **more}, price_usd_per_kwh=kwh, wh_by_phase=(0, 10, 20, 30, 900, 30, 5, 5))


def test_of_a_machine_with_a_price_the_electricity_is_told_and_not_added() -> None:
    with_it = cost(spent(3.6, *WHOLE_RUN, electricity=electricity()), [], 1)
    without = cost(spent(3.6, *WHOLE_RUN), [], 1)
    assert with_it["energy"]["usd"] == pytest.approx(0.30)
    assert {**with_it, "energy": None} == without


def test_of_a_machine_without_a_price_the_electricity_is_what_it_costs() -> None:
    run = spent(None, *WHOLE_RUN, electricity=electricity())
    found = cost(run, [request(205, 805)], documents_done=2)
    assert (found["total_usd"], found["priced_by"], found["storage_usd"]) == (pytest.approx(0.30), "energy", 0)
    assert found["usd_per_document"] == pytest.approx(0.15)
    assert [row["usd"] for row in phase_rows(run)] == pytest.approx(
        [0, 0.003, 0.006, 0.009, 0.27, 0.009, 0.0015, 0.0015]
    )
    assert found["useful_usd"] == pytest.approx(0.27)
    sums(found)


def test_power_without_a_tariff_is_no_cost() -> None:
    found = cost(spent(None, *WHOLE_RUN, electricity=electricity(None)), [], 1)
    assert (found["total_usd"], found["energy"]["total_wh"], found["energy"]["usd"]) == (None, 1000, None)


def event(at: float, event: str, **more: Any) -> dict[str, Any]:
    return {"at": after(at).isoformat(timespec="milliseconds"), "event": event, **more}


EARLIER = [
    event(-3, "run-started"),
    event(-1, "phase-started", phase="provision"),
    event(20, "phase-ended", phase="provision"),
    event(20, "phase-started", phase="prepare"),
    event(50, "phase-ended", phase="prepare"),
    event(50, "phase-started", phase="launch"),
    event(60, "noted", phase="launch", message="through ssh -L"),
    event(70, "phase-ended", phase="launch"),
    event(71, "phase-started", phase="drive"),
    event(200, "run-started"),
    event(200.5, "phase-ended", phase="before"),
    event(201, "phase-started", phase="provision"),
]


def test_what_went_before_is_told_by_what_the_earlier_client_wrote_down() -> None:
    windows = windows_before(EARLIER, after(200))
    assert [(w.phase, (w.begin - START).total_seconds(), (w.end - START).total_seconds()) for w in windows] == [
        ("provision", -1, 20),
        ("prepare", 20, 50),
        ("launch", 50, 70),
        ("drive", 71, 200),
    ]
    run = spent(3.6, ("before", 200, 200), ("drive", 100, 100), before=windows)
    found = cost(run, [request(80, 150), request(200, 290)], documents_done=1)
    assert found["useful_seconds"] == 160
    assert found["idle_seconds"] == {"boot": 20, "download": 30, "load": 20, "waiting": 70, "letting_go": 0, "kept": 0}
    sums(found)


def test_of_an_earlier_client_that_wrote_nothing_it_is_waiting() -> None:
    assert windows_before([], after(200)) == []
    found = cost(spent(3.6, ("before", 200, 200)), [request(0, 50)], 1)
    assert (found["useful_seconds"], found["idle_seconds"]["waiting"]) == (50, 150)


SECONDS = st.integers(0, 5_000_000).map(lambda ms: ms / 1000)
NAMES = [name for name, _, _ in WHOLE_RUN]


@given(
    price=st.one_of(st.none(), st.floats(0, 100)),
    storage=st.floats(0, 2),
    lasted=st.lists(st.tuples(SECONDS, st.floats(0, 1)), min_size=8, max_size=8),
    asked=st.lists(st.tuples(st.integers(-1000, 9_000_000), st.integers(0, 3_000_000)), max_size=12),
    before=st.lists(SECONDS, max_size=6),
    kwh=st.one_of(st.none(), st.floats(0, 2)),
)
def test_every_sum_is_exact(
    price: float | None,
    storage: float,
    lasted: list[tuple[float, float]],
    asked: list[tuple[int, int]],
    before: list[float],
    kwh: float | None,
) -> None:
    timed = [(name, s, round(s * share, 3)) for name, (s, share) in zip(["before", *NAMES[1:]], lasted, strict=True)]
    marks = sorted(before)
    windows = [Window("prepare", after(a), after(b)) for a, b in zip(marks[::2], marks[1::2], strict=False)]
    more = {"electricity": electricity(kwh)} if kwh is not None else {}
    run = spent(price, *timed, storage_usd_per_h=storage, before=windows, **more)
    found = cost(run, [request(a / 1000, (a + b) / 1000) for a, b in asked], 1)
    sums(found)
    rows = phase_rows(run)
    if found["total_usd"] is not None:
        assert round(math.fsum(row["usd"] for row in rows), USD_DIGITS) == found["total_usd"]
    assert 0 <= found["useful_fraction"] <= 1
    assert all(seconds >= 0 for seconds in found["idle_seconds"].values())
    assert set(found["idle_seconds"]) == set(CAUSES)


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**9), min_size=1, max_size=9))
def test_shares_leave_no_rest(total: int, weights: list[int]) -> None:
    found = shares(total, weights)
    assert sum(found) == total
    if whole := sum(weights):
        for part, weight in zip(found, weights, strict=True):
            assert part == pytest.approx(total * weight / whole, abs=1 + total * 1e-12)

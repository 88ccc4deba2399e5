"""What a run's result keeps for later forecasts, and how far its own was off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recipes.ranges import Range
from recipes.spec import Workload
from runners.clock import PhaseTime
from runners.forecast.history import past_run
from runners.forecast.measured import accuracy, compared, work_row
from runners.forecast.values import Forecast, PhaseForecast
from runners.records import RequestRecord
from tests.runners.forecast.pasts import result

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SETTINGS = Workload(inputs=("a.txt",), concurrency=4, max_tokens=90)


def record(number: int, *, level: int = 1, **changes: Any) -> RequestRecord:
    fields: dict[str, Any] = {
        "id": f"a/{level}/{number}",
        "document": "a",
        "level": level,
        "index": number,
        "status": "ok",
        "tries": 1,
        "started_at": START + timedelta(seconds=number),
        "prompt_tokens": 300,
        "output_tokens": 30,
        "cached_tokens": 10,
        "ttft_s": 0.5,
        "e2e_s": 2.0,
    }
    return RequestRecord(**{**fields, **changes})


def test_the_work_is_kept_by_level() -> None:
    records = [*map(record, range(3)), record(5, level=2, output_tokens=60, e2e_s=4.0, finish_reason="length")]
    row = work_row([*records, record(9, status="failed")], SETTINGS)
    assert row is not None
    assert (row["concurrency"], row["max_tokens"], row["truncated"]) == (4, 90, 1)
    assert row["seconds"] == pytest.approx(9.0), "from the first request to the last answer"
    assert (row["ttft_s"], row["e2e_s"], row["output_tokens"]) == (0.5, 2.5, 37.5)
    assert row["output_spread"] == pytest.approx(13 / 37.5, rel=0.01)
    assert [(one["level"], one["requests"], one["prompt_tokens"]) for one in row["levels"]] == [
        (1, 3, 900),
        (2, 1, 300),
    ]
    assert row["levels"][0]["cached_prompt_tokens"] == 30


def test_what_a_result_keeps_is_understood_by_the_history() -> None:
    found = past_run(result(work=work_row(list(map(record, range(3))), SETTINGS)))
    assert found is not None
    assert found.drive is not None
    assert (found.drive.answer_tokens, found.drive.requests, found.drive.concurrency) == (30, 3, 4)


def test_an_endpoint_that_does_not_stream_has_no_time_to_first_token() -> None:
    row = work_row([record(0), record(1, ttft_s=None)], SETTINGS)
    assert row is not None
    assert row["ttft_s"] is None


def test_nothing_answered_is_nothing_kept() -> None:
    assert work_row([record(0, status="failed")], SETTINGS) is None


def forecast(**phases: tuple[float, float, float]) -> Forecast:
    return Forecast(
        phases=tuple(
            PhaseForecast(name=name, seconds=Range(*seconds), usd=Range(*seconds).times(0.01), basis="said")
            for name, seconds in phases.items()
        ),
        prompt_tokens=Range(0, 0, 0),
        output_tokens=Range(0, 0, 0),
        requests=Range(0, 0, 0),
    )


def took(**seconds: float) -> list[PhaseTime]:
    return [PhaseTime(name, START, length, length, length * 0.01) for name, length in seconds.items()]


def test_the_error_is_what_it_took_over_what_was_likely() -> None:
    row = compared(forecast(launch=(5, 10, 20), drive=(50, 100, 200)), took(plan=500, launch=20, drive=90))
    assert [(phase["name"], phase["error"]) for phase in row["phases"]] == [("launch", 1.0), ("drive", -0.1)]
    assert row["took"] == {"seconds": 110, "usd": pytest.approx(1.1)}
    assert row["error"] == {"seconds": 0.0, "usd": pytest.approx(0.0, abs=1e-9), "within": True}


def test_outside_the_range_is_told() -> None:
    assert compared(forecast(drive=(50, 100, 200)), took(drive=201))["error"]["within"] is False


def test_accuracy_is_the_median_without_sign() -> None:
    rows = [compared(forecast(drive=(50, 100, 200)), took(drive=seconds)) for seconds in (80, 110, 300)]
    found = accuracy(rows)
    assert found["median_error"]["seconds"] == pytest.approx(0.2)
    assert found["median_error_of_phases"] == {"drive": pytest.approx(0.2)}
    assert (found["runs"], found["within"]) == (3, pytest.approx(2 / 3))


def test_accuracy_of_nothing() -> None:
    assert accuracy([]) == {
        "runs": 0,
        "median_error": {"seconds": None, "usd": None},
        "median_error_of_phases": {},
        "within": None,
    }

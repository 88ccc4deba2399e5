"""The forecast against the recipe's limits."""

from __future__ import annotations

from typing import Any

import pytest

from provisioners.contract import Finding
from recipes.ranges import Range
from recipes.spec import Limits
from runners.forecast.budget import budget_findings
from runners.forecast.values import Forecast, PhaseForecast


def forecast(seconds: Range, usd: Range | None) -> Forecast:
    nothing = Range(0, 0, 0)
    phase = PhaseForecast(name="drive", seconds=seconds, usd=usd, basis="said")
    return Forecast(phases=(phase,), prompt_tokens=nothing, output_tokens=nothing, requests=nothing)


HOURS = Range(1800, 3600, 7200)
DOLLARS = Range(2.0, 4.0, 8.0)


def found(seconds: Range = HOURS, usd: Range | None = DOLLARS, **limits: Any) -> list[Finding]:
    return list(budget_findings(forecast(seconds, usd), Limits(**limits)))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, []),
        ({"max_cost": 8}, []),
        ({"max_cost": 7.99}, [("budget", "warn")]),
        ({"max_cost": 4}, [("budget", "warn")]),
        ({"max_cost": 3.99}, [("budget", "block")]),
        ({"max_cost": 0}, [("budget", "block")]),
        ({"max_duration": "2h"}, []),
        ({"max_duration": "119m"}, [("duration", "warn")]),
        ({"max_duration": "59m"}, [("duration", "warn")]),
        ({"max_cost": 5, "max_duration": "30m"}, [("budget", "warn"), ("duration", "warn")]),
    ],
)
def test_above_the_likely_value_is_a_block_and_above_the_high_one_a_warning(
    limits: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert [(one.code, one.level) for one in found(**limits)] == expected


def test_the_numbers_and_what_would_work_are_told() -> None:
    (cost,) = found(max_cost=3)
    assert (
        cost.message
        == "the run is likely to cost $4.00 ($2.00 to $8.00), and would be stopped at limits.max_cost $3.00"
    )
    assert "at least $8.00" in cost.suggestion
    assert cost.numbers == {"low_usd": 2, "likely_usd": 4, "high_usd": 8, "max_cost_usd": 3}
    assert cost.path == "limits.max_cost"
    (time,) = found(max_duration="90m")
    assert time.message == "the run may take up to 2h; it is stopped at limits.max_duration 1h30m"
    assert "at least 2h" in time.suggestion


@pytest.mark.parametrize("usd", [Range(0.000011, 0.00002, 0.000123), Range(1, 2, 3.14159), Range(100, 200, 1234.5)])
def test_what_is_advised_is_enough(usd: Range) -> None:
    (cost,) = found(usd=usd, max_cost=usd.low)
    advised = float(cost.suggestion.split("at least $")[1].split(",  ")[0].split(", or")[0].replace(",", ""))
    assert not found(usd=usd, max_cost=advised)


def test_a_guess_refuses_nothing_unless_even_its_low_end_is_too_much() -> None:
    guess = Range(0.1, 4.0, 40.0)
    assert [one.level for one in found(usd=guess, max_cost=3)] == ["warn"]
    assert [one.level for one in found(usd=guess, max_cost=0.05)] == ["block"]


def test_without_a_price_money_is_not_judged() -> None:
    assert not found(usd=None, max_cost=0)


def test_what_is_free_keeps_every_budget() -> None:
    assert not found(usd=Range(0, 0, 0), max_cost=0)

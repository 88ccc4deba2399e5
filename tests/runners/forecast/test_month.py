"""A month's budget: what is refused, what is warned of, and what is told."""

from __future__ import annotations

from typing import Any

import pytest

from provisioners.contract import Finding
from recipes.ranges import Range
from recipes.spec import Limits
from runners.forecast.month import MonthBudget, budget_warnings, month_findings
from runners.spending import Spent

SPENT = Spent(
    month="2026-11", ended_usd=0.0, going_usd=0.0, unminded_usd=0.0, going=0, unminded=0, next_month="2026-12-01"
)
RUN = Range(1.0, 2.0, 5.0)


def budget(limit_usd: float = 100.0, *, times: int = 1, **spent: Any) -> MonthBudget:
    values = {name: getattr(SPENT, name) for name in SPENT.__dataclass_fields__} | spent
    return MonthBudget(limit_usd=limit_usd, spent=Spent(**values), times=times)


def found(of: MonthBudget, usd: Range | None = RUN, *, billable: bool = True, **limits: Any) -> Finding | None:
    findings = list(month_findings(of, usd, Limits(**limits), billable=billable))
    assert len(findings) <= 1
    return findings[0] if findings else None


@pytest.mark.parametrize(
    ("spent_usd", "level"),
    [(0.0, None), (77.9, None), (78.1, "warn"), (94.9, "warn"), (95.1, "warn"), (98.0, "warn"), (98.1, "block")],
)
def test_from_four_fifths_on_it_warns_and_above_it_refuses(spent_usd: float, level: str | None) -> None:
    finding = found(budget(ended_usd=spent_usd))
    assert (finding.level if finding else None) == level
    assert finding is None or finding.code == "budget-month"


def test_only_warnings_about_the_budget_are_said_again() -> None:
    findings = [found(budget(limit)) for limit in (6.0, 2.2, 1.0)]
    other = Finding(level="warn", code="ram", message="nearly full")
    assert len(budget_warnings([other, *filter(None, findings)])) == 1


def test_what_goes_on_and_what_nobody_minds_is_spoken_for_as_well() -> None:
    finding = found(budget(ended_usd=90, going_usd=6.0, going=2, unminded_usd=3.5, unminded=1))
    assert finding is not None
    assert finding.level == "block"
    assert finding.message == (
        "$90.00 spent + $6.00 for 2 runs going on + $3.50 for machines without a living run + "
        "$2.00 likely for this run ($1.00 to $5.00): $101.50 would be above the budget of 2026-11, $100.00"
    )
    assert finding.suggestion == (
        "end 1 machine that may be billing: recipe reap --yes, or raise --budget-month to at least $104.50, "
        "or wait until 2026-12-01 UTC; recipe runs --by day --since 2026-11-01 shows where it went"
    )
    assert finding.numbers["likely_usd"] == 2.0


def test_the_runs_of_one_command_count_together() -> None:
    of = budget(5.0)
    for _ in range(2):
        first = found(of)
        assert first is None or first.level == "warn"
        of = of.after(RUN, Limits())
    third = found(of)
    assert third is not None
    assert third.level == "block"
    assert "$4.00 for the runs before this one" in third.message


def test_a_recipe_that_is_run_again_and_again_costs_so_many_times() -> None:
    finding = found(budget(5.0, times=3))
    assert finding is not None
    assert finding.level == "block"
    assert "$6.00 likely for 3 runs of this recipe" in finding.message


def test_a_run_costs_at_most_what_it_is_stopped_at() -> None:
    assert found(budget(10.0), Range(1, 20, 90), max_cost=3.0) is None


def test_a_run_that_costs_nothing_crosses_nothing() -> None:
    assert found(budget(1.0, ended_usd=50), Range(0, 0, 0)) is None
    assert found(budget(1.0, ended_usd=50), None, billable=False) is None


def test_a_run_of_unknown_cost_is_refused_when_all_is_spent() -> None:
    finding = found(budget(50.0, ended_usd=50), None)
    assert finding is not None
    assert (finding.level, "an unknown cost for this run" in finding.message) == ("block", True)
    assert found(budget(50.0, ended_usd=10), None) is None


def test_a_budget_of_nothing_refuses_all_that_costs() -> None:
    finding = found(budget(0.0))
    assert finding is not None
    assert finding.level == "block"

"""The forecast against what a team wants to spend in a calendar month: a run that would cross it is not begun."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from provisioners.contract import Finding
from recipes.ranges import Range
from recipes.spec import Limits
from runners.spending import Spent
from runners.terminal.words import dollars, plural

_NOTHING = Range(0, 0, 0)
CODE = "budget-month"
_NEARLY = 0.8
"""From this share of the budget on a run is warned of."""


@dataclass(frozen=True, kw_only=True)
class MonthBudget:
    """What may be spent in a month, and what of it is spoken for."""

    limit_usd: float
    spent: Spent
    ahead: Range = _NOTHING
    """What the runs cost that the same command begins before."""
    times: int = 1
    """How often the command runs each recipe."""

    def after(self, usd: Range | None, limits: Limits) -> MonthBudget:
        """What is left to judge the next run of the command by."""
        return replace(self, ahead=self.ahead + self.cost(usd, limits)) if usd else self

    def cost(self, usd: Range, limits: Limits) -> Range:
        """Of all times that a recipe is run; each is stopped at its limits.max_cost."""
        most = math.inf if limits.max_cost is None else limits.max_cost
        return Range(min(usd.low, most), min(usd.likely, most), min(usd.high, most)).times(self.times)


def month_findings(budget: MonthBudget, usd: Range | None, limits: Limits, *, billable: bool) -> Iterator[Finding]:
    """A block if the likely cost (`usd`, None if it is unknown) crosses the budget; a warning if the high one does.

    And a warning from four fifths of the budget on. A run that costs nothing crosses nothing.
    """
    if usd is None and not billable:
        return
    run = budget.cost(usd or _NOTHING, limits)
    if usd is not None and run.high <= 0:
        return
    spoken = budget.spent.usd
    together = budget.ahead + run
    likely, high = spoken + together.likely, spoken + together.high
    limit = f"the budget of {budget.spent.month}, {dollars(budget.limit_usd)}"
    if likely > budget.limit_usd or (usd is None and spoken >= budget.limit_usd):
        level, message = "block", f"{_told(budget, usd and run)}: {dollars(likely)} would be above {limit}"
    elif high > budget.limit_usd:
        level, message = "warn", f"{_told(budget, usd and run)}: up to {dollars(high)} might be above {limit}"
    elif likely >= _NEARLY * budget.limit_usd:
        share = likely / budget.limit_usd
        level, message = "warn", f"{_told(budget, usd and run)}: {dollars(likely)} is {share:.0%} of {limit}"
    else:
        return
    yield Finding(
        level=level,  # type: ignore[arg-type]
        code=CODE,
        message=message,
        suggestion=_way_out(budget, high) if level == "block" else "",
        numbers={
            "budget_usd": budget.limit_usd,
            "spent_usd": round(budget.spent.ended_usd, 6),
            "going_usd": round(budget.spent.going_usd, 6),
            "unminded_usd": round(budget.spent.unminded_usd, 6),
            "ahead_usd": round(budget.ahead.likely, 6),
            **({"low_usd": run.low, "likely_usd": run.likely, "high_usd": run.high} if usd else {}),
        },
    )


def budget_warnings(findings: Iterable[Finding]) -> list[str]:
    """What is to be said before the money is spent."""
    return [finding.message for finding in findings if finding.code == CODE and finding.level == "warn"]


def _told(budget: MonthBudget, run: Range | None) -> str:
    """What has been spent, what is under way, and what is to come."""
    spent = budget.spent
    parts = [f"{dollars(spent.ended_usd)} spent"]
    if spent.going:
        parts.append(f"{dollars(spent.going_usd)} for {plural(spent.going, 'run')} going on")
    if spent.unminded_usd:
        parts.append(f"{dollars(spent.unminded_usd)} for machines without a living run")
    if budget.ahead.likely:
        parts.append(f"{dollars(budget.ahead.likely)} for the runs before this one")
    this = "this run" if budget.times == 1 else f"{budget.times} runs of this recipe"
    if run is None:
        parts.append(f"an unknown cost for {this}")
    else:
        parts.append(f"{dollars(run.likely)} likely for {this} ({dollars(run.low)} to {dollars(run.high)})")
    return " + ".join(parts)


def _way_out(budget: MonthBudget, high: float) -> str:
    ways = []
    if budget.spent.unminded:
        ways.append(f"end {plural(budget.spent.unminded, 'machine')} that may be billing: recipe reap --yes")
    ways.append(f"raise --budget-month to at least {dollars(math.ceil(high * 100) / 100)}")
    ways.append(f"wait until {budget.spent.next_month} UTC")
    return f"{', or '.join(ways)}; recipe runs --by day --since {budget.spent.month}-01 shows where it went"

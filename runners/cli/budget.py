"""--budget-month, for the commands that plan: what may be spent in a calendar month."""

from __future__ import annotations

import argparse
import math
import os
from datetime import UTC, datetime
from pathlib import Path

from recipes.errors import UsageError
from runners.forecast.month import MonthBudget
from runners.ledger import Ledger
from runners.spending import nothing_spent, spent_in_month

VARIABLE = "RECIPE_BUDGET_MONTH"


def add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget-month",
        metavar="USD",
        help="refuse a run that would bring the calendar month (UTC) above so much, by the log of this machine and "
        f"the forecast; warn from 80 %% on (default: {VARIABLE} of the environment)",
    )


def budget_usd(options: argparse.Namespace) -> float | None:
    """What may be spent; None if nobody has said. Raises UsageError for what is no sum of money."""
    name, text = ("--budget-month", options.budget_month)
    if text is None:
        name, text = VARIABLE, os.environ.get(VARIABLE) or None
    if text is None:
        return None
    try:
        usd = float(text.strip().removeprefix("$"))
    except ValueError:
        usd = math.nan
    if not 0 <= usd < math.inf:
        raise UsageError(f"{name} {text}: not a sum of money", advice=f"write {name}{_between(name)}400")
    return usd


def month_budget(usd: float | None, home: Path, *, times: int = 1) -> MonthBudget | None:
    """The budget with what this month has cost up to now; nothing is made where nothing has run.

    `times`: how often each recipe is going to be run.
    """
    if usd is None:
        return None
    now = datetime.now(UTC)
    spent = spent_in_month(Ledger(home), now) if (home / "ledger.db").is_file() else nothing_spent(now)
    return MonthBudget(limit_usd=usd, spent=spent, times=times)


def _between(name: str) -> str:
    return " " if name.startswith("--") else "="

"""What is said of several runs: what they may cost together, and how to compare them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from recipes.load import LoadedRecipe
from runners.plan import Plan
from runners.terminal.words import dollars, plural


def money_line(plans: Sequence[Plan], loaded: Sequence[LoadedRecipe], repeat: int) -> str:
    """How many runs these are, each recipe so many times, and what they cost by the forecast, if all were planned."""
    runs = plural(len(loaded) * repeat, "run")
    each = "each recipe" if len(loaded) > 1 else "the recipe"
    expected = [plan.forecast.total_usd.likely for plan in plans if plan.forecast and plan.forecast.total_usd]
    expected_usd = repeat * math.fsum(expected) if len(expected) == len(loaded) else 0.0
    cost = f", about {dollars(expected_usd)} in all" if expected_usd else ""
    ceilings = [one.recipe.limits.max_cost for one in loaded]
    limits = [ceiling for ceiling in ceilings if ceiling is not None]
    total = f", so {dollars(repeat * math.fsum(limits))} at most" if len(limits) == len(ceilings) else ""
    limit = f"; max_cost holds for each run{total}" if limits else ""
    return f"{runs}, {each} {repeat} times{cost}{limit}"


def carrying(document: dict[str, Any], repeat: int, budget_usd: float | None) -> dict[str, Any]:
    """A plan's document whose command goes on as this one does: as often, and within the same budget."""
    again = [] if repeat == 1 else ["--repeat", str(repeat)]
    within = [] if budget_usd is None else ["--budget-month", f"{budget_usd:.10g}"]
    return {**document, "command": " ".join([document["command"], *again, *within])}


def compare_lines(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The command that compares these runs; nothing where fewer than two were completed."""
    from runners.comparing.groups import base_of

    completed = [result for result in results if result["outcome"]["status"] == "completed"]
    if len(completed) > 1:
        names = dict.fromkeys(base_of(result["recipe"], result["variant"]) for result in completed)
        yield ""
        yield f"compare      {shlex.join(['recipe', 'compare', *names])}"

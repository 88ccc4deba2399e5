"""Offers, checks, forecast and the exact steps of a run. Changes nothing and costs nothing.

Several recipes, or a matrix, are shown as a table. A check can be let pass (--force) and explained (--explain).
"""

from __future__ import annotations

import argparse
import asyncio

from provisioners.site import recipe_home
from runners.cli.budget import add_budget, budget_usd, month_budget
from runners.cli.common import (
    add_force,
    add_json,
    add_recipes,
    complete_codes,
    forced_codes,
    load_recipes,
    positive,
)
from runners.cli.planning import plan_all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipes(parser)
    add_force(parser)
    argument = parser.add_argument(
        "--explain",
        action="append",
        default=[],
        metavar="CODE",
        help="the formula, the figures and the sources of a check, of memory or of forecast",
    )
    argument.completer = complete_codes  # type: ignore[attr-defined]
    parser.add_argument(
        "--repeat", type=positive, default=1, metavar="N", help="as recipe up --repeat: each recipe is run N times"
    )
    add_budget(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    loaded = load_recipes(options)
    budget = month_budget(budget_usd(options), recipe_home(), times=options.repeat)
    planned = plan_all(
        loaded,
        as_json=options.json,
        forced=forced_codes(options),
        explained=options.explain,
        budget=budget,
        repeat=options.repeat,
    )
    return asyncio.run(planned)

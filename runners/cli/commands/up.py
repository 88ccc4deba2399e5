"""Plan, refuse or run, collect, and let the machine go: always."""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from provisioners.site import recipe_home
from recipes.errors import UsageError
from recipes.fields import TAG
from recipes.load import LoadedRecipe
from runners.cli.budget import add_budget, budget_usd, month_budget
from runners.cli.common import (
    add_force,
    add_json,
    add_metrics_port,
    add_recipes,
    forced_codes,
    load_recipes,
    positive,
    watched,
)
from runners.cli.running import Runs
from runners.http.loop import run as run_in_loop

if TYPE_CHECKING:
    from runners.cli.detach import Detachment
    from runners.events import Listener
    from runners.live import LiveRun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipes(parser)
    add_force(parser)
    add_json(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="stop after the plan; the same as recipe plan")
    how.add_argument(
        "--detach", action="store_true", help="return when the run has begun; it goes on in the background"
    )
    parser.add_argument(
        "--parallel",
        type=positive,
        default=20,
        metavar="N",
        help="so many runs at once where each has a machine of its own (default: 20)",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="ask anew for what an unfinished run of the recipe has answers to"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep machine and engine after the work, for recipe chat; Ctrl-C lets go"
    )
    parser.add_argument(
        "--repeat",
        type=positive,
        default=1,
        metavar="N",
        help="run each recipe N times, in turn, none from another's answers; 5 tell a difference from noise",
    )
    parser.add_argument("--max-cost", type=float, metavar="USD", help="sets limits.max_cost")
    add_budget(parser)
    parser.add_argument(
        "--tag", action="append", default=[], metavar="TAG", help="add it to the recipe's tags; may be repeated"
    )
    add_metrics_port(parser)


def run(options: argparse.Namespace) -> int:
    if options.max_cost is not None and not options.max_cost >= 0:
        raise UsageError(f"--max-cost {options.max_cost}: not a sum of money", advice="write --max-cost 10")
    extra = [] if options.max_cost is None else [f"limits.max_cost={options.max_cost}"]
    budget = budget_usd(options)
    loaded = tagged(load_recipes(options, extra), options.tag)
    if options.dry_run:
        from runners.cli.planning import plan_all

        return asyncio.run(
            plan_all(
                loaded,
                as_json=options.json,
                forced=forced_codes(options),
                budget=month_budget(budget, recipe_home(), times=options.repeat),
                repeat=options.repeat,
            )
        )
    count = len(loaded) * options.repeat
    if options.keep and count > 1:
        raise UsageError(f"--keep holds one machine, and these are {count} runs", advice="run them one by one")
    if options.detach:
        from runners.cli.detach import detached

        return detached(lambda detachment: _run(options, loaded, detachment), as_json=options.json)
    return _run(options, loaded)


def tagged(loaded: tuple[LoadedRecipe, ...], tags: Sequence[str]) -> tuple[LoadedRecipe, ...]:
    """The recipes with these tags besides their own. Raises UsageError for what is none."""
    for tag in tags:
        if not re.fullmatch(TAG, tag):
            advice = "write letters, digits and . _ : / = + -, at most 80, the first a letter or a digit"
            raise UsageError(f"--tag {tag}: not a tag", advice=advice)
    return tuple(
        replace(one, recipe=one.recipe.model_copy(update={"tags": tuple(dict.fromkeys([*one.recipe.tags, *tags]))}))
        for one in loaded
    )


def _run(options: argparse.Namespace, loaded: tuple[LoadedRecipe, ...], detachment: Detachment | None = None) -> int:
    def work(*watchers: Callable[[LiveRun], Listener]) -> int:
        runs = Runs(
            as_json=options.json,
            parallel=options.parallel,
            forced=forced_codes(options),
            fresh=options.fresh,
            repeat=options.repeat,
            keep=options.keep,
            detachment=detachment,
            watchers=watchers,
            budget_usd=budget_usd(options),
        )
        return run_in_loop(runs.run_all(loaded))

    return watched(work, [one.recipe.metrics for one in loaded], options.metrics_port)

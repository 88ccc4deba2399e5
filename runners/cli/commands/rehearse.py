"""The whole run for free: RunPod emulated on this machine, a small model, the real engine on the CPU.

Everything of the recipe stays but its model, its engine and their sizes: offers, prices, bootstrap, tunnel, workload,
letting go. Its home is RECIPE_HOME/rehearsal, so that no rehearsal stands among the real runs.
"""

from __future__ import annotations

import argparse
import asyncio
import os

from recipes.load import LoadedRecipe
from runners.cli.common import add_json, add_recipes, console, load_recipes, positive
from runners.cli.running import Runs
from runners.registry import site
from runners.rehearsal import overrides, stage, stood_in
from runners.terminal.words import plural


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipes(parser)
    add_json(parser)
    parser.add_argument(
        "--time-scale", type=positive, default=1, metavar="X", help="emulated seconds, and dollars, in a real second"
    )


def run(options: argparse.Namespace) -> int:
    as_they_are = load_recipes(options)
    os.environ["RECIPE_HOME"] = str(site().home / "rehearsal")
    loaded = load_recipes(options, overrides(as_they_are[0]))
    differs = dict.fromkeys(said for one in as_they_are for said in stood_in(one))
    return asyncio.run(_rehearse(loaded, list(differs), options))


async def _rehearse(loaded: tuple[LoadedRecipe, ...], differs: list[str], options: argparse.Namespace) -> int:
    async with stage(loaded[0], site(), time_scale=float(options.time_scale)) as shown:
        os.environ.update(shown.env)
        code = await Runs(as_json=options.json, parallel=20).run_all(loaded)
        account = shown.account()
    still = f"{account['billing']} still billing" if account["billing"] else "none billing"
    pods = plural(account["pods"], "emulated pod")
    console(stderr=True).print(
        f"\nrehearsed    {pods}, {still} at the end; nothing was rented\n"
        f"             its log: RECIPE_HOME={site().home} recipe runs",
        *(f"not shown    {said}" for said in differs),
        sep="\n",
    )
    return code

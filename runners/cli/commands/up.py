"""Plan, refuse or run, collect, and let the machine go: always."""

from __future__ import annotations

import argparse
import asyncio
import os

from recipes.errors import ExitCode, UsageError
from recipes.load import LoadedRecipe
from runners.cli.common import add_json, add_recipes, console, load_recipes, positive, print_json
from runners.cli.running import Runs
from runners.plan import make_plan
from runners.terminal.plan_view import plan_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipes(parser)
    add_json(parser)
    parser.add_argument("--dry-run", action="store_true", help="stop after the plan; the same as recipe plan")
    parser.add_argument(
        "--parallel",
        type=positive,
        default=20,
        metavar="N",
        help="so many runs at once where each has a machine of its own (default: 20)",
    )
    parser.add_argument("--max-cost", type=float, metavar="USD", help="sets limits.max_cost")


def run(options: argparse.Namespace) -> int:
    if options.max_cost is not None and not options.max_cost >= 0:
        raise UsageError(f"--max-cost {options.max_cost}: not a sum of money", advice="write --max-cost 10")
    extra = [] if options.max_cost is None else [f"limits.max_cost={options.max_cost}"]
    loaded = load_recipes(options, extra)
    if options.dry_run:
        return asyncio.run(plan_all(loaded, as_json=options.json))
    return asyncio.run(Runs(as_json=options.json, parallel=options.parallel).run_all(loaded))


async def plan_all(loaded: tuple[LoadedRecipe, ...], *, as_json: bool) -> int:
    """Show the plan of each recipe. Returns the exit code of the worst."""
    documents, code = [], ExitCode.DONE
    for one in loaded:
        document = (await make_plan(one, os.environ)).document()
        documents.append(document)
        if document["verdict"] == "refuse":
            code = ExitCode.REFUSED
        if not as_json:
            out = console()
            for line in plan_lines(document):
                out.print(line)
    if as_json:
        print_json({"plans": documents})
    return code

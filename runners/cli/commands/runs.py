"""The experiment log: every run, the newest first."""

from __future__ import annotations

import argparse
from typing import Any

from recipes.errors import UsageError
from runners.cli.common import add_json, console, print_json
from runners.forecast.measured import accuracy
from runners.ledger import Ledger
from runners.run_folder import recipe_home
from runners.terminal.accuracy_view import accuracy_line, accuracy_table
from runners.terminal.summary import runs_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", metavar="NAME", help="only runs of this recipe")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default: 20)")
    parser.add_argument(
        "--forecast", action="store_true", help="completed runs: what was forecast, what they took, and the error"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    if options.limit < 1:
        raise UsageError(f"--limit {options.limit}: must be at least 1")
    rows = Ledger(recipe_home()).runs(limit=options.limit, recipe=options.recipe)
    if options.forecast:
        return _forecasts([row["result"] for row in rows if row["status"] == "completed" and row["result"]], options)
    if options.json:
        print_json({"runs": [row["result"] or {k: v for k, v in row.items() if k != "result"} for row in rows]})
    elif rows:
        console().print(runs_table(rows))
    else:
        print(f"no runs of {options.recipe}" if options.recipe else "no runs yet; try recipe up local-smoke")
    return 0


def _forecasts(results: list[dict[str, Any]], options: argparse.Namespace) -> int:
    """How far the forecasts were off, for the runs that had one."""
    told = [result for result in results if result.get("forecast")]
    found = accuracy([result["forecast"] for result in told])
    if options.json:
        runs = [{"run_id": result["run_id"], "recipe": result["recipe"], **result["forecast"]} for result in told]
        print_json({"runs": runs, "accuracy": found})
        return 0
    if told:
        console().print(accuracy_table(told))
    print(accuracy_line(found))
    return 0

"""The experiment log: every run, the newest first."""

from __future__ import annotations

import argparse

from recipes.errors import UsageError
from runners.cli.common import add_json, console, print_json
from runners.ledger import Ledger
from runners.run_folder import recipe_home
from runners.terminal.summary import runs_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", metavar="NAME", help="only runs of this recipe")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default: 20)")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    if options.limit < 1:
        raise UsageError(f"--limit {options.limit}: must be at least 1")
    rows = Ledger(recipe_home()).runs(limit=options.limit, recipe=options.recipe)
    if options.json:
        print_json({"runs": [row["result"] or {k: v for k, v in row.items() if k != "result"} for row in rows]})
    elif rows:
        console().print(runs_table(rows))
    else:
        print(f"no runs of {options.recipe}" if options.recipe else "no runs yet; try recipe up local-smoke")
    return 0

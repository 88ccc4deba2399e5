"""Runs of another machine into this experiment log, each once: their folders are copied, and their results listed.

FOLDER is a RECIPE_HOME, its runs folder, the folder of one run, or a .zip or .tar.gz of these, such as the artifact of
a CI job. A run that is here already is passed over; one that differs from what has its id here, that a newer recipe
wrote, whose files are not what its result says, or that holds links, is refused, and nothing of it is taken.

recipe import ~/laptop/.recipe
recipe import runs.zip --origin ci
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from provisioners.site import recipe_home
from recipes.errors import ExitCode
from runners.cli.common import add_json, print_json

if TYPE_CHECKING:
    from runners.importing.merging import Merged


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="+", type=Path, metavar="FOLDER", help="a folder or an archive of runs")
    parser.add_argument("--origin", metavar="NAME", help="what to call where they come from (default: FOLDER)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be taken, and change nothing")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from runners.importing.merging import Merge
    from runners.ledger import Ledger

    home = recipe_home()
    merge = Merge(home, Ledger(home), origin=options.origin, dry_run=options.dry_run)
    merged: list[Merged] = []
    for one in merge.take(options.folder):
        merged.append(one)
        if not options.json:
            _say(one, dry_run=options.dry_run)
    counts = {state: sum(one.state == state for one in merged) for state in ("taken", "there", "refused")}
    if options.json:
        print_json({"runs": [asdict(one) for one in merged], "dry_run": options.dry_run, **counts})
    else:
        print(_total(counts, dry_run=options.dry_run))
    return ExitCode.USAGE if counts["refused"] else ExitCode.DONE


def _say(one: Merged, *, dry_run: bool) -> None:
    match one.state:
        case "taken":
            word = "would be taken" if dry_run else "taken"
            print(f"{one.run_id}   {word}{f'   {one.note}' if one.note else ''}", flush=True)
        case "there":
            print(f"{one.run_id}   is here already", flush=True)
        case "refused":
            print(f"{one.run_id}   refused: {one.note}", file=sys.stderr, flush=True)


def _total(counts: dict[str, int], *, dry_run: bool) -> str:
    taken = f"{counts['taken']:,} {'would be taken' if dry_run else 'taken'}"
    return f"{taken}, {counts['there']:,} here already, {counts['refused']:,} refused"

"""What may be billing now, and whether somebody minds it."""

from __future__ import annotations

import argparse
import asyncio
import os

from provisioners.naming import owner_name
from provisioners.site import recipe_home
from recipes.errors import ExitCode
from runners.cli.common import add_json, console, print_json
from runners.ledger import Ledger
from runners.machines import everywhere, journalled, silent_rows
from runners.terminal.machines_view import machine_lines, silent_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="ask the providers too: also what other machines began")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    ledger = Ledger(recipe_home())
    machines, silent = (
        asyncio.run(everywhere(ledger, owner_name(os.environ))) if options.all else (journalled(ledger), {})
    )
    rows = [machine.row() for machine in machines]
    if options.json:
        print_json({"machines": rows, "silent": silent_rows(silent)})
    else:
        out = console()
        for line in [*machine_lines(rows, none="nothing is leased"), *silent_lines(silent)]:
            out.print(line)
    return ExitCode.NO_MACHINE if silent else ExitCode.DONE

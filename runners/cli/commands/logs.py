"""A run's engine log, whole; or its events, its installation log, or the list of its files."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from provisioners.site import recipe_home
from recipes.errors import ExitCode, UsageError
from runners.cli.common import add_run
from runners.ledger import Ledger
from runners.run_folder import CLIENT_LOG, RunFolder

_POLL_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--events", dest="name", action="store_const", const="events.jsonl", help="every transition")
    which.add_argument(
        "--install", dest="name", action="store_const", const="install.log", help="installation, download"
    )
    which.add_argument(
        "--requests", dest="name", action="store_const", const="requests.jsonl", help="a row per request"
    )
    which.add_argument(
        "--client", dest="name", action="store_const", const=CLIENT_LOG, help="what recipe up --detach said"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on while the run does")
    which.add_argument("--files", action="store_true", help="list the run's files")
    parser.set_defaults(name="engine.log")


def run(options: argparse.Namespace) -> int:
    folder = RunFolder.find(recipe_home(), options.run)
    if options.files:
        for path in sorted(p for p in folder.path.rglob("*") if p.is_file()):
            print(path)
        return 0
    path = folder.path / options.name
    if options.follow:
        try:
            return _follow(folder, path)
        except KeyboardInterrupt:
            return ExitCode.INTERRUPTED  # of the looking; the run goes on
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in folder.path.glob("*.*")))
        raise UsageError(f"{folder.run_id} left no {options.name}", advice=f"there are {there}")
    with path.open("rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()
    return 0


def _follow(folder: RunFolder, path: Path) -> int:
    """What the file gets, until the run's client has ended."""
    ledger, offset = Ledger(recipe_home()), 0
    going_on = True
    while going_on:
        row = ledger.run(folder.run_id)
        going_on = row is not None and row["status"] == "running"
        if path.is_file():
            with path.open("rb") as file:
                file.seek(offset)
                shutil.copyfileobj(file, sys.stdout.buffer)
                offset = file.tell()
            sys.stdout.buffer.flush()
        if going_on:
            time.sleep(_POLL_S)
    return 0

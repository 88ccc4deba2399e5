"""End whatever of yours may be billing and has no living run. Only tells what it would do, unless --yes is given.

What a stack holds is only told of: `recipe stack destroy` ends it. A pod of yours that a `recipe stack up` from another
computer has gone on with is told of only where that stack's backend is the one of this shell, and answers: else --yes
ends it. Network volumes that no stack uses are only told of, too: they hold data, and bill until somebody ends them
with the command that is shown.

Works from any machine that has the provider's key: machines are recognised by their names, which carry their owner.
Of a run that was begun elsewhere ("not begun here") nobody can see here whether its client lives: --yes ends it too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from pathlib import Path

from provisioners.naming import owner_name
from provisioners.site import recipe_home, site_of
from recipes.errors import ExitCode, NoCredentials, UsageError
from runners.cli.common import add_json, console, print_json
from runners.cli.loose_volumes import rows_of as volume_rows
from runners.cli.loose_volumes import unused, volumes_there, why_not
from runners.ledger import Ledger
from runners.machines import end_all, everywhere, silent_rows
from runners.terminal.layout import width_of
from runners.terminal.machines_view import ended_lines, held_lines, machine_lines, silent_lines
from runners.terminal.stack_view import volumes_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="end them")
    parser.add_argument("--owner", metavar="NAME", help="whose machines (default: RECIPE_OWNER, else your user's name)")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    return asyncio.run(_reap(options))


async def _reap(options: argparse.Namespace) -> int:
    ledger = _ledger()
    owner = owner_name({"RECIPE_OWNER": options.owner} if options.owner else os.environ)
    (machines, silent), (volumes, error) = await asyncio.gather(
        everywhere(ledger, owner), volumes_there(site_of(os.environ))
    )
    held = [machine for machine in machines if machine.held_by]
    orphans = [machine for machine in machines if machine.client != "running" and not machine.held_by]
    rows = await end_all(orphans, ledger) if options.yes else [machine.row() for machine in orphans]
    unknown = "" if isinstance(error, NoCredentials) or silent else why_not(error)
    if options.json:
        print_json(
            {
                "machines": rows,
                "held": [m.row() for m in held],
                "silent": silent_rows(silent),
                "volumes": volume_rows(volumes),
                "volumes_unknown": unknown or None,
            }
        )
    else:
        out = console()
        none = (
            f"nothing of {owner}'s is billing without a living run; "
            "what was asked for within the last minute may not be listed yet"
        )
        shown = ended_lines(rows) if options.yes and rows else machine_lines(rows, none=none)
        for line in [*shown, *held_lines([machine.row() for machine in held]), *silent_lines(silent)]:
            out.print(line)
        for line in [*volumes_lines(unused(volumes), width_of(out)), *([unknown] if unknown else [])]:
            out.print(line)
        if rows and not options.yes:
            out.print("\nnothing was ended; recipe reap --yes ends them")
    if any(row.get("release", {}).get("state") == "may-still-bill" for row in rows):
        return ExitCode.STILL_BILLING
    return ExitCode.NO_MACHINE if silent or unknown else ExitCode.DONE


def _ledger() -> Ledger:
    """The journal's; where it cannot be opened, as on a full disk, an empty one: machines must end all the same."""
    try:
        return Ledger(recipe_home())
    except UsageError as error:
        console(stderr=True).print(f"warning: {error.message}; only what the providers list is seen")
        memory = Path("/dev/shm")  # noqa: S108 (a fresh folder in it)
        return Ledger(Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None)))

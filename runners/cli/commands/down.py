"""End a run: ask its client to stop, collect and let go; without a living client, let its machine go."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from contextlib import suppress

from provisioners.journal import Journal
from provisioners.site import recipe_home
from recipes.errors import ExitCode, UsageError
from runners.cli.common import add_json, add_run, console, print_json
from runners.ledger import Ledger
from runners.machine import Machine
from runners.machines import end, journalled, of_stack
from runners.run_folder import RunFolder
from runners.signals import WISH
from runners.terminal.machines_view import ended_lines

_POLL_S = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    home = recipe_home()
    ledger = Ledger(home)
    if (entry := of_stack(ledger, options.run)) is not None:
        held = next(m for m in journalled(ledger) if m.lease.name == entry.lease.name)
        asyncio.run(end(held, ledger))
        return _told(ledger, entry.lease.run_id, options, held)
    folder = RunFolder.find(home, options.run)
    machine = next((m for m in journalled(ledger) if m.lease.run_id == folder.run_id), None)
    row = ledger.run(folder.run_id)
    if machine is None and not (row and row["status"] == "running"):
        entry = Journal(ledger.path).of_run(folder.run_id)
        proof = f": {entry.proof}" if entry and entry.proof else ""
        raise UsageError(f"{folder.run_id} holds no machine any more{proof}", advice="see recipe ps")
    if row and row["status"] == "running":
        _ask_client(row["pid"], folder, ledger)
        machine = next((m for m in journalled(ledger) if m.lease.run_id == folder.run_id), None)
        row = ledger.run(folder.run_id)
        if machine is None or not (row and row["status"] == "lost"):
            return _told(ledger, folder.run_id, options)
        # Its client died before it could let go.
    assert machine is not None
    asyncio.run(end(machine, ledger))
    return _told(ledger, folder.run_id, options, machine)


def _ask_client(pid: int, folder: RunFolder, ledger: Ledger) -> None:
    """Its client knows best how to end: it collects what there is, and writes the result."""
    try:
        folder.wish_to_stop()
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(pid, WISH)
        while (row := ledger.run(folder.run_id)) and row["status"] == "running":
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        raise UsageError(f"{folder.run_id} is still being ended by its client", advice="see recipe ps") from None


def _told(ledger: Ledger, run_id: str, options: argparse.Namespace, machine: Machine | None = None) -> int:
    entry = Journal(ledger.path).of_run(run_id)
    if entry is None:
        if options.json:
            print_json({"machines": []})
        else:
            print(f"{run_id} has ended; it had leased nothing")
        return ExitCode.DONE
    machine = machine or Machine(lease=entry.lease, client="gone", state=entry.state, since=entry.asked_at)
    state = {"state": "gone", "proof": entry.proof or ""}
    if entry.open:
        command = "recipe reap --yes"
        state = {"state": "may-still-bill", "proof": "", "reason": entry.proof or entry.state, "command": command}
    row = {**machine.row(), "release": state}
    if options.json:
        print_json({"machines": [row]})
    else:
        out = console()
        for line in ended_lines([row]):
            out.print(line)
    return ExitCode.STILL_BILLING if entry.open else ExitCode.DONE

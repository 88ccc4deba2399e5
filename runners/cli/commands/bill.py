"""What the provider says by now that runs have cost. Bills come late; what it says is kept beside our own count.

Nothing that was measured changes. A page that was written before shows the bill of then: recipe report writes it anew.
"""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime
from typing import Any

from provisioners.journal import Journal
from provisioners.site import recipe_home
from runners.cli.common import add_json, add_run, console, print_json
from runners.ledger import Ledger
from runners.registry import provisioner
from runners.result import bill_row
from runners.run_folder import RunFolder
from runners.terminal.cost_view import bill_lines
from runners.watching import billed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser, nargs="+")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    home = recipe_home()
    folders = [RunFolder.find(home, reference) for reference in options.run]
    results = asyncio.run(_ask(folders, Ledger(home)))
    if options.json:
        print_json({"runs": [_row(result) for result in results]})
        return 0
    out = console()
    for result in results:
        out.print(result["run_id"], style="bold")
        lines = list(bill_lines(result))
        for line in lines or [f"bill         {_silent(result)}"]:
            out.print(line)
    return 0


async def _ask(folders: list[RunFolder], ledger: Ledger) -> list[dict[str, Any]]:
    return [await _asked(folder, ledger) for folder in folders]


async def _asked(folder: RunFolder, ledger: Ledger) -> dict[str, Any]:
    """The result, with what the provider says now; as it was, where it says nothing. Raises NoMachine without a key."""
    result, entry = folder.read_result(), Journal(ledger.path).of_run(folder.run_id)
    if entry is None:
        return result
    provider = provisioner(entry.lease.provider)
    bill = await billed(provider, entry.lease)
    if bill is None:
        if provider.billable and result["cost"].get("provider_usd") is None:
            await provider.owned("nobody")  # it says why it cannot be asked, where a bill is only not there
        return result
    result["cost"] |= bill_row(bill, result["cost"]["total_usd"], datetime.now(UTC))
    folder.write_json("result.json", result)
    ledger.end(result)
    return result


def _row(result: dict[str, Any]) -> dict[str, Any]:
    names = ("total_usd", "provider_usd", "provider_seconds", "provider_asked_at", "difference_usd", "difference_share")
    return {"run_id": result["run_id"], **{name: result["cost"].get(name) for name in names}}


def _silent(result: dict[str, Any]) -> str:
    provider = result["offer"]["provider"]
    if result.get("lease") is None:
        return "nothing was leased"
    return f"{provider} says nothing of it; where it sends bills, they may come hours later"

"""Plan, refuse or run, collect, and let the machine go: always."""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

from recipes.errors import ExitCode, UsageError
from recipes.load import LoadedRecipe
from runners.cli.common import add_json, add_recipes, console, load_recipes, print_json
from runners.clock import Clock
from runners.events import Event
from runners.ledger import Ledger
from runners.plan import Plan, make_plan
from runners.registry import site
from runners.run_folder import RunFolder
from runners.session import Session
from runners.signals import handled
from runners.terminal.plan_view import plan_lines, refusal_lines
from runners.terminal.progress import follower
from runners.terminal.summary import still_billing_lines, summary_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipes(parser)
    add_json(parser)
    parser.add_argument("--dry-run", action="store_true", help="stop after the plan; the same as recipe plan")
    parser.add_argument("--max-cost", type=float, metavar="USD", help="sets limits.max_cost")


def run(options: argparse.Namespace) -> int:
    if options.max_cost is not None and not options.max_cost >= 0:
        raise UsageError(f"--max-cost {options.max_cost}: not a sum of money", advice="write --max-cost 10")
    extra = [] if options.max_cost is None else [f"limits.max_cost={options.max_cost}"]
    loaded = load_recipes(options, extra)
    if options.dry_run:
        return asyncio.run(plan_all(loaded, as_json=options.json))
    return asyncio.run(Runs(as_json=options.json).run_all(loaded))


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


class Runs:
    """One run after the other; nothing is leased before every plan has passed."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._results: list[dict[str, Any]] = []
        self._session: Session | None = None
        self._stopped = False

    async def run_all(self, loaded: tuple[LoadedRecipe, ...]) -> int:
        """Run all; returns 0 or the exit code that matters most."""
        main = asyncio.current_task()
        assert main is not None

        def on_signal(name: str) -> None:
            self._stopped = True
            if self._session is not None:
                self._session.interrupt(name)
            else:
                main.cancel()

        with handled(on_signal):
            try:
                codes = await self._run_each(loaded)
            except asyncio.CancelledError:
                console(stderr=True).print("interrupted while planning; nothing was rented")
                codes = [int(ExitCode.INTERRUPTED)]
        if self._as_json:
            print_json({"runs": self._results})
        worst: list[int] = [c for c in (ExitCode.STILL_BILLING, ExitCode.INTERRUPTED) if c in codes]
        return (worst or [c for c in codes if c] or [ExitCode.DONE])[0]

    async def _run_each(self, loaded: tuple[LoadedRecipe, ...]) -> list[int]:
        clock = Clock()
        plan = await self._planned(loaded)
        if plan is None:
            return [ExitCode.REFUSED]
        codes: list[int] = []
        for i, one in enumerate(loaded):
            if i > 0:
                clock = Clock()
                plan = await make_plan(one, os.environ)
            codes.append(await self._run_one(plan, clock))
            if self._stopped:
                break
        return codes

    async def _planned(self, loaded: tuple[LoadedRecipe, ...]) -> Plan | None:
        """The first recipe's plan, after all were made; None if one of them was refused."""
        first: Plan | None = None
        refused = False
        for one in loaded:
            plan = await make_plan(one, os.environ)
            first = first or plan
            if plan.verdict == "refuse":
                refused = True
                out = console(stderr=True)
                for line in refusal_lines(plan.document()):
                    out.print(line)
        return None if refused else first

    async def _run_one(self, plan: Plan, clock: Clock) -> int:
        home = site().home
        ledger = Ledger(home)
        folder = RunFolder.create(home, plan.recipe.name)
        view, listener = follower(console(stderr=True))

        def to_ledger(event: Event) -> None:
            ledger.record(folder.run_id, event)

        with view:
            self._session = Session(plan, folder, clock, ledger, os.environ, listener, to_ledger)
            result = await self._session.run()
            self._session = None
        self._results.append(result)
        if not self._as_json:
            out = console()
            for line in self._ending(result, folder):
                out.print(line)
        return int(result["exit_code"])

    @staticmethod
    def _ending(result: dict[str, Any], folder: RunFolder) -> list[str]:
        billing = still_billing_lines(result) if result["release"]["state"] != "gone" else []
        return ["", *billing, *summary_lines(result, folder.path)]

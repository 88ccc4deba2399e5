"""Plan, refuse or run, collect, and let the machine go: always."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import traceback
from contextlib import suppress
from typing import Any

from recipes.errors import ExitCode, RecipeError, UsageError
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
from runners.terminal.problems import error_lines
from runners.terminal.progress import following
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
        self._refused: list[dict[str, Any]] = []
        self._codes: list[int] = []
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
                await self._run_each(loaded)
            except asyncio.CancelledError:
                rented = "; no further run was begun" if self._codes else "; nothing was rented"
                self._codes.append(ExitCode.INTERRUPTED)
                self._say(f"interrupted while planning{rented}")
            except Exception:
                # What the runs before it left, and what of them still bills, must not be lost with a bug.
                if not self._codes:
                    raise
                self._codes.append(ExitCode.BUG)
                self._say("error: a bug in recipe; please report it with this:", traceback.format_exc())
        if self._as_json:
            with suppress(OSError):
                print_json({"runs": self._results, **({"refused": self._refused} if self._refused else {})})
        worst: list[int] = [c for c in (ExitCode.STILL_BILLING, ExitCode.INTERRUPTED) if c in self._codes]
        return (worst or [c for c in self._codes if c] or [ExitCode.DONE])[0]

    async def _run_each(self, loaded: tuple[LoadedRecipe, ...]) -> None:
        clock = Clock()
        plan = await self._planned(loaded)
        if plan is None:
            self._codes.append(ExitCode.REFUSED)
            return
        if len(loaded) == 1:
            await self._run_one(plan, clock)
            return
        # Planned again one by one: the prepared inputs of many runs would not fit into memory together.
        for one in loaded:
            clock = Clock()
            try:
                await self._run_one(await make_plan(one, os.environ), clock)
            except RecipeError as error:
                self._codes.append(error.exit_code)
                self._say(*error_lines(error))
            if self._stopped:
                # Also if the wish to stop came when this run was over: others were still to come.
                self._codes.append(ExitCode.INTERRUPTED)
                return

    async def _planned(self, loaded: tuple[LoadedRecipe, ...]) -> Plan | None:
        """The last recipe's plan, after all were made; None if one of them was refused."""
        plan: Plan | None = None
        for one in loaded:
            plan = await make_plan(one, os.environ)
            if plan.verdict == "refuse":
                self._refused.append(plan.document())
                self._say(*refusal_lines(self._refused[-1]))
        return None if self._refused else plan

    async def _run_one(self, plan: Plan, clock: Clock) -> None:
        home = site().home
        ledger = Ledger(home)
        folder = RunFolder.create(home, plan.recipe.name)

        def to_ledger(event: Event) -> None:
            ledger.record(folder.run_id, event)

        with following(console(stderr=True)) as listener:
            self._session = Session(plan, folder, clock, ledger, os.environ, listener, to_ledger)
            try:
                result = await self._session.run()
            finally:
                self._session = None
        self._results.append(result)
        self._codes.append(int(result["exit_code"]))
        # Whoever reads this may have gone; how the run ended stays as it is.
        with suppress(OSError):
            self._show_end(result, folder)

    def _show_end(self, result: dict[str, Any], folder: RunFolder) -> None:
        billing = still_billing_lines(result) if result["release"]["state"] != "gone" else []
        if self._as_json:
            self._say(*billing)
            return
        out = console()
        for line in ["", *billing, *summary_lines(result, folder.path)]:
            out.print(line)
        sys.stdout.flush()

    @staticmethod
    def _say(*lines: str) -> None:
        out = console(stderr=True)
        with suppress(OSError):
            for line in lines:
                out.print(line)

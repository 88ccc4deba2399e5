"""Runs recipes and says how each ended: in turn on one machine, at once on machines of their own."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.text import Text

from provisioners.journal import Entry
from recipes.errors import ExitCode, RecipeError
from recipes.load import LoadedRecipe
from runners.cli.adopting import Standing, standing
from runners.cli.budget import month_budget
from runners.cli.common import console, print_json
from runners.cli.repeating import carrying, compare_lines, money_line
from runners.cli.reports import write_comparison, write_run_report
from runners.clock import Clock
from runners.events import Event, Listener
from runners.forecast.month import MonthBudget, budget_warnings
from runners.ledger import Ledger
from runners.live import LiveRun
from runners.live.file import LiveFile
from runners.machines import journalled
from runners.metrics.own_pages import PageRecorder
from runners.plan import Plan
from runners.plan_document import document_of
from runners.planning import make_plan
from runners.registry import site
from runners.run_folder import RunFolder
from runners.session import Session
from runners.signals import WISH, handled
from runners.terminal.layout import width_of
from runners.terminal.problems import error_lines
from runners.terminal.progress import following
from runners.terminal.refusal_view import refusal_lines
from runners.terminal.summary import brief_lines, still_billing_lines, summary_lines
from runners.terminal.words import plural

if TYPE_CHECKING:
    from runners.cli.detach import Detachment
    from runners.terminal.board import Board

# So many plans are kept in memory; beyond, each recipe is planned again when its turn comes.
_KEPT_PLANS = 64
_LAST = sys.maxsize


class Runs:
    """Nothing is leased before every plan has passed."""

    def __init__(
        self,
        *,
        as_json: bool,
        parallel: int = 1,
        forced: Sequence[str] = (),
        fresh: bool = False,
        keep: bool = False,
        repeat: int = 1,
        detachment: Detachment | None = None,
        watchers: Sequence[Callable[[LiveRun], Listener]] = (),
        budget_usd: float | None = None,
    ) -> None:
        """`fresh`: nothing is taken over from unfinished runs of the recipe. `keep`: machines stay after the work.
        `repeat`: each recipe so many times, all of them in turn, so that what drifts meets all alike; always fresh.

        With a `detachment` the terminal is left once every plan has passed. Each of the `watchers` is shown every run
        before it begins, and says what is to hear its events. `budget_usd` is what a calendar month may cost.
        """
        self._budget_usd = budget_usd
        self._detachment, self._watchers = detachment, watchers
        self._as_json, self._parallel, self._forced, self._keep = as_json, parallel, forced, keep
        self._repeat, self._fresh = repeat, fresh or repeat > 1
        self._results: dict[int, dict[str, Any]] = {}
        self._refused: list[dict[str, Any]] = []
        self._standing: dict[int, Standing] = {}
        """Runs of clients that died, which are gone on with."""
        self._codes: list[tuple[int, int]] = []
        """With the number of the run that each is of: the first that failed gives the exit code."""
        self._sessions: set[Session] = set()
        self._stopped = False

    async def run_all(self, loaded: tuple[LoadedRecipe, ...]) -> int:
        """Run all; returns 0 or the exit code that matters most."""
        self._remind()
        return await self._until_done(self._run_each(loaded))

    def _remind(self) -> None:
        """Tell of machines that nobody minds any more, before another is rented."""
        home = site().home
        if not (home / "ledger.db").is_file():
            return
        orphans = [m for m in journalled(Ledger(home)) if m.client == "gone" and m.lease.provider != "local"]
        if orphans:
            who = f"{plural(len(orphans), 'machine')} of earlier runs may be billing"
            run_id = orphans[0].lease.run_id
            self._say(
                f"warning: {who} ({orphans[0].lease.name}); recipe attach {run_id} goes on there, recipe ps shows all"
            )

    async def adopt(self, plan: Plan, folder: RunFolder, entry: Entry) -> int:
        """Go on with a run whose client died; returns its exit code."""

        async def work() -> None:
            with following(console(stderr=True)) as listener:
                await self._run_one(0, plan, Clock(), listener, folder=folder, adopted=entry)
            self._show_ends()

        return await self._until_done(work())

    async def _until_done(self, work: Any) -> int:
        main = asyncio.ensure_future(work)

        def on_signal(name: str) -> None:
            if name == WISH.name:
                for session in self._sessions:
                    session.heed_wish()
                return
            self._stopped = True
            for session in self._sessions:
                session.interrupt(name)
            if not self._sessions:
                main.cancel()

        with handled(on_signal):
            try:
                await main
            except asyncio.CancelledError:
                rented = "; no further run was begun" if self._codes else "; nothing was rented"
                self._codes.append((_LAST, ExitCode.INTERRUPTED))
                self._say(f"interrupted while planning{rented}")
            except Exception as error:
                # What the runs before it left, and what of them still bills, must not be lost with it.
                if not self._codes:
                    raise
                if isinstance(error, RecipeError):
                    self._codes.append((_LAST, error.exit_code))
                    self._say(*error_lines(error))
                else:
                    self._codes.append((_LAST, ExitCode.BUG))
                    self._say("error: a bug in recipe; please report it with this:", traceback.format_exc())
        if self._as_json:
            results = [self._results[i] for i in sorted(self._results)]
            with suppress(OSError):
                print_json({"runs": results, **({"refused": self._refused} if self._refused else {})})
        codes = [code for _, code in sorted(self._codes)]
        worst: list[int] = [c for c in (ExitCode.STILL_BILLING, ExitCode.INTERRUPTED) if c in codes]
        return (worst or [c for c in codes if c] or [ExitCode.DONE])[0]

    async def _run_each(self, loaded: tuple[LoadedRecipe, ...]) -> None:
        clock = Clock()
        plans = await self._planned(loaded)
        if plans is None:
            self._codes.append((0, ExitCode.REFUSED))
            return
        if self._repeat > 1:
            self._say(money_line(list(plans.values()), loaded, self._repeat))
        loaded *= self._repeat
        if self._detachment is not None:
            self._detachment.leave_terminal(runs=len(loaded))
            self._as_json = False  # whoever asked for it is told by the process that waits
        if len(loaded) == 1:
            with following(console(stderr=True)) as listener:
                await self._run_one(0, plans[0], clock, listener)
            self._show_ends()
        elif all(plan.provisioner.at_once for plan in plans.values()) and self._parallel > 1:
            from runners.terminal.board import board

            try:
                with board(console(stderr=True), len(loaded)) as shown:
                    await self._at_once(loaded, plans, shown)
            finally:
                self._show_ends()
                self._show_comparison()
        else:
            try:
                await self._in_turn(loaded)
            finally:
                self._show_comparison()

    async def _planned(self, loaded: tuple[LoadedRecipe, ...]) -> dict[int, Plan] | None:
        """The plans, or the first of very many; None if one of them was refused."""
        kept: dict[int, Plan] = {}
        budget, warnings = self._budget(self._repeat), list[str]()
        for i, one in enumerate(loaded):
            await self._look_for_standing(i, one)
            plan = await self._plan(i, one, budget)
            if budget and plan.forecast:
                budget = budget.after(plan.forecast.total_usd, plan.recipe.limits)
            if plan.no_machine is not None and plan.exit_code == ExitCode.NO_MACHINE:
                raise plan.no_machine
            if plan.verdict == "refuse" and i not in self._standing:
                self._refused.append(carrying(document_of(plan), self._repeat, self._budget_usd))
                self._say(*refusal_lines(self._refused[-1], width_of(console(stderr=True))))
            if i < _KEPT_PLANS:
                kept[i] = plan
            warnings += budget_warnings(plan.findings)
        if warnings and len(loaded) * self._repeat > 1 and not self._refused:
            self._say(f"warning: {warnings[-1]}")  # the last one's is that of all of them together
        return None if self._refused else kept

    async def _look_for_standing(self, number: int, loaded: LoadedRecipe) -> None:
        """Whether an earlier run of the recipe is gone on with instead of beginning another."""
        home = site().home
        if self._fresh or not (home / "ledger.db").is_file():
            return
        taken = [standing.folder.run_id for standing in self._standing.values()]
        if found := await standing(loaded, Ledger(home), self._say, but=taken):
            self._standing[number] = found

    async def _plan(self, number: int, loaded: LoadedRecipe, budget: MonthBudget | None) -> Plan:
        if number in self._standing:
            return await self._standing[number].plan()
        return await make_plan(loaded, os.environ, forced=self._forced, budget=budget)

    def _budget(self, times: int = 1) -> MonthBudget | None:
        """With what has been spent by now."""
        return month_budget(self._budget_usd, site().home, times=times)

    async def _in_turn(self, loaded: tuple[LoadedRecipe, ...]) -> None:
        """Planned again one by one: so much may have changed meanwhile, and many prepared inputs need much memory."""
        for i, one in enumerate(loaded):
            clock = Clock()
            try:
                plan = await self._plan(i, one, self._budget())
                with following(console(stderr=True)) as listener:
                    await self._run_one(i, plan, clock, listener)
                self._show_ends(only=i)
            except RecipeError as error:
                self._codes.append((i, error.exit_code))
                self._say(*error_lines(error))
            if self._stopped:
                # Also if the wish to stop came when this run was over: others were still to come.
                self._codes.append((i, ExitCode.INTERRUPTED))
                return

    async def _at_once(self, loaded: tuple[LoadedRecipe, ...], plans: dict[int, Plan], shown: Board) -> None:
        slots = asyncio.Semaphore(self._parallel)

        async def one(i: int) -> None:
            async with slots:
                clock = Clock()
                try:
                    plan = plans.pop(i, None)
                    if plan is None and not self._stopped:
                        plan = await self._plan(i, loaded[i], self._budget())
                    if plan is None or self._stopped:
                        self._codes.append((i, ExitCode.INTERRUPTED))
                        return
                    await self._run_one(i, plan, clock, shown.listener(plan.recipe.name))
                except RecipeError as error:
                    self._codes.append((i, error.exit_code))
                    shown.say(*error_lines(error))

        ended = await asyncio.gather(*(one(i) for i in range(len(loaded))), return_exceptions=True)
        if failed := next((error for error in ended if isinstance(error, BaseException)), None):
            raise failed

    async def _run_one(
        self,
        number: int,
        plan: Plan,
        clock: Clock,
        listener: Listener,
        *,
        folder: RunFolder | None = None,
        adopted: Entry | None = None,
    ) -> None:
        home = site().home
        ledger = Ledger(home)
        if earlier_run := self._standing.pop(number, None):
            folder, adopted = earlier_run.folder, await earlier_run.taken_over(plan, self._say)
        if folder is None:
            # Asked before the new run is one of them.
            earlier = ledger.unfinished(plan.recipe.name) if plan.workload.goes_on and not self._fresh else []
            folder = RunFolder.create(home, plan.recipe.name)
            if earlier:
                folder.takes_over(earlier)

        def to_ledger(event: Event) -> None:
            ledger.record(folder.run_id, event)

        live = LiveRun(plan, folder, clock)
        live_file = LiveFile(live)
        listeners = [listener, to_ledger, live.heard, live_file.heard, PageRecorder(folder.path).heard]
        listeners += [watch(live) for watch in self._watchers]
        if self._detachment is not None:
            listeners.append(self._detachment.heard)
        session = Session(plan, folder, clock, ledger, os.environ, *listeners, adopted=adopted, keep=self._keep)
        self._sessions.add(session)
        try:
            result = await session.run()
        except BaseException:
            with suppress(Exception):
                ledger.lose(folder.run_id)
            raise
        finally:
            self._sessions.discard(session)
            live_file.close()
        self._results[number] = result
        self._codes.append((number, int(result["exit_code"])))

    def _show_ends(self, *, only: int | None = None) -> None:
        """How the runs ended; what still bills goes to standard error as well where standard output is JSON."""
        chosen = [r for i, r in sorted(self._results.items()) if only is None or i == only]
        for result in chosen:
            write_run_report(site().home, result)
        # Whoever reads this may have gone; how the runs ended stays as it is.
        with suppress(OSError):
            out = console(stderr=self._as_json)
            for result in chosen:
                billing = still_billing_lines(result) if result["release"]["state"] != "gone" else []
                folder = site().home / "runs" / result["run_id"]
                lines = summary_lines(result, folder, width_of(out)) if len(chosen) == 1 else brief_lines(result)
                for line in ["", *billing, *([] if self._as_json else lines)]:
                    out.print(line)
            sys.stdout.flush()

    def _show_comparison(self) -> None:
        """How to compare the runs, if they are several, and the page over all of them."""
        results = [result for _, result in sorted(self._results.items())]
        if not self._as_json:
            with suppress(OSError):
                for line in compare_lines(results):
                    console().print(line)
        if len(results) > 1 and (path := write_comparison(site().home, results)):
            with suppress(OSError):
                console(stderr=self._as_json).print(f"report       {len(results)} runs compared: {path}")

    @staticmethod
    def _say(*lines: str | Text) -> None:
        out = console(stderr=True)
        with suppress(OSError):
            for line in lines:
                out.print(line)

"""Calls the SDK beside the event loop: hears resource providers meanwhile, and ends the engine where that is wanted."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from provisioners.contract import Site
from provisioners.threads import in_thread
from recipes.errors import RecipeError
from stacks import locks
from stacks.backend import pulumi_home, refusal
from stacks.log import Log
from stacks.report import CLIENT, VARIABLE, Report, sweep, this_client
from stacks.values import Heard, NoSuchStack, StackBusy, StackFailed

if TYPE_CHECKING:
    from stacks.sdk import Command

T = TypeVar("T")
LAST_WORD_S = 10.0
"""How long an engine that was asked to end may take to finish its running step and to write its state."""
_SHORT_S = 2.0
"""The same for one that has no step to finish."""
_LOOK_S = 0.1
_PROMPT_S = 2.0
"""How long the SDK may take to notice that an engine was ended by force."""


class Driver:
    """One thing at a time for one stack."""

    def __init__(self, site: Site, stack: str, command: Command, log: Log) -> None:
        """`stack` is what people call it."""
        self._site, self._stack, self.command, self.log = site, stack, command, log
        self._turn = asyncio.Lock()
        self.report = Report()
        """What providers told during the last operation."""

    async def call(self, what: str, call: Callable[[], T]) -> T:
        """Something that no provider has a part in. Raises NoSuchStack, StackBusy, StackFailed.

        Tried once more where a process that has died left its lock: Pulumi makes and removes a stack under one.
        """
        async with self._turn:
            try:
                return await self._work(what, call, Report(), None, [], _SHORT_S)
            except StackBusy:
                if self.lifted() is None:
                    raise
            return await self._work(what, call, Report(), None, [], _SHORT_S)

    def lifted(self) -> locks.Holder | None:
        """Whose lock is gone now, if all locks that kept the last command off were of own processes that have died."""
        found = locks.holders(self.command.last.stderr) if self.command.last is not None else []
        return found[0] if locks.lifted(found) else None

    async def operate(
        self,
        what: str,
        call: Callable[[], T],
        heard: Heard,
        errors: list[str],
        *,
        last_word_s: float = LAST_WORD_S,
    ) -> T:
        """An operation on resources. Raises what their providers say; else the first of `errors`, as StackFailed.

        Cancelled, it asks the engine to end; after `last_word_s`, or when it is cancelled again, it ends it by force.
        """
        async with self._turn:
            with self._reported() as self.report:
                return await self._work(what, call, self.report, heard, errors, last_word_s)

    async def _work(
        self,
        what: str,
        call: Callable[[], T],
        report: Report,
        heard: Heard | None,
        errors: list[str],
        last_word_s: float,
    ) -> T:
        self.command.again()
        working = asyncio.ensure_future(in_thread(call))
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=_LOOK_S)
                report.hear(heard)
        except asyncio.CancelledError:
            await self._end(working, last_word_s)
            raise
        finally:
            report.hear(heard)
        try:
            return working.result()
        except RecipeError:
            raise
        except Exception as error:
            raise self._meant(what, error, report, errors) from error

    async def _end(self, working: asyncio.Future[T], last_word_s: float) -> None:
        """Gracefully, then by force."""
        self.command.interrupt()
        try:
            await asyncio.wait({working}, timeout=last_word_s)
        finally:
            if not working.done():
                self.command.kill()
                await asyncio.wait({working}, timeout=_PROMPT_S)
            if working.done() and not working.cancelled():
                working.exception()  # was looked at

    def _meant(self, what: str, error: Exception, report: Report, errors: list[str]) -> RecipeError:
        """The error as what it is."""
        from pulumi.automation.errors import ConcurrentUpdateError, StackNotFoundError

        from stacks.events import last_error, marked_error

        said = self.command.last.stderr if self.command.last is not None else ""
        if isinstance(error, StackNotFoundError):
            return NoSuchStack(f"there is no stack {self._stack}", advice="recipe stack list shows what there is")
        if isinstance(error, ConcurrentUpdateError):
            by = "; ".join(map(str, locks.holders(said))) or "somebody else"
            advice = f"wait for it to end; if it has died there, recipe stack unlock {self._stack} lifts its lock"
            return StackBusy(f"stack {self._stack} is being changed by {by}", advice=advice)
        if report.error is not None:
            return report.error
        if refused := refusal(self._site, self._stack, said):
            return refused
        code = self.command.last.code if self.command.last is not None else 0
        reason = last_error(errors) or last_error([marked_error(said)])
        if code < 0:
            reason = f"Pulumi's engine was ended by signal {-code}"
        reason = self.log.masked(reason or f"{type(error).__name__}: {error}")
        return StackFailed(f"pulumi {what} of {self._stack}: {reason}", advice=f"all that it said: {self.log.path}")

    @contextmanager
    def _reported(self) -> Iterator[Report]:
        """A fresh file for what providers tell."""
        folder = pulumi_home(self._site) / "reports"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep(folder)
        handle, path = tempfile.mkstemp(dir=folder)
        os.close(handle)
        self.command.env |= {VARIABLE: path, CLIENT: this_client()}
        try:
            yield Report(Path(path))
        finally:
            for name in (VARIABLE, CLIENT):
                del self.command.env[name]
            Path(path).unlink(missing_ok=True)

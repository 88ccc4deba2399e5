"""How `recipe stack` speaks: what happens on stderr, what came of it on stdout, a question, and signals."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from rich.console import RenderableType

from recipes.errors import ExitCode, RecipeError, UsageError
from runners.cli.common import console
from runners.signals import WISH, handled
from runners.terminal.cells import plain
from runners.terminal.layout import labelled, width_of
from runners.terminal.stack_view import Happening, changes_lines, outputs_lines
from stacks.values import Changes


class Interrupted(RecipeError):
    """By a signal."""

    exit_code = ExitCode.INTERRUPTED


class Screen:
    """Of one command."""

    def __init__(self, *, as_json: bool = False) -> None:
        """With `as_json` standard output is left to the document."""
        self._as_json = as_json
        self._err = console(stderr=True)
        self._out = self._err if as_json else console()
        self._changing = False
        self._stepping = False

    @property
    def width(self) -> int | None:
        """Of what `print` writes to."""
        return width_of(self._out)

    def print(self, lines: Iterable[RenderableType]) -> None:
        """What came of it."""
        for line in lines:
            self._out.print(line)

    def labelled(self, label: str, text: str) -> None:
        """Behind a label."""
        self.print(labelled(label, plain(text), self.width))

    def remark(self, text: str) -> None:
        """Beside it."""
        self._err.print(text)

    def changes(
        self, changes: Changes, label: str, texts: Sequence[str], reasons: Sequence[tuple[str, str]] = ()
    ) -> None:
        """What would change, why, and what comes of that."""
        self.print(changes_lines(changes, label, texts, self.width, reasons))

    def outputs(self, told: Iterable[tuple[str, str]], notes: Sequence[str] = ()) -> None:
        """What a stack has put out."""
        self.print(outputs_lines(told, self.width))
        self.print(notes)

    @contextmanager
    def happening(self, what: str, *, changing: bool = False) -> Iterator[Happening]:
        """While entered, what happens is shown; `changing`: Pulumi runs steps, and may leave something behind."""
        self._changing, self._stepping = self._changing or changing, changing
        try:
            with Happening(self._err, what).shown() as heard:
                yield heard
        finally:
            self._stepping = False

    async def agreed(self, question: str, *, yes: bool) -> bool:
        """Whether the user, at a terminal, says yes. Raises UsageError where nobody can be asked."""
        if yes:
            return True
        if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
            raise UsageError("nothing was changed: nobody can be asked here", advice="the same with --yes does it")
        self._err.print(f"{question}? [y/N] ", end="")
        try:
            typed = await _typed()
        except asyncio.CancelledError:
            self._err.print()  # the question's line ends here
            raise
        if not typed.endswith("\n"):
            self._err.print()
        agreed = typed.strip().lower() in ("y", "yes")
        if not agreed:
            self._err.print("nothing was changed")
        return agreed

    @asynccontextmanager
    async def heeding_signals(self, again: str) -> AsyncIterator[None]:
        """The first signal lets Pulumi finish its step and write its state; the second ends it at once.

        `again` is the command that goes on where it stops.
        """
        task, heard = asyncio.current_task(), list[str]()

        def on_signal(name: str) -> None:
            if name == WISH.name or task is None:
                return
            heard.append(name)
            if self._stepping and len(heard) == 1:
                self.remark("stops after the running step; once more: now")
            task.cancel()

        with handled(on_signal):
            try:
                yield
            except asyncio.CancelledError:
                raise self._interrupted(heard, again) from None

    def _interrupted(self, heard: Sequence[str], again: str) -> Interrupted:
        by = f"interrupted by {heard[0]}" if heard else "interrupted"
        if not self._changing:
            return Interrupted(f"{by}; nothing was changed")
        return Interrupted(f"{by} before it was done", advice=f"{again} goes on; recipe stack list shows what bills")


async def _typed() -> str:
    """A line from the terminal; a signal while waiting is heard at once."""
    loop, ready, number = asyncio.get_running_loop(), asyncio.Event(), sys.stdin.fileno()
    loop.add_reader(number, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(number)
    return os.read(number, 1024).decode(errors="replace")

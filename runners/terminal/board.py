"""Many runs at once: a line each that stays in place, or prefixed lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from runners.events import (
    Advanced,
    Driven,
    Event,
    Interrupted,
    LeaseChanged,
    Listener,
    PhaseEnded,
    PhaseStarted,
    RunEnded,
    Warned,
)
from runners.terminal.progress import HINT, driven_parts, plain_line
from runners.terminal.words import clock_time, dollars, shortened


@dataclass
class _Row:
    name: str
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    phase: str = "plan"
    usd: float = 0.0
    note: str = ""
    mark: Text = field(default_factory=lambda: Text("…", style="dim"))


class Board:
    """Gives every run a listener of its own."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total = console, total
        self._rows: list[_Row] = []
        self._billing: list[Text] = []
        self.live: Live | None = None
        if console.is_terminal:
            self.live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def listener(self, name: str) -> Listener:
        row = _Row(name)
        self._rows.append(row)

        def listen(event: Event) -> None:
            self._advance(row, event)
            if self.live is None and not isinstance(event, Driven) and (line := plain_line(event)):
                self._console.print(f"[{name}] {line}", markup=False)

        return listen

    def say(self, *lines: str) -> None:
        with suppress(OSError):
            for line in lines:
                self._console.print(line, markup=False)

    def _advance(self, row: _Row, event: Event) -> None:
        match event:
            case PhaseStarted():
                row.phase, row.note = event.phase, ""
            case PhaseEnded():
                row.usd += event.usd or 0.0
            case Advanced() | Warned():
                row.note = event.message
            case Driven():
                row.note = "  ".join(driven_parts(event)[:3])
            case Interrupted():
                row.note = "letting go now" if event.second else "stopping, collecting, letting go"
            case LeaseChanged(state="may-still-bill"):
                self._billing.append(Text(f"NOT PROVEN GONE   {event.name}: {event.proof}", style="bold red"))
            case RunEnded():
                good = event.status == "completed" and event.exit_code == 0
                row.phase, row.ended, row.note = event.status, time.monotonic(), ""
                row.mark = Text("✓", style="green") if good else Text("✗", style="bold red")
            case _:
                pass

    def _render(self) -> RenderableType:
        done = sum(row.ended is not None for row in self._rows)
        spent = sum(row.usd for row in self._rows)
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column()
        table.add_column(no_wrap=True, min_width=max((len(row.name) for row in self._rows), default=0))
        for _ in range(3):
            table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for row in self._rows:
            took = clock_time((row.ended or time.monotonic()) - row.started)
            table.add_row(row.mark, row.name, row.phase, took, dollars(row.usd), Text(shortened(row.note, 100), "dim"))
        head = Text(f"{done} of {self._total} runs have ended     {dollars(spent)}", style="bold")
        hint = [Text(HINT, style="dim")] if done < self._total else []
        return Group(head, Text(), table, *self._billing, *hint)


@contextmanager
def board(console: Console, total: int) -> Iterator[Board]:
    """While entered, the view of so many runs. A terminal that has gone is no reason to stop."""
    shown = Board(console, total)
    with suppress(OSError):
        if shown.live:
            shown.live.start()
    try:
        yield shown
    finally:
        with suppress(OSError):
            if shown.live:
                shown.live.stop()

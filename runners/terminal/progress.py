"""A run as it goes on: live in a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from runners.events import (
    Advanced,
    Driven,
    Event,
    Interrupted,
    LeaseChanged,
    Noted,
    PhaseEnded,
    PhaseStarted,
    RunStarted,
    Warned,
)
from runners.terminal.words import clock_time, dollars, plural, rate, shortened

_PLAIN_PROGRESS_S = 10.0
HINT = "Ctrl-C once: stop, collect, let go.  Twice: let go now."


@contextmanager
def following(console: Console) -> Iterator[Callable[[Event], None]]:
    """While entered, the listener that shows a run. A terminal that has gone is no reason to stop."""
    if not console.is_terminal:
        yield PlainLines(console)
        return
    view = LiveView(console)
    with suppress(OSError):
        view.live.start()
    try:
        yield view
    finally:
        with suppress(OSError):
            view.live.stop()


class PlainLines:
    """A line per phase and for what is worth knowing; how far the drive is, every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Driven):
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + _PLAIN_PROGRESS_S
        line = plain_line(event)
        if line:
            self._console.print(line)


def plain_line(event: Event) -> str | None:
    """An event as a line; None if it is not worth one."""
    match event:
        case RunStarted():
            limit = f"   at most {dollars(event.max_cost_usd)}" if event.max_cost_usd else ""
            return f"{event.run_id}{limit}   {event.folder}"
        case PhaseStarted("drive"):
            return "drive      started"
        case PhaseEnded():
            state = "done" if event.ok else "FAILED"
            parts = [f"{event.phase:<10} {state:<6} {clock_time(event.seconds):>8}", dollars(event.usd), event.note]
            return "  ".join(filter(None, parts))
        case Noted():
            return f"{event.phase:<10} {event.message}"
        case Warned():
            return f"warning    {event.message}"
        case Interrupted():
            return f"{event.signal}     {'letting go now' if event.second else 'stopping, collecting, letting go'}"
        case LeaseChanged(state="may-still-bill"):
            return f"NOT PROVEN GONE   {event.name}: {event.proof}"
        case Driven():
            return "drive      " + "  ".join(driven_parts(event))
    return None


def driven_parts(event: Driven) -> list[str]:
    """How far the drive is, and how fast."""
    parts = [
        f"{event.done:,}/{event.expected:,} requests",
        *([] if event.unit == "point" else [f"level {event.level}"]),
        f"{event.documents_done}/{plural(event.documents, event.unit)}",
        f"prompt {rate(event.prompt_tokens_per_s)}",
        f"output {rate(event.output_tokens_per_s)}",
    ]
    if event.running is not None:
        parts.append(f"running {event.running:.0f}")
    if event.waiting is not None:
        parts.append(f"waiting {event.waiting:.0f}")
    if event.kv_usage is not None:
        parts.append(f"KV {event.kv_usage:.0%}")
    return parts


class LiveView:
    """The whole run on a few lines that stay in place; when it ends they stand above the summary."""

    def __init__(self, console: Console) -> None:
        self._spinner = Spinner("dots")
        self._started = time.monotonic()
        self._run: RunStarted | None = None
        self._ended: list[PhaseEnded] = []
        self._phase: tuple[str, float] | None = None
        self._notes: dict[str, list[str]] = {}
        self._advanced = ""
        self._driven: Driven | None = None
        self._messages: list[Text] = []
        self.live = Live(console=console, get_renderable=self._render, refresh_per_second=8)

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._run = event
            case PhaseStarted():
                self._phase, self._advanced = (event.phase, time.monotonic()), ""
            case PhaseEnded():
                self._ended.append(event)
                self._phase = None
            case Noted():
                self._notes.setdefault(event.phase, []).append(event.message)
            case Advanced():
                self._advanced = event.message
            case Driven():
                self._driven = event
            case Warned():
                self._messages.append(Text(f"warning: {event.message}", style="yellow"))
            case Interrupted():
                what = "letting go now" if event.second else "stopping, collecting, letting go"
                self._messages.append(Text(f"{event.signal}: {what}", style="bold"))
            case _:
                pass

    def _render(self) -> RenderableType:
        rows: list[RenderableType] = [self._headline(), Text()]
        table = Table.grid(padding=(0, 2))
        for ended in self._ended:
            note = ended.note or " ∥ ".join(self._notes.get(ended.phase, []))
            if ended.phase == "drive" and self._driven:
                note = "  ".join(driven_parts(self._driven)[:3])
            mark = Text("✓", style="green") if ended.ok else Text("✗", style="bold red")
            table.add_row(mark, ended.phase, clock_time(ended.seconds), dollars(ended.usd), Text(shortened(note, 90)))
        if self._phase:
            name, since = self._phase
            table.add_row(self._spinner, name, clock_time(time.monotonic() - since), "", self._activity(name))
        rows += [table, *self._messages]
        if self._phase:
            rows += [Text(HINT, style="dim")]
        return Group(*rows)

    def _headline(self) -> Text:
        if self._run is None:
            return Text("planning …")
        spent = dollars(self._driven.usd) if self._driven else ""
        limit = f"{spent} of {dollars(self._run.max_cost_usd)}" if self._run.max_cost_usd and spent else spent
        parts = [self._run.run_id, limit, clock_time(time.monotonic() - self._started)]
        if self._run.deadline:
            parts.append(f"lets itself go at {datetime.fromisoformat(self._run.deadline):%H:%M} UTC")
        return Text("     ".join(filter(None, parts)), style="bold")

    def _activity(self, phase: str) -> RenderableType:
        if phase != "drive" or self._driven is None:
            return Text(shortened(self._advanced or " ∥ ".join(self._notes.get(phase, [])), 90), style="dim")
        parts = driven_parts(self._driven)
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=max(1, self._driven.expected), completed=self._driven.done, width=20),
            "  ".join(parts[:3]),
        )
        return Group(bar, Text(" · ".join(parts[3:]), style="dim"))

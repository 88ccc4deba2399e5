"""Stacks as people read them: what would change, what happens, what they put out, and which there are."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.status import Status
from rich.text import Text

from runners.terminal.cells import plain
from runners.terminal.layout import labelled, width_of
from runners.terminal.words import clock_time
from stacks.values import INNER_KINDS, Changes, Step

_SIGNS = {"create": "+", "update": "~", "replace": "-/+", "delete": "-"}
_STYLES = {"create": "green", "update": "yellow", "replace": "magenta", "delete": "red"}
_SUMS = {"create": "to create", "update": "to change", "replace": "to replace", "delete": "to delete"}
_BEARERS = INNER_KINDS - {"UniqueName"}
"""What bears such a name ends with it, also where the state knows of no such thing."""


class Row(Protocol):
    """A stack in the list."""

    @property
    def ref(self) -> object: ...
    @property
    def resources(self) -> int | None: ...
    @property
    def busy(self) -> bool | None: ...
    @property
    def unfinished(self) -> bool: ...
    @property
    def updated_at(self) -> datetime | None: ...
    @property
    def says(self) -> str: ...
    @property
    def ways(self) -> str: ...
    @property
    def way_out(self) -> str: ...


def changes_lines(
    changes: Changes, label: str, texts: Sequence[str], width: int | None, reasons: Sequence[tuple[str, str]] = ()
) -> Iterator[RenderableType]:
    """What an update would do, a resource on a line; then what comes of it, such as what it costs, behind a label.

    `reasons` say, each behind its label, why something is replaced; else the names of what differs do.
    """
    changing = [step for step in changes.steps if step.op in _SIGNS]
    shown = [step for step in changing if step.type not in INNER_KINDS]
    shown = shown or [step for step in changing if step.op == "delete" and step.type in _BEARERS]
    kind, name = (max((len(part(step)) for step in shown), default=0) for part in (_kind, _name))
    for step in shown:
        sign = Text(f"{_SIGNS[step.op]:<4}", style=_STYLES[step.op])
        what = f"{step.op:<8} {_kind(step):<{kind}}   {_name(step):<{name}}"
        named = step.op == "update" or (step.op == "replace" and not reasons)
        why = ", ".join(step.changed) if named else ""
        yield Text.assemble(sign, plain(f"{what}   {why}".rstrip()))
    if shown:
        if len(shown) > 1:
            yield _total(changes)
    else:
        yield "nothing changes"
    for name_of, line in reasons:
        yield from labelled(name_of, plain(line), width)
    for i, line in enumerate(texts):
        yield from labelled(label if i == 0 else "", plain(line), width)


def _total(changes: Changes) -> str:
    counted = {
        op: sum(step.op == op and step.type not in INNER_KINDS for step in changes.steps) for op in (*_SUMS, "same")
    }
    sums = [f"{count} {_SUMS[op]}" for op, count in counted.items() if op in _SUMS and count]
    same = f"{counted['same']} unchanged" if counted["same"] else ""
    return ", ".join(filter(None, [*sums, same]))


def _kind(step: Step) -> str:
    return step.type


def _name(step: Step) -> str:
    return step.name


def outputs_lines(told: Iterable[tuple[str, str]], width: int | None) -> Iterator[RenderableType]:
    """What a stack puts out: each with its name."""
    pairs = list(told)
    indent = max((len(name) for name, _ in pairs), default=0) + 3
    for name, value in pairs:
        yield from labelled(plain(name), plain(value), width, indent=indent)


def stacks_lines(rows: Sequence[Row], width: int | None) -> Iterator[RenderableType]:
    """Each stack with what it bills until it is destroyed, and when it was changed."""
    indent = max(len(str(row.ref)) for row in rows) + 3
    for row in rows:
        bills = plain(row.says) or ("holds nothing" if row.resources == 0 else "bills nothing")
        yield from labelled(plain(str(row.ref)), _unfinished(row) if row.unfinished else bills, width, indent=indent)
        as_of = f"as of its last update, {moment(row.updated_at)}" if row.updated_at else "never updated"
        yield from labelled("", "is being changed" if row.busy else as_of, width, indent=indent)
        if row.way_out:
            yield from labelled("", plain(row.way_out), width, indent=indent)


def _unfinished(row: Row) -> str:
    """Of a stack that has put out nothing yet."""
    return f"{plain(row.says) or 'nobody knows what bills'}: its update has not come to its end; {row.ways}"


def volumes_lines(rows: Sequence[Mapping[str, Any]], width: int | None) -> Iterator[RenderableType]:
    """Volumes of caches that no stack uses, each with what it costs, and how it is ended."""
    indent = len("volume") + 3
    for row in rows:
        usd = row["usd_per_month"]
        price = f", ${usd:,.2f}/month" if usd is not None else ""
        what = f"{row['id']}, {row['size_gb']} GB in {row['region']}{price} ({row['name']})"
        yield from labelled("volume", plain(what), width, indent=indent)
        yield from labelled("", plain(row["says"]), width, indent=indent)
        yield from labelled("", f"{plain(row['command'])} ends it, and all that lies on it", width, indent=indent)


def moment(at: datetime) -> str:
    """To the minute, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


class Happening:
    """What happens, a line each with the time since the beginning; at a terminal the time goes on below them."""

    def __init__(self, console: Console, what: str) -> None:
        self._console, self._what, self._begun_s = console, what, time.monotonic()
        self._status = Status(self, console=console, spinner="dots") if console.is_terminal else None

    def __rich__(self) -> Text:
        return Text(f"{self._time()}   {self._what}")

    def __call__(self, line: str) -> None:
        with suppress(OSError):
            for text in labelled(f"  {self._time()}", plain(line), width_of(self._console), indent=9):
                self._console.print(text)

    def _time(self) -> str:
        seconds = time.monotonic() - self._begun_s
        return clock_time(seconds) if seconds >= 10 else f"0:0{int(seconds)}"

    @contextmanager
    def shown(self) -> Iterator[Happening]:
        """While entered, the time is shown at a terminal. One that has gone is no reason to stop."""
        with suppress(OSError):
            if self._status is not None:
                self._status.start()
        try:
            yield self
        finally:
            with suppress(OSError):
                if self._status is not None:
                    self._status.stop()

"""Lines that fit a width: a label in front, words that wrap under themselves, columns that stand below each other."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

LABEL = 10
"""The column at which the words begin that stand behind a label."""
_LEAST = 24
"""Words are not broken into less than this, however narrow the terminal is."""


def width_of(console: Console) -> int | None:
    """The columns of a terminal; None for a pipe, where no line is broken."""
    return console.width if console.is_terminal else None


def labelled(label: str, text: str, width: int | None, *, indent: int = LABEL, style: str = "") -> Iterator[Text]:
    """The text behind its label, on as many lines as the width asks for."""
    for i, line in enumerate(wrapped(text, room(width, indent))):
        head = (label if i == 0 else "").ljust(indent)
        yield Text.assemble((head, style), line)


def room(width: int | None, taken: int) -> int | None:
    """What is left of a line."""
    return None if width is None else max(_LEAST, width - taken)


def wrapped(text: str, width: int | None) -> list[str]:
    """The text's words on lines of at most this width; a word that is longer has a line of its own."""
    if width is None or cell_len(text) <= width:
        return [text]
    lines: list[str] = []
    for word in text.split(" "):
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        elif word or not lines:
            lines.append(word)
    return lines


def wrapped_command(argv: Sequence[str], width: int | None) -> list[str]:
    """A command as a shell takes it; where it is broken, the shell's own mark says that it goes on."""
    whole = shlex.join(argv)
    if width is None or cell_len(whole) <= width:
        return [whole]
    lines: list[str] = []
    for words in _with_their_values(argv):
        if lines and cell_len(lines[-1]) + 3 + cell_len(words) <= width:
            lines[-1] += f" {words}"
        else:
            lines.append(words)
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def _with_their_values(argv: Sequence[str]) -> Iterator[str]:
    """The words of a command; a flag together with the value that follows it."""
    held = ""
    for word in argv:
        quoted = shlex.quote(word)
        if held and not word.startswith("-"):
            yield f"{held} {quoted}"
            held = ""
            continue
        if held:
            yield held
        held = quoted if word.startswith("-") else ""
        if not held:
            yield quoted
    if held:
        yield held


def in_parts(parts: Iterable[str], width: int | None, *, between: str = "   ") -> list[str]:
    """The parts one after the other, each whole; what does not fit the line begins the next."""
    lines: list[str] = []
    for part in filter(None, parts):
        if lines and (width is None or cell_len(lines[-1]) + len(between) + cell_len(part) <= width):
            lines[-1] += between + part
        else:
            lines += wrapped(part, width)
    return lines


def columns(rows: Sequence[Sequence[str]], *, right: Collection[int] = (), between: str = "   ") -> list[str]:
    """The rows with their cells below each other; columns that are empty everywhere are left out."""
    if not rows:
        return []
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return [
        between.join(
            _set(cell, width, right=i in right)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            if width
        )
        for row in rows
    ]


def table(
    rows: Sequence[Sequence[str]],
    width: int | None,
    *,
    right: Collection[int] = (),
    drop: Sequence[int] = (),
    spare: int = 0,
) -> list[str]:
    """A heading and its rows as columns that fit the width, with so much to spare: closer together, else with fewer.

    Columns without anything below their heading are left out, and those that give way are tried in the order of `drop`.
    """
    empty = {i for i in range(len(rows[0])) if not any(row[i] for row in rows[1:])}
    for gone in range(len(drop) + 1):
        hidden = empty | set(drop[:gone])
        kept = [["" if i in hidden else cell for i, cell in enumerate(row)] for row in rows]
        for between in ("   ", "  "):
            lines = columns(kept, right=right, between=between)
            if width is None or cell_len(lines[0]) + spare <= width:
                return lines
    return lines


def _set(cell: str, width: int, *, right: bool) -> str:
    blank = " " * (width - cell_len(cell))
    return blank + cell if right else cell + blank

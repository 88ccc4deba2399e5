"""Why nothing was rented, and what would work: each reason in a few lines, with its way out."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterator
from typing import Any

from rich.text import Text

from runners.terminal.layout import LABEL, columns, labelled, room, wrapped_command
from runners.terminal.words import dollars, shortened

_WORKS = 18
"""The column of remedies: behind `works:`."""
_BRIEF = 120
_RIGHT = 107
"""The exit code stands at the right edge, but not further out than eyes go."""


def refusal_lines(plan: dict[str, Any], width: int | None = None) -> Iterator[Text]:
    """The whole screen: the reasons, and that nothing was rented."""
    yield from reason_lines(plan, width)
    yield from nothing_rented(plan, width)


def reason_lines(plan: dict[str, Any], width: int | None) -> Iterator[Text]:
    """Every block: what is wrong, what the engine would say, where it is written, what would work.

    What would work mends all of them: those that it does not stand with are told in short.
    """
    blocks = [finding for finding in plan["findings"] if finding["level"] == "block"]
    mended = any(finding["works"] for finding in blocks)
    for finding in blocks:
        yield from _reason(plan, finding, width, brief=mended and not finding["works"])


def nothing_rented(plan: dict[str, Any], width: int | None) -> Iterator[Text]:
    """The last line, with the exit code."""
    said, code = f"nothing was rented for {plan['recipe']}", f"exit {plan.get('exit_code', 3)}"
    gap = 6 if width is None else max(6, min(width, _RIGHT) - len(said) - len(code))
    yield Text(f"{said}{' ' * gap}{code}")


def remedy_command(plan: dict[str, Any], overrides: list[str]) -> list[str]:
    """The command line that plans the same recipe, or the same run of a matrix, with a change."""
    changed = dict(override.partition("=")[::2] for override in overrides)
    command = _without(shlex.split(plan["command"]), changed)
    # The values of a matrix are set after everything else: a change of one has to be made in it.
    axes = [f"{path}: [{changed.get(path, _yaml(value))}]" for path, value in plan["variant"].items()]
    settings = [f"matrix={{{', '.join(axes)}}}"] if axes else []
    sets = [part for text in [*settings, *overrides] for part in ("--set", text)]
    return [command[0], "plan", *command[2:], *sets]


def _without(command: list[str], changed: Collection[str]) -> list[str]:
    """The command less what it sets itself of these paths."""
    kept: list[str] = []
    for word in command:
        if kept and kept[-1] == "--set" and word.partition("=")[0] in changed:
            kept.pop()
        else:
            kept.append(word)
    return kept


def _yaml(value: Any) -> str:
    """A value as --set reads it: JSON is YAML, and plain words need no quotes."""
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w.-]*", value) else json.dumps(value)


def _reason(plan: dict[str, Any], finding: dict[str, Any], width: int | None, *, brief: bool) -> Iterator[Text]:
    yield from labelled("refused", finding["message"], width, style="bold red")
    if finding["quote"]:
        said = quoted(plan, finding)
        yield from labelled("", shortened(said, room(width, LABEL) or _BRIEF) if brief else said, width)
    if finding["path"]:
        yield from labelled("", _where(finding), width)
    works = finding["works"]
    if works:
        yield from _works(works, width)
        argv = remedy_command(plan, works[0]["overrides"])
        for i, line in enumerate(wrapped_command(argv, room(width, _WORKS))):
            yield Text(_label("try:" if i == 0 else "").ljust(_WORKS) + line)
    elif finding["suggestion"] and not brief:
        yield from labelled("", finding["suggestion"], width)


# Checks whose words are those of the machine and not of the engine.
_OF_THE_MACHINE = frozenset({"disk", "volume", "cuda"})


def quoted(plan: dict[str, Any], finding: dict[str, Any]) -> str:
    """What would be read later, and who would say it."""
    engine = plan["engine"]
    who = (
        "it would end in" if finding["code"] in _OF_THE_MACHINE else f"{engine.get('title', engine['name'])} would say"
    )
    return f"{who}: {finding['quote']}"


def _where(finding: dict[str, Any]) -> str:
    """The place in the file and the field; an override is its own place."""
    place = finding.get("place", "")
    if place.startswith("--set "):
        return str(place.rsplit(":", 2)[0])
    return "  ".join(filter(None, (place, finding["path"])))


def _works(works: list[dict[str, Any]], width: int | None) -> Iterator[Text]:
    """What would work, each with its price; a change of flags is told as it is written."""
    rows = []
    for remedy in works:
        hardware, _, details = remedy["text"].partition(" (")
        machine = any(text.startswith("resources.accelerators=") for text in remedy["overrides"])
        what = hardware if machine else ", ".join(remedy["overrides"])
        price = f"{dollars(remedy['price_usd_per_h'])}/h" if remedy["price_usd_per_h"] is not None else ""
        rows.append([what, price, f"({details}" if details else ""])
    if width is not None and max(map(len, columns(rows))) > width - _WORKS:
        # What follows is the least of it: below its own change there is room.
        rows, below = [row[:2] for row in rows], [row[2] for row in rows]
    else:
        below = [""] * len(rows)
    for i, (line, details) in enumerate(zip(columns(rows), below, strict=True)):
        yield from labelled(_label("works:" if i == 0 else ""), line.rstrip(), width, indent=_WORKS)
        if details:
            yield from labelled("", details, width, indent=_WORKS + 2)


def _label(word: str) -> str:
    return " " * LABEL + word

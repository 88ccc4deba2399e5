"""Machines that may be billing, as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import RenderableType

from recipes.errors import RecipeError
from runners.terminal.summary import aligned_table
from runners.terminal.words import dollars

_CLIENT = {"running": "its client runs", "gone": "CLIENT GONE", "elsewhere": "not begun here"}


def machine_lines(rows: list[dict[str, Any]], *, none: str) -> list[RenderableType]:
    """A line each, or one that says that there is none."""
    if not rows:
        return [none]
    cells = [
        [
            row["name"],
            row["provider"],
            row["id"] or "?",
            row["state"],
            _held(row) or _CLIENT[row["client"]] + _of_machine(row),
            f"{dollars(row['price_usd_per_h'])}/h" if row["price_usd_per_h"] is not None else "",
            dollars(row["usd"]),
            row["deadline"][5:16].replace("T", " ") if row["deadline"] else "",
        ]
        for row in rows
    ]
    header = ("machine", "at", "id", "state", "client", "price", "so far", "lets itself go (UTC)")
    left = [row for row in rows if _left_alone(row)]
    hints = [f"what its driver has done comes home with recipe attach {row['run_id']}" for row in left]
    hints += [
        f"stack {row['held_by']} has its state in {row['backend']}; recipe down {row['run_id']} ends its pod from here"
        for row in rows
        if row.get("held_by") and row.get("backend")
    ]
    hints += [f"recipe down {row['run_id']} proves that it is gone" for row in rows if row.get("until")]
    return [aligned_table(header, cells, right=("price", "so far")), *hints]


def _held(row: Mapping[str, Any]) -> str:
    return f"stack {row['held_by']}" if row.get("held_by") else ""


def held_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Machines that stacks keep, and how they are ended."""
    return [
        f"held      {row['name']}: by stack {row['held_by']}"
        + (f" until {row['deadline'][5:16].replace('T', ' ')} UTC" if row["deadline"] else "")
        + "; "
        + _way_out(row)
        for row in rows
    ]


def _way_out(row: Mapping[str, Any]) -> str:
    """How a machine that a stack keeps is ended: through the stack, where its state can be found."""
    if row.get("backend"):
        return f"its state lies in {row['backend']}; recipe down {row['run_id']} ends it"
    return f"recipe stack destroy {row['held_by']} ends it"


def _of_machine(row: Mapping[str, Any]) -> str:
    """What became of it, where its client says nothing of that any more."""
    if row.get("until"):
        return ", ITSELF TOO"
    return ", driver left" if _left_alone(row) else ""


def _left_alone(row: Mapping[str, Any]) -> bool:
    """Whether the work of a run goes on, or waits to be fetched, on a machine that nobody minds."""
    return bool(row["driver"]) and row["client"] == "gone"


def ended_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """How each was let go; what could not be proven with its way out."""
    lines = []
    for row in rows:
        release = row["release"]
        if release["state"] == "gone":
            lines.append(f"gone      {row['name']}: {release['proof']}")
            continue
        price = f" may still be billing {dollars(row['price_usd_per_h'])}/h" if row["price_usd_per_h"] else ""
        lines += [
            f"NOT PROVEN GONE   {row['name']}{price}",
            f"                  {release['reason']}",
            f"now:              {release['command']}",
        ]
    return lines


def silent_lines(silent: Mapping[str, RecipeError]) -> list[str]:
    """Providers that could not be asked."""
    return [
        f"{name} could not be asked: {error.message}" + (f"; {error.advice}" if error.advice else "")
        for name, error in silent.items()
    ]

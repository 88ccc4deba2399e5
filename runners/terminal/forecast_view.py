"""How long a run will take and what it will cost, phase by phase."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.text import Text

from runners.terminal.layout import LABEL, columns, labelled
from runners.terminal.words import dollars, whole_seconds

_FIGURES = ("low", "likely", "high")
_WORTH_TELLING_USD = 0.05
"""From here on the phases are told to the cent; of a smaller bill only the sum."""


def forecast_lines(document: dict[str, Any], width: int | None) -> Iterator[Text]:
    """A row for each phase with its low, likely and high time and its likely cost; their sum; where it comes from."""
    forecast = document["forecast"]
    if not forecast or not forecast["phases"]:
        return
    rows = [["", *_FIGURES, ""]]
    total_usd = forecast["total_usd"]
    worth = bool(total_usd) and total_usd["likely"] >= _WORTH_TELLING_USD
    rows += [
        _row(phase["name"], phase["seconds"], _cents(phase["usd"]) if worth else "") for phase in forecast["phases"]
    ]
    rows.append(_row("total", forecast["total_seconds"], dollars(total_usd["likely"]) if total_usd else ""))
    table = columns(rows, right=(1, 2, 3, 4))
    for i, line in enumerate(table[:-1]):
        yield Text(("forecast" if i == 0 else "").ljust(LABEL) + line.rstrip())
    total, bounds = " " * LABEL + table[-1], _bounds(document)
    if width is None or len(total) + len(bounds) <= width:
        yield Text(total.rstrip() + bounds, style="bold")
    else:
        yield Text(total.rstrip(), style="bold")
        yield from labelled("", bounds.strip(), width)
    yield from labelled("", f"drive from {_basis(forecast)}", width, style="dim")
    offer: dict[str, Any] = next(iter(document.get("offers") or ()), {})
    if total_usd and offer.get("storage_usd_per_h"):
        disks = f"with {dollars(offer['storage_usd_per_h'])}/h for the disks: {offer['storage_basis']}"
        yield from labelled("", disks, width, style="dim")


def _row(name: str, seconds: dict[str, float], cost: str) -> list[str]:
    return [name, *(whole_seconds(seconds[figure]) for figure in _FIGURES), cost]


def _cents(usd: dict[str, float] | None) -> str:
    return "" if usd is None else f"${usd['likely']:,.2f}"


def _bounds(document: dict[str, Any]) -> str:
    """The range of the cost, and what it is allowed to be."""
    usd, most = document["forecast"]["total_usd"], document.get("limits", {}).get("max_cost")
    span = f"   {dollars(usd['low'])} to {dollars(usd['high'])}" if usd and usd["high"] else ""
    return f"{span}   of max_cost {dollars(float(most))}" if usd and most is not None else span


def _basis(forecast: dict[str, Any]) -> str:
    phases: dict[str, str] = {phase["name"]: phase["basis"] for phase in forecast["phases"]}
    return phases.get("drive") or next(reversed(phases.values()))

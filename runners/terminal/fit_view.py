"""What serves a model, as people read it: a row for each accelerator and count, the cheapest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from runners.terminal.layout import in_parts, labelled, room, table, wrapped_command
from runners.terminal.words import amount, dollars, gib

_HEADER = ["accelerators", "$/h", "stock", "parallel", "weights", "KV tokens", "longest", "at once"]
_RIGHT = (1, 4, 5, 6, 7)
_LEFT_OUT_FIRST = (4, 2)
"""Columns that a narrow terminal goes without."""
_ROOM_FOR_VERDICT = 8
_WARNINGS = 3


def fit_lines(document: Mapping[str, Any], width: int | None, *, limit: int = 0, why_not: str = "") -> Iterator[Text]:
    """The table, what had to be assumed, and how to plan with the first row that fits. A limit of 0 shows all."""
    rows = document["fits"]
    engine = " ".join(filter(None, (document["engine"]["name"], document["engine"]["version"])))
    without = document["prices"].startswith("no prices")
    for line in in_parts([document["model"], engine, "" if without else f"prices: {document['prices']}"], width):
        yield Text(line, style="bold")
    if without:
        yield from labelled("", document["prices"], width, indent=0, style="dim")
    yield Text()
    if rows:
        yield from _table(rows[:limit] if limit > 0 else rows, width)
        yield from _below(rows, width, limit)
    else:
        yield from labelled(
            "none", f"serves it: {why_not}" if why_not else "serves it", width, indent=5, style="bold red"
        )
    for warning in document["warnings"]:
        yield from labelled("warning", warning, width, style="yellow")


def _table(rows: list[dict[str, Any]], width: int | None) -> Iterator[Text]:
    cells = [_HEADER, *map(_cells, rows)]
    lines = table(cells, width, right=_RIGHT, drop=_LEFT_OUT_FIRST, spare=3 + _ROOM_FOR_VERDICT)
    yield Text(lines[0].rstrip(), style="bold")
    for line, row in zip(lines[1:], rows, strict=True):
        verdict, style = _verdict(row)
        if width is None or len(line) + 3 + len(verdict) <= width:
            yield Text.assemble(line, "   ", (verdict, style))
        else:
            yield Text(line.rstrip())
            yield from labelled("", verdict, width, indent=4)


def _cells(row: dict[str, Any]) -> list[str]:
    weights = row["weights_gib_per_gpu"]
    return [
        f"{row['accelerator']} ×{row['count']}",
        dollars(row["price_usd_per_h"]),
        row["stock"] or "",
        _spread(row),
        "" if weights is None else gib(weights),
        "" if row["kv_tokens"] is None else amount(row["kv_tokens"]),
        "" if row["longest_context"] is None else amount(row["longest_context"]),
        "" if row["at_once"] is None else f"{row['at_once']:,}",
    ]


def _spread(row: dict[str, Any]) -> str:
    tensor, pipeline = row["tensor_parallel_size"], row["pipeline_parallel_size"]
    parts = [f"TP {tensor}" if tensor > 1 else "", f"PP {pipeline}" if pipeline > 1 else ""]
    return " ".join(filter(None, parts))


def _verdict(row: dict[str, Any]) -> tuple[str, str]:
    """fits, or what is less than asked for; a star where the engine warns of something."""
    if row["verdict"] == "no":
        return f"no: {row['reason']}", "red"
    star = " *" if row["warnings"] else ""
    if row["verdict"] == "fits":
        return f"fits{star}", "yellow" if star else "green"
    return f"fits {row['reason']}{star}", "yellow"


def _below(rows: list[dict[str, Any]], width: int | None, limit: int) -> Iterator[Text]:
    """How many more there are, what the stars mean, and the command that goes on from here."""
    if 0 < limit < len(rows):
        yield Text(f"and {len(rows) - limit:,} more; --limit 0 shows all", style="dim")
    yield from _warnings(rows[:limit] if limit > 0 else rows, width)
    fitting = [row for row in rows if row["verdict"] == "fits"]
    best = min(fitting, key=lambda row: bool(row["warnings"]), default=None)
    if best:
        sets = [part for text in best["overrides"] for part in ("--set", text)]
        yield Text()
        for i, line in enumerate(wrapped_command(["recipe", "plan", "RECIPE", *sets], room(width, 6))):
            yield Text(f"{'try:' if i == 0 else '':<6}{line}")


def _warnings(rows: list[dict[str, Any]], width: int | None) -> Iterator[Text]:
    """What the stars of these rows stand for, each once."""
    said = list(dict.fromkeys(warning for row in rows if row["verdict"] != "no" for warning in row["warnings"]))
    for warning in said[:_WARNINGS]:
        yield from labelled("*", warning, width, indent=2, style="yellow")
    if len(said) > _WARNINGS:
        yield Text(f"  and {len(said) - _WARNINGS:,} more such warnings; --json holds all", style="dim")

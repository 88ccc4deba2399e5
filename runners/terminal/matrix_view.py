"""Several plans in a table: what each would do, take and cost, and which of them are refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from runners.terminal.layout import room, table, wrapped, wrapped_command
from runners.terminal.refusal_view import remedy_command
from runners.terminal.words import amount, dollars, plural, whole_seconds

_HEADER = ["run", "machine", "KV tokens", "at once", "time", "cost"]
_RIGHT = (2, 3, 4, 5)
_LEFT_OUT_FIRST = (3, 2, 1)
"""Columns that give way to the verdict in a narrow terminal."""
_ROOM_FOR_VERDICT = 10
_INDENT = 6


def plans_lines(plans: Sequence[dict[str, Any]], width: int | None) -> Iterator[Text]:
    """A row for each run, its first reason if it is refused, and the sums of those that go."""
    rows = table(
        [_HEADER, *map(_cells, plans), _total(plans)],
        width,
        right=_RIGHT,
        drop=_LEFT_OUT_FIRST,
        spare=_ROOM_FOR_VERDICT,
    )
    left = len(rows[0]) + 3
    yield Text(f"{rows[0]}   verdict" if width is None or left + 7 <= width else rows[0].rstrip(), style="bold")
    for line, plan in zip(rows[1:-1], plans, strict=True):
        verdict, style = ("go", "green") if plan["verdict"] == "go" else (f"refused: {_reason(plan)}", "bold red")
        yield from _row(line, verdict, style, left, width)
    yield from _row(rows[-1], _how_many_go(plans), "bold", left, width)
    refused = next((plan for plan in plans if plan["verdict"] == "refuse"), None)
    if refused is not None:
        yield Text()
        for i, command in enumerate(wrapped_command(remedy_command(refused, []), room(width, _INDENT))):
            yield Text(("why:" if i == 0 else "").ljust(_INDENT) + command)


def _row(line: str, verdict: str, style: str, left: int, width: int | None) -> Iterator[Text]:
    """The verdict behind the figures, or below them where that would leave it too little room."""
    if width is None or len(verdict) <= width - left:
        yield Text.assemble(line, "   ", (verdict, style))
        return
    below = left if width - left >= 40 else 4
    lines = wrapped(verdict, room(width, below))
    yield Text.assemble(line, "   ", (lines.pop(0), style)) if below == left else Text(line.rstrip())
    yield from (Text(" " * below + more, style) for more in lines)


def _cells(plan: dict[str, Any]) -> list[str]:
    offer, memory = next(iter(plan["offers"]), None), plan["memory"]
    forecast = plan["forecast"] if plan["verdict"] == "go" else None
    usd = forecast["total_usd"] if forecast else None
    return [
        plan["recipe"],
        _machine(offer) if offer else "",
        amount(memory["kv_tokens"]) if memory else "",
        f"{min(memory['max_running'], memory['slots']):,}" if memory else "",
        whole_seconds(forecast["total_seconds"]["likely"]) if forecast else "",
        dollars(usd["likely"]) if usd else "",
    ]


def _machine(offer: dict[str, Any]) -> str:
    return f"{offer['accelerator']} ×{offer['count']}" if offer["accelerator"] else plural(offer["cpus"] or 1, "CPU")


def _total(plans: Sequence[dict[str, Any]]) -> list[str]:
    """Of the runs that go: their time one after the other, and their cost."""
    going = [plan for plan in plans if plan["verdict"] == "go"]
    forecasts = [plan["forecast"] for plan in going if plan["forecast"]]
    costs = [forecast["total_usd"]["likely"] for forecast in forecasts if forecast["total_usd"]]
    time = whole_seconds(sum(forecast["total_seconds"]["likely"] for forecast in forecasts)) if forecasts else ""
    return ["total", "", "", "", time, dollars(sum(costs)) if costs else ""]


def _how_many_go(plans: Sequence[dict[str, Any]]) -> str:
    refused = sum(plan["verdict"] == "refuse" for plan in plans)
    told = f"{len(plans) - refused:,} of {plural(len(plans), 'run')} go"
    return f"{told}, {refused:,} refused" if refused else told


def _reason(plan: dict[str, Any]) -> str:
    return next((finding["message"] for finding in plan["findings"] if finding["level"] == "block"), "")

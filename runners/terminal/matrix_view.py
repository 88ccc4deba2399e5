"""Several plans in a table: what each would do, take and cost, and which of them are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from runners.terminal.checks_view import topic
from runners.terminal.layout import labelled, room, table, wrapped, wrapped_command
from runners.terminal.refusal_view import remedy_command
from runners.terminal.words import amount, dollars, plural, whole_seconds

_HEADER = ["run", "machine", "KV tokens", "at once", "time", "cost"]
_RIGHT = (2, 3, 4, 5)
_LEFT_OUT_FIRST = (3, 2, 1)
"""Columns that give way to the verdict in a narrow terminal."""
_ROOM_FOR_VERDICT = 10
_INDENT = 6
_LONGEST_REASON = 120
"""Characters of a reason that stands in its row."""
_OF_A_KIND = 3
"""So many sentences of a kind are told."""
_BUDGET = "budget-month"


def plans_lines(plans: Sequence[dict[str, Any]], width: int | None, *, repeat: int = 1) -> Iterator[Text]:
    """A row for each run, its first reason if it is refused, and the sums of those that go, each `repeat` times.

    Below them what is too long for a row, and the warnings.
    """
    rows = table(
        [_HEADER, *map(_cells, plans), _total(plans, repeat)],
        width,
        right=_RIGHT,
        drop=_LEFT_OUT_FIRST,
        spare=_ROOM_FOR_VERDICT,
    )
    left = len(rows[0]) + 3
    yield Text(f"{rows[0]}   verdict" if width is None or left + 7 <= width else rows[0].rstrip(), style="bold")
    for line, plan in zip(rows[1:-1], plans, strict=True):
        yield from _row(line, *_verdict(plan), left, width)
    yield from _row(rows[-1], _how_many_go(plans, repeat), "bold", left, width)
    yield from _notes(plans, width)
    # Alone it may be within the budget that it is above after the others.
    refused = next((plan for plan in plans if {f["code"] for f in _findings(plan, "block")} - {_BUDGET}), None)
    if refused is not None:
        yield Text()
        for i, command in enumerate(wrapped_command(remedy_command(refused, []), room(width, _INDENT))):
            yield Text(("why:" if i == 0 else "").ljust(_INDENT) + command)


def _verdict(plan: dict[str, Any]) -> tuple[str, str]:
    """In a few words, with the style."""
    if plan["verdict"] != "go":
        return f"refused: {_brief(plan)}", "bold red"
    warnings = len(_findings(plan, "warn"))
    return (f"go, {plural(warnings, 'warning')}", "yellow") if warnings else ("go", "green")


def _brief(plan: dict[str, Any]) -> str:
    """The first reason, or only what it is about if it is told below."""
    reason = next(iter(_findings(plan, "block")), None)
    if reason is None:
        return ""
    message: str = reason["message"]
    return message if len(message) <= _LONGEST_REASON else f"{topic(reason['code'])}, see below"


def _notes(plans: Sequence[dict[str, Any]], width: int | None) -> Iterator[Text]:
    """Long reasons and all warnings: each once, with the runs that it is about; of many of a kind only some."""
    of_runs: dict[tuple[str, str, str, str], list[str]] = {}
    nearly_spent = [f["message"] for plan in plans for f in _findings(plan, "warn") if f["code"] == _BUDGET]
    for plan in plans:
        long = [f for f in _findings(plan, "block")[:1] if len(f["message"]) > _LONGEST_REASON]
        for label, findings in (("refused", long), ("warning", _findings(plan, "warn"))):
            for finding in findings:
                if label == "warning" and finding["code"] == _BUDGET and finding["message"] != nearly_spent[-1]:
                    continue  # the last one's sum is that of all before it as well
                key = (label, finding["code"], finding["message"], finding["suggestion"])
                of_runs.setdefault(key, []).append(plan["recipe"])
    shown = Counter[tuple[str, str]]()
    for i, ((label, code, message, suggestion), names) in enumerate(of_runs.items()):
        shown[label, code] += 1
        if i == 0:
            yield Text()
        if shown[label, code] <= _OF_A_KIND:
            who = names[0] if len(names) == 1 else plural(len(names), "run")
            yield from labelled(label, f"{who}: {message}", width)
            if suggestion and label == "refused":
                yield from labelled("", f"→ {suggestion}", width)
    for (label, code), count in shown.items():
        if count > _OF_A_KIND:
            yield from labelled(label, f"{count - _OF_A_KIND:,} more about {topic(code)}", width)


def _findings(plan: dict[str, Any], level: str) -> list[dict[str, Any]]:
    """Each once."""
    return list({(f["code"], f["message"]): f for f in plan["findings"] if f["level"] == level}.values())


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


def _total(plans: Sequence[dict[str, Any]], repeat: int) -> list[str]:
    """Of the runs that go: their time one after the other, and their cost."""
    going = [plan for plan in plans if plan["verdict"] == "go"]
    forecasts = [plan["forecast"] for plan in going if plan["forecast"]]
    costs = [forecast["total_usd"]["likely"] for forecast in forecasts if forecast["total_usd"]]
    seconds = repeat * sum(forecast["total_seconds"]["likely"] for forecast in forecasts)
    cost = dollars(repeat * sum(costs)) if costs else ""
    return ["total", "", "", "", whole_seconds(seconds) if forecasts else "", cost]


def _how_many_go(plans: Sequence[dict[str, Any]], repeat: int) -> str:
    refused = sum(plan["verdict"] == "refuse" for plan in plans)
    told = f"{len(plans) - refused:,} of {plural(len(plans), 'run')} go"
    told += f", each {repeat:,} times" if repeat > 1 else ""
    return f"{told}, {refused:,} refused" if refused else told

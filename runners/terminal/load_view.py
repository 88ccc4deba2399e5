"""The points of a load as a table: a row each, saturation and the best goodput marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runners.terminal.layout import table, wrapped
from runners.terminal.words import plural, seconds

_LABEL = 13
_COUNTS = ("point", "ok", "failed", "req/s", "prompt tok/s", "output tok/s", "at once")
_TIMES = ("TTFT p50", "p99", "TPOT p50", "p99", "ITL p99", "E2E p50", "p99")
_HEAD = (*_COUNTS, *_TIMES, "goodput", "")
_DROPPED = (4, 6, 11, 1, 13, 10, 12, 9, 8, 5)
"""Columns that give way in a narrow terminal, one after the other; a p99 before its p50."""


def is_load(result: Mapping[str, Any]) -> bool:
    """Whether the run measured load points."""
    return (result.get("workload") or {}).get("kind") == "load"


def load_lines(result: Mapping[str, Any], width: int | None = None) -> Iterator[str]:
    """The table, what its marks mean, and why the last point was the last."""
    load = result["workload"]
    rows = [_HEAD, *(_row(point, load) for point in load["points"])]
    right = range(1, len(_HEAD) - 1)
    for i, line in enumerate(table(rows, width, right=right, drop=_DROPPED, spare=_LABEL)):
        yield f"{'load' if i == 0 else '':<{_LABEL}}{line}".rstrip()
    for label, text in _said(load):
        for i, line in enumerate(wrapped(text, None if width is None else max(24, width - _LABEL))):
            yield f"{label if i == 0 else '':<{_LABEL}}{line}"


def _row(point: Mapping[str, Any], load: Mapping[str, Any]) -> list[str]:
    times, good = point["latency"], point["goodput"]
    return [
        point["name"],
        f"{point['requests']['ok']:,}",
        f"{point['requests']['failed']:,}" if point["requests"]["failed"] else "",
        _figure(point["requests_per_s"]),
        f"{point['prompt_tokens_per_s']:,.0f}",
        f"{point['output_tokens_per_s']:,.0f}",
        _figure(point["under_way"]["mean"]),
        seconds(times["ttft_s"]["p50"]),
        seconds(times["ttft_s"]["p99"]),
        seconds(times["tpot_s"]["p50"]),
        seconds(times["tpot_s"]["p99"]),
        seconds(times["itl_s"]["p99"]),
        seconds(times["e2e_s"]["p50"]),
        seconds(times["e2e_s"]["p99"]),
        f"{_figure(good['requests_per_s'])}/s {good['share']:.0%}" if good else "",
        _mark(point, load),
    ]


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.3g}"


def _mark(point: Mapping[str, Any], load: Mapping[str, Any]) -> str:
    name = point["name"]
    marks = {
        "← knee": name == load["knee"],
        "saturated": point["saturated"] is not None,
        "best goodput": name == load["best_goodput"],
        "client lags": point["client_lags"] is not None,
        "unfinished": not point["finished"],
    }
    return ", ".join(mark for mark, holds in marks.items() if holds)


def _said(load: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Label and sentence of what the table alone does not say."""
    points = load["points"]
    if (slo := _slo(load)) and points:
        yield "goodput", f"requests per second that kept to {slo}, and their share of all"
    if load["saturated_at"]:
        why = next(point["saturated"] for point in points if point["name"] == load["saturated_at"])
        yield "saturated", f"at {load['saturated_at']}: {why}"
    last = load["last"]
    if last and last["skipped"]:
        why = "saturated" if load["saturated_at"] else last["why"]
        yield "last", f"{last['point']} was the last point ({why}); {plural(last['skipped'], 'point')} left out"
    for point in points:
        if point["client_lags"]:
            yield "client lags", f"{point['name']}: {point['client_lags']}; its figures are the client's as well"
        if point["error"]:
            yield (
                "failed",
                f"{plural(point['requests']['failed'], 'request')} of {point['name']}, the first: {point['error']}",
            )
        if point["short_answers"]:
            ended = f"{plural(point['short_answers'], 'answer')} ended before the length that was asked for"
            yield "shorter", f"{point['name']}: {ended}; the endpoint does not keep to it"
    distinct, sent = load["prompts"]["distinct"], _sent(load)
    if distinct is not None and sent > distinct:
        repeated = f"{plural(distinct, 'prompt')} for {plural(sent, 'request')}: the engine's prefix cache knows some"
        yield "prompts", f"{load['prompts']['source']} holds {repeated}"


def _sent(load: Mapping[str, Any]) -> int:
    return sum(point["requests"]["ok"] + point["requests"]["failed"] for point in load["points"])


def _slo(load: Mapping[str, Any]) -> str:
    limits = load["traffic"].get("slo") or {}
    return ", ".join(f"{name.upper()} {limit}" for name, limit in limits.items() if limit)

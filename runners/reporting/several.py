"""The page that holds several runs against each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from runners.comparing import METRICS, Comparison, Estimate, Group, Metric, compared, groups_of
from runners.comparing.changes import value_told
from runners.comparing.groups import axes_of, short_axes
from runners.reporting.figures import FORMS, Figures, bounded
from runners.reporting.page import rendered
from runners.reporting.reading import Run
from runners.reporting.single import CAUSES, PHASES, machine_words, phase_bar
from runners.terminal.words import plural, shortened

MOST_RUNS = 200
_METHODS: Mapping[str, str] = {"permutation": "permutation tests", "student": "Student's t-tests"}
_LONGEST_VALUE = 30
_MOST_GROUPS = 12
"""Of more, a table with a column for each can't be read."""
_FORM_OF_UNIT = {"tok/s": "rate", "s": "seconds", "usd": "usd", "share": "share", "count": "count", "Wh": "wh"}


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One of the runs, as the page shows it."""

    index: int
    letter: str
    """Of its group, as the sentences call it."""
    name: str
    r: Mapping[str, Any]
    n: Figures
    bar: Sequence[Mapping[str, Any]]
    scale: float
    """Its length as a part of the longest run's."""
    phase_places: Mapping[str, Sequence[int]]
    machine: str
    report: str
    """The way from this page to that of the run alone."""


def several_page(runs: Sequence[Run], beside: Path, title: str = "") -> bytes:
    """A page that answers which is faster, what each cost, and where the time went. `beside` is its folder."""
    shown, left_out = bounded(runs, MOST_RUNS)
    results = [run.result for run in shown]
    resolved = {run.result["run_id"]: run.resolved for run in shown if run.resolved}
    groups = groups_of(results, resolved=resolved) or groups_of(results, resolved=resolved, alone=True)
    groups = [replace(group, label=label) for group, label in zip(groups, _labels(groups), strict=True)]
    comparison = compared(groups)
    views = _views(shown, comparison.groups, beside)
    few = len(comparison.groups) <= _MOST_GROUPS
    statistics = _statistics(comparison) if few and any(len(group.results) > 1 for group in comparison.groups) else []
    pareto = _pareto_chart(comparison)
    sections = [
        ("runs", "Speed and cost"),
        ("phases", "Time"),
        *([("front", "Throughput against cost")] if pareto else []),
        *([("statistics", "Repetitions")] if statistics else []),
        ("differences", "What differed"),
        ("each", "Each run"),
    ]
    per_document = all(run.result["cost"].get("usd_per_document") is not None for run in shown)
    charts: dict[str, Any] = {"compareThroughput": _throughput_chart(views), "compareCost": _cost_chart(views)}
    if pareto:
        charts["pareto"] = pareto
    words = title or f"{plural(len(runs), 'run')} compared"
    return rendered(
        "several.html",
        title=f"{words} · recipe",
        charts=charts,
        title_words=words,
        answer=comparison.answer,
        caveats=comparison.caveats,
        sections=sections,
        runs=views,
        runs_left_out=left_out,
        unit=results[0]["documents"].get("unit", "document"),
        cost_per_document=per_document,
        best=_best(views),
        phase_names=_phase_names(results),
        idle_causes=_idle_causes(results),
        has_front=bool(pareto),
        front_axes=", ".join(axis.name for axis in comparison.front.axes) if comparison.front else "",
        front_note=comparison.front.note if comparison.front else "",
        statistics=statistics,
        spread=any(len(group.results) > 1 for group in comparison.groups),
        letters=_methods(comparison),
        groups=comparison.groups[:_MOST_GROUPS],
        changes=comparison.recipe_changes if few else (),
        circumstances=comparison.circumstances if few else (),
    )


def _views(runs: Sequence[Run], groups: Sequence[Group], beside: Path) -> list[RunView]:
    """The runs by their groups, each in the order in which they were named; those of none at the end."""
    group_of = {run_id: i for i, group in enumerate(groups) for run_id in group.run_ids}
    runs = sorted(runs, key=lambda run: group_of.get(run.result["run_id"], len(groups)))
    names = {
        run_id: f"{group.label} #{i + 1}" if len(group.results) > 1 else group.label
        for group in groups
        for i, run_id in enumerate(reversed(group.run_ids))
    }
    letters = {run_id: group.letter for group in groups for run_id in group.run_ids}
    longest = max((sum(p["seconds"] for p in run.result["phases"]) for run in runs), default=0.0) or 1.0
    views = []
    for index, run in enumerate(runs):
        result = run.result
        places: dict[str, list[int]] = {}
        for i, phase in enumerate(result["phases"]):
            places.setdefault(phase["name"], []).append(i)
        views.append(
            RunView(
                index=index,
                letter=letters.get(result["run_id"], ""),
                name=names.get(result["run_id"], result["run_id"]),
                r=result,
                n=Figures(result),
                bar=phase_bar(result),
                scale=sum(p["seconds"] for p in result["phases"]) / longest,
                phase_places=places,
                machine=machine_words(result),
                report=_link(run.folder.path / "report.html", beside),
            )
        )
    return views


def _link(target: Path, beside: Path) -> str:
    return quote(Path(os.path.relpath(target, beside)).as_posix())


def _labels(groups: Sequence[Group]) -> list[str]:
    """What the groups are called: by what a matrix set where that tells them apart, else by their own labels."""
    axes = axes_of(groups)
    short = list(short_axes(axes))
    by_axes = [
        ", ".join(
            _told(word, group.variant[axis]) for axis, word in zip(axes, short, strict=True) if axis in group.variant
        )
        for group in groups
    ]
    return by_axes if axes and all(by_axes) and len(set(by_axes)) == len(by_axes) else [group.label for group in groups]


def _told(axis: str, value: Any) -> str:
    """concurrency 8; a section by its name alone, if it has one."""
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return str(value["name"])
    return f"{axis} {shortened(value_told(value), _LONGEST_VALUE)}"


def _best(views: Sequence[RunView]) -> dict[str, set[int]]:
    """Which runs have the best figure of each column; none where all are alike or there is only one."""
    wanted: Mapping[str, tuple[str, bool]] = {
        "output": ("output_tokens_per_s", True),
        "prompt": ("prompt_tokens_per_s", True),
        "ttft": ("ttft_p50_s", False),
        "e2e": ("e2e_p50_s", False),
        "seconds": ("seconds", False),
        "usd": ("total_usd", False),
        "per_document": ("usd_per_document", False),
        "per_million": ("usd_per_million_tokens", False),
    }
    by_key = {metric.key: metric for metric in METRICS}
    found: dict[str, set[int]] = {}
    for column, (key, highest) in wanted.items():
        values = {
            view.index: value
            for view in views
            if view.r["outcome"]["status"] == "completed" and (value := by_key[key].of(view.r)) is not None
        }
        best = (max if highest else min)(values.values(), default=0.0)
        found[column] = {i for i, value in values.items() if value == best} if len(set(values.values())) > 1 else set()
    return found


def _phase_names(results: Sequence[Mapping[str, Any]]) -> list[str]:
    there = {phase["name"] for result in results for phase in result["phases"]}
    return [name for name in PHASES if name in there] + sorted(there - set(PHASES))


def _idle_causes(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [
        (cause, label)
        for cause, label in CAUSES
        if any((result["cost"].get("idle_usd") or {}).get(cause) for result in results)
    ]


def _throughput_chart(views: Sequence[RunView]) -> dict[str, Any]:
    return _bars(
        views,
        "tokens per second",
        "rate",
        [("output", "c1", lambda r: r["throughput"].get("output_tokens_per_s"))],
    )


def _cost_chart(views: Sequence[RunView]) -> dict[str, Any]:
    """Dollars per document where every run has them, else of the whole run."""
    per_document = all(view.r["cost"].get("usd_per_document") is not None for view in views)
    name = "usd_per_document" if per_document else "total_usd"
    return _bars(views, "US dollars", "usd", [("cost", "c2", lambda r: r["cost"].get(name))])


def _bars(
    views: Sequence[RunView],
    unit: str,
    form: str,
    series: Sequence[tuple[str, str, Callable[[Mapping[str, Any]], float | None]]],
) -> dict[str, Any]:
    lines = []
    for name, colour, read in series:
        values = [read(view.r) for view in views]
        labels = ["–" if value is None else FORMS[form](value) for value in values]
        lines.append({"name": name, "colour": colour, "values": values, "labels": labels})
    return {"unit": unit, "names": [f"{view.letter}  {view.name}".strip() for view in views], "series": lines}


def _pareto_chart(comparison: Comparison) -> dict[str, Any] | None:
    """Groups with both figures; the front is over all its axes, of which the chart has two."""
    if comparison.front is None:
        return None
    by_key = {metric.key: metric for metric in METRICS}
    speed, price = by_key["output_tokens_per_s"], by_key["usd_per_million_tokens"]
    points = [
        {"name": f"{group.letter}  {group.label}", "letter": group.letter, "x": x, "y": y, "front": place.on_front}
        for group, place in zip(comparison.groups, comparison.front.places, strict=True)
        if (x := group.median(speed)) is not None and (y := group.median(price)) is not None
    ]
    return {"x": "output, tok/s", "y": "$ per million tokens", "points": points} if len(points) > 1 else None


def _statistics(comparison: Comparison) -> list[dict[str, Any]]:
    """A row for each figure, a cell for each group."""
    rows = []
    for metric in comparison.metrics:
        cells = []
        for i, group in enumerate(comparison.groups):
            pair = next((pair for pair in comparison.pairs if pair.b == i), None)
            difference = pair.of(metric.key) if pair else None
            verdict, tone = "", "muted"
            if difference is not None and difference.ratio is not None:
                verdict = f"× {FORMS['figure'](difference.ratio)}, {difference.verdict}"
                if difference.verdict == "more than noise" and difference.better is not None:
                    tone = "good" if difference.better else "bad"
            cells.append({**_cell(metric, group.estimate(metric)), "verdict": verdict, "tone": tone})
        rows.append({"name": metric.name, "cells": cells})
    return rows


def _cell(metric: Metric, found: Estimate | None) -> dict[str, str]:
    form = FORMS[_FORM_OF_UNIT[metric.unit]]
    if found is None:
        return {"median": "–", "interval": ""}
    bounds = found.interval
    interval = f"({form(bounds.low)} to {form(bounds.high)})" if bounds and bounds.low < bounds.high else ""
    return {"median": form(found.median), "interval": interval}


def _methods(comparison: Comparison) -> str:
    """How noise was told."""
    methods = dict.fromkeys(pair.method for pair in comparison.pairs if pair.method)
    return f"Noise was told by {' and '.join(_METHODS.get(name, name) for name in methods)}." if methods else ""

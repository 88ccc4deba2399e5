"""Runs that are over as OpenMetrics with timestamps, for `promtool tsdb create-blocks-from openmetrics`.

Families, and in them the series, stand together, each with ascending times, as the format wants them (OpenMetrics 1.0,
"Overall structure"). So all points are kept in memory first, in 12 bytes each.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from runners.answers import rows_of
from runners.metrics.families import FAMILIES, Family
from runners.metrics.own_pages import Recorded, recorded
from runners.metrics.passing import labelled
from runners.metrics.replay import states
from runners.metrics.series import Labels, points
from runners.metrics.state import moment
from runners.run_folder import RunFolder

_LONG_S = 3600.0
_HELD_S, _LONGEST_HELD_S = 5.0, 45.0
"""A page is written down every 30 s at the least; over more than that nobody knows what it said."""
_SUMS = ("_total", "_bucket", "_count", "_sum", "_created", "_info")


@dataclass
class _Column:
    """A series: at which of the run's moments it had which values."""

    moments: array[int] = field(default_factory=lambda: array("I"))
    values: array[float] = field(default_factory=lambda: array("d"))


class _Run:
    def __init__(self, folder: RunFolder, step_s: float) -> None:
        self.moments = array("d")
        self.families: dict[Family, dict[tuple[str, Labels], _Column]] = {}
        for at, state in states(folder, step_s):
            for family, name, labels, value in points(state, at):
                column = self.families.setdefault(family, {}).setdefault((name, labels), _Column())
                column.moments.append(len(self.moments))
                column.values.append(value)
            self.moments.append(at)

    def lines(self, family: Family) -> Iterator[str]:
        """Series after series; the parts of a histogram moment by moment."""
        columns = self.families.get(family, {})
        if family.kind != "histogram":
            for (name, labels), column in columns.items():
                yield from self._together([(_series(name, labels), column)])
            return
        parts: dict[Labels, list[tuple[str, _Column]]] = {}
        for (name, labels), column in columns.items():
            whole = tuple(label for label in labels if label[0] != "le")
            parts.setdefault(whole, []).append((_series(name, labels), column))
        for together in parts.values():
            yield from self._together(together)

    def _together(self, columns: list[tuple[str, _Column]]) -> Iterator[str]:
        for i, place in enumerate(columns[0][1].moments):
            at = f"{self.moments[place]:.3f}"
            for series, column in columns:
                yield f"{series} {column.values[i]!r} {at}\n"


def lines(folders: Iterable[RunFolder], step_s: float | None = None) -> Iterator[str]:
    """The whole text; runs that left no events have no part in it. Without a step a long run has one of its own."""
    folders = list(folders)
    runs = [_Run(folder, step_s or step_of(folder)) for folder in folders]
    for family in FAMILIES:
        if any(family in run.families for run in runs):
            yield f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
            for run in runs:
                yield from run.lines(family)
    yield from _engines(folders)
    yield "# EOF\n"


def step_of(folder: RunFolder) -> float:
    """Seconds between two points: of a run of hours as many as a scrape would have, since a day is a gigabyte else."""
    at = [moment(row["at"]) for row in rows_of(folder.path / "events.jsonl", "at")]
    return 1.0 if not at or at[-1] - at[0] <= _LONG_S else 5.0


def _engines(folders: Iterable[RunFolder]) -> Iterator[str]:
    """The engines' own series, of no kind: not every engine keeps to the rules that OpenMetrics has for each."""
    found: dict[str, list[tuple[str, Recorded]]] = {}
    for folder in folders:
        recipe = (folder.read_json("resolved.json") or {}).get("name") or ""
        for column in recorded(folder.path):
            if known := labelled(column.series, (folder.run_id, recipe)):
                found.setdefault(known[0], []).append((known[1], column))
    for name, columns in found.items():
        yield f"# TYPE {name} unknown\n"
        for series, column in columns:
            for at, value in _held(name, column):
                yield f"{series} {value!r} {at:.3f}\n"


def _held(name: str, column: Recorded) -> Iterator[tuple[float, float]]:
    """Its points. A gauge stands until the next, and is told again so often that it does not seem to have ended."""
    for i, (at, value) in enumerate(zip(column.moments, column.values, strict=True)):
        yield at, value
        seconds = column.moments[i + 1] - at if i + 1 < len(column.moments) else 0.0
        if not name.endswith(_SUMS) and seconds <= _LONGEST_HELD_S:
            for more in range(1, math.ceil(seconds / _HELD_S - 0.01)):
                yield at + more * _HELD_S, value


def _series(name: str, labels: Labels) -> str:
    pairs = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels)
    return f"{name}{{{pairs}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

"""Runs that are over as OpenMetrics with timestamps, for `promtool tsdb create-blocks-from openmetrics`.

Families, and in them the series, stand together, each with ascending times, as the format wants them (OpenMetrics 1.0,
"Overall structure"). So all points are kept in memory first, in 12 bytes each.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from runners.metrics.families import FAMILIES, Family
from runners.metrics.replay import states
from runners.metrics.series import Labels, points
from runners.run_folder import RunFolder


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
        for i, moment in enumerate(columns[0][1].moments):
            at = f"{self.moments[moment]:.3f}"
            for series, column in columns:
                yield f"{series} {column.values[i]!r} {at}\n"


def lines(folders: Iterable[RunFolder], step_s: float) -> Iterator[str]:
    """The whole text; runs that left no events have no part in it."""
    runs = [_Run(folder, step_s) for folder in folders]
    for family in FAMILIES:
        if any(family in run.families for run in runs):
            yield f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
            for run in runs:
                yield from run.lines(family)
    yield "# EOF\n"


def _series(name: str, labels: Labels) -> str:
    pairs = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels)
    return f"{name}{{{pairs}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

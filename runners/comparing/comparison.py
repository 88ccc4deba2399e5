"""Groups of runs compared: what differed, what came of it, and what to say about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from runners.comparing.caveats import caveats
from runners.comparing.changes import Change, circumstances, recipe_changes
from runners.comparing.differences import Pair, pair_of
from runners.comparing.groups import Group, axes_of
from runners.comparing.metrics import Metric, metrics_of
from runners.comparing.noise import ALPHA, ALPHAS
from runners.comparing.pareto import Front, pareto
from runners.comparing.places import at
from runners.comparing.sentences import answer

_MOST_IN_FULL = 12
"""Of more groups only the headline's figures are tested: nobody reads hundreds of tables."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that is known of how groups differ; A is the one that the others are held against."""

    groups: tuple[Group, ...]
    metrics: tuple[Metric, ...]
    """Those that some group has a figure for."""
    pairs: tuple[Pair, ...]
    """Each other group against the first."""
    axes: tuple[str, ...]
    """Paths that a matrix set; none where the groups are of no matrix."""
    recipe_changes: tuple[Change, ...]
    circumstances: tuple[Change, ...]
    front: Front | None
    """With more than one group."""
    answer: tuple[str, ...]
    """Which is faster and which is cheaper, in sentences."""
    caveats: tuple[str, ...]
    """What to mind before believing it."""

    @property
    def unit(self) -> str:
        """What the groups' documents are called, if all call them the same."""
        units = {str(at(group.newest, "documents", "unit") or "document") for group in self.groups}
        return units.pop() if len(units) == 1 else "document"

    def row(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "unit": self.unit,
            "groups": [
                {**group.row(), "settings": dict(self._settings(group)), "figures": dict(self._figures(group))}
                for group in self.groups
            ],
            "metrics": [
                {
                    "key": m.key,
                    "name": m.name.replace("document", self.unit),
                    "unit": m.unit,
                    "better": m.better,
                    "part": m.part,
                }
                for m in self.metrics
            ],
            "axes": list(self.axes),
            "differences": [each.row() for pair in self.pairs for each in pair.differences],
            "alpha": ALPHA,
            "tests": [
                {
                    "a": pair.a,
                    "b": pair.b,
                    "family": family,
                    "method": method,
                    "alpha": ALPHAS[family],
                }
                for pair in self.pairs
                for family, method in pair.methods.items()
            ],
            "recipes_known": all(group.resolved is not None for group in self.groups),
            "recipe_changes": [change.row() for change in self.recipe_changes],
            "circumstances": [change.row() for change in self.circumstances],
            "front": self.front.row() if self.front else None,
            "answer": list(self.answer),
            "caveats": list(self.caveats),
        }

    def _settings(self, group: Group) -> Iterator[tuple[str, Any]]:
        """What the axes are in this group, also if it is not of the matrix itself."""
        for path in self.axes:
            yield path, group.variant[path] if path in group.variant else at(group.resolved or {}, *path.split("."))

    def _figures(self, group: Group) -> Iterator[tuple[str, Any]]:
        for metric in self.metrics:
            if found := group.estimate(metric):
                yield metric.key, found.row()


def compared(groups: Sequence[Group]) -> Comparison:
    """The groups compared, all with the first one."""
    metrics = metrics_of(result for group in groups for result in group.results)
    tested = metrics if len(groups) <= _MOST_IN_FULL else [m for m in metrics if m.part == "headline"]
    pairs = tuple(pair_of(groups, 0, i, tested) for i in range(1, len(groups)))
    return Comparison(
        groups=tuple(groups),
        metrics=metrics,
        pairs=pairs,
        axes=axes_of(groups),
        recipe_changes=recipe_changes(groups),
        circumstances=circumstances(groups),
        front=pareto(groups) if len(groups) > 1 else None,
        answer=answer(groups, metrics, pairs),
        caveats=tuple(caveats(groups)),
    )

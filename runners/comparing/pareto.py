"""Which of several are the best at something that matters: those that no other beats everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runners.comparing.groups import Group
from runners.comparing.metrics import Metric, metric

AXES = ("output_tokens_per_s", "usd_per_million_tokens", "ttft_p50_s")
"""Throughput, what it costs, and how long one waits."""


@dataclass(frozen=True)
class Place:
    """How one stands among the others."""

    on_front: bool
    beaten_by: tuple[int, ...] = ()
    """The numbers of those that are as good everywhere and better somewhere."""
    unknown: bool = False
    """It lacks a figure, and so cannot be placed."""


@dataclass(frozen=True)
class Front:
    """The Pareto front over the medians of these figures, the best first in each."""

    axes: tuple[Metric, ...]
    places: tuple[Place, ...]
    """In the order of the groups."""
    note: str = ""
    """What the front leaves out of account."""

    def row(self) -> dict[str, Any]:
        places = [{"on_front": p.on_front, "beaten_by": list(p.beaten_by), "unknown": p.unknown} for p in self.places]
        return {"axes": [axis.key for axis in self.axes], "places": places, "note": self.note}


def pareto(groups: Sequence[Group], axes: Sequence[str] = AXES) -> Front:
    """The front of the groups. An axis that nobody has a figure for, or in which all are alike, is left out."""
    wanted = [metric(key) for key in axes]
    missing = [axis for axis in wanted if all(group.median(axis) is None for group in groups)]
    free = [axis for axis in wanted if axis not in missing and all(group.median(axis) == 0 for group in groups)]
    kept = tuple(axis for axis in wanted if axis not in missing and axis not in free)
    points = [[_signed(axis, group.median(axis)) for axis in kept] for group in groups]
    places = places_of(points) if kept else [Place(False, unknown=True)] * len(groups)
    return Front(kept, tuple(places), _note(missing, free))


def places_of(points: Sequence[Sequence[float | None]]) -> list[Place]:
    """Where each point stands, if less is better in each of its figures."""
    known = [(i, [v for v in point if v is not None]) for i, point in enumerate(points) if None not in point]
    places = []
    for point in points:
        figures = [v for v in point if v is not None]
        if len(figures) < len(point):
            places.append(Place(False, unknown=True))
            continue
        beaten_by = tuple(i for i, other in known if _dominates(other, figures))
        places.append(Place(not beaten_by, beaten_by))
    return places


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _signed(axis: Metric, value: float | None) -> float | None:
    return -value if axis.better == "higher" and value is not None else value


def _note(missing: Sequence[Metric], free: Sequence[Metric]) -> str:
    parts = [f"no run has a figure for {', '.join(axis.name for axis in missing)}"] if missing else []
    if free:
        parts.append("every machine is free of charge" if free[0].unit == "usd" else f"{free[0].name} is 0 everywhere")
    return "; ".join(parts)

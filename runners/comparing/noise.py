"""Whether two groups of repetitions differ by more than noise.

A table has two families of figures: those of the headline, and the rest. Each is tested as a whole, so that a figure
that differs by luck is not found just because many were looked at, and the two share α: of groups that do not differ,
at most α of the tables say of any figure that it does.

- Four runs a side, or three against four and more: the permutation test of Westfall and Young (Resampling-Based
  Multiple Testing, 1993; step-down max T, as in Ge, Dudoit and Speed 2003, box 2). If the groups do not differ, any way
  to deal the runs to two groups is as likely as the one that was seen. Nothing is assumed about the noise. The
  statistic is Welch's t (for unequal variances: Janssen 1997) of the logarithms, because noise goes with size. All
  arrangements are tried if they are few, else a sample, counted as Phipson and Smyth (2010) say. Of the rest something
  can be said from about five a side on: before, the rarest arrangement is not rare enough.
- Three runs a side: there are only 20 arrangements, and none is rarer than 1 in 10. Of the headline Student's t of the
  logarithms, which takes noise to be about log-normal, with Holm's correction (1979) for the number of figures, and an
  interval of the ratio without 1 besides; of the rest nothing. A machine that runs now at one speed,
  now at another deceives it still: with two modes 1 in 32 of equal figures would be called different.
- Fewer: nobody can tell.

Groups that differ in how much they vary, and not in their medians, are not groups that do not differ: where a small one
varies several times as much as a large one, more than α are called different.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal

Family = Literal["headline", "rest"]
ALPHA = 0.05
"""Of a whole table."""
ALPHAS: Mapping[Family, float] = {"headline": 0.03, "rest": 0.02}
"""What each family has of it. Three against four, and four against four, can be told by no less than 0.0286."""
FEWEST = 3
"""Runs a side from which on something can be said."""
_MOST_ARRANGEMENTS = 1000
_SAMPLED = 1000
_SEED = 20232
_NOTHING = 1e-12
_FAR = 1e6
"""Where a t has no meaning any more, because the values of a side are all the same."""

Method = Literal["permutation", "student"]
Sides = tuple[Sequence[float], Sequence[float]]


def method_for(left: int, right: int, family: Family = "headline") -> Method | None:
    """Which test of a family these numbers of runs allow; None if none."""
    if min(left, right) < FEWEST:
        return None
    # A mirrored arrangement is as far out, where the sides are as many.
    rarest = (2 if left == right else 1) / math.comb(left + right, left)
    if rarest <= ALPHAS[family]:
        return "permutation"
    return "student" if family == "headline" else None


def p_values(figures: Mapping[str, Sides], family: Family = "headline") -> dict[str, float]:
    """The adjusted p-value of each figure of a family: of the hypothesis that both sides are drawn from the same.

    All figures must be of the same runs, in the same order. Empty where there are too few runs.
    """
    if not figures:
        return {}
    left, right = (len(side) for side in next(iter(figures.values())))
    scaled = {name: _scaled([*a, *b]) for name, (a, b) in figures.items()}
    match method_for(left, right, family):
        case "permutation":
            return _step_down(scaled, left)
        case "student":
            return _holm({name: _student(values, left) for name, values in scaled.items()})
        case None:
            return {}


def _scaled(values: Sequence[float]) -> list[float]:
    """Logarithms where all are positive; around 0."""
    scaled = [math.log(v) for v in values] if min(values) > 0 else list(values)
    mean = sum(scaled) / len(scaled)
    return [v - mean for v in scaled]


def _step_down(figures: Mapping[str, Sequence[float]], left: int) -> dict[str, float]:
    """Of each figure, how often the furthest of those not further than it comes as far in an arrangement."""
    count = len(next(iter(figures.values())))
    seen = {name: _welch(values, range(left), left) for name, values in figures.items()}
    order = sorted(seen, key=lambda name: seen[name])  # the least first: the maximum grows along it
    exceeded = dict.fromkeys(order, 0)
    tried = 0
    chosen, whole = _arrangements(count, left)
    for arrangement in chosen:
        tried += 1
        furthest = 0.0
        for name in order:
            furthest = max(furthest, _welch(figures[name], arrangement, left))
            exceeded[name] += furthest >= seen[name] * (1 - 1e-9)
    extra = 0 if whole else 1  # what was seen is one of the arrangements, also if it was not drawn
    adjusted: dict[str, float] = {}
    largest = 0.0
    for name in reversed(order):
        largest = max(largest, (exceeded[name] + extra) / (tried + extra))
        adjusted[name] = largest
    return adjusted


def _arrangements(count: int, left: int) -> tuple[Iterator[Sequence[int]], bool]:
    """Ways to choose those of the left side, and whether these are all."""
    if math.comb(count, left) <= _MOST_ARRANGEMENTS:
        return iter(combinations(range(count), left)), True
    draw = random.Random(_SEED)  # noqa: S311 (statistics)
    return (draw.sample(range(count), left) for _ in range(_SAMPLED)), False


def _welch(values: Sequence[float], chosen: Iterable[int], left: int) -> float:
    """|t| of the chosen against the others, of values around 0; 0 if nothing differs, _FAR if only the sides do."""
    total = square = 0.0
    for i in chosen:
        total += values[i]
        square += values[i] * values[i]
    right = len(values) - left
    spread_a = max(0.0, square - total * total / left) / (left - 1)
    spread_b = max(0.0, sum(v * v for v in values) - square - total * total / right) / (right - 1)
    return _quotient(total / left + total / right, math.sqrt(spread_a / left + spread_b / right))


def _quotient(difference: float, error: float) -> float:
    apart = abs(difference)
    if apart < _NOTHING:
        return 0.0
    return min(_FAR, apart / error) if error else _FAR


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and variance."""
    mean = sum(values) / len(values)
    return mean, sum((v - mean) ** 2 for v in values) / (len(values) - 1)


def _student(values: Sequence[float], left: int) -> float:
    """Two-sided p of Student's t for three values a side: four degrees of freedom (Abramowitz and Stegun 26.7.4)."""
    a, b = values[:left], values[left:]
    assert len(a) == len(b) == FEWEST
    (mean_a, spread_a), (mean_b, spread_b) = _moments(a), _moments(b)
    t = _quotient(mean_a - mean_b, math.sqrt((spread_a + spread_b) / FEWEST))
    angle = math.atan(t / 2.0)
    return max(0.0, 1.0 - math.sin(angle) * (1.0 + math.cos(angle) ** 2 / 2.0))


def _holm(raw: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for i, name in enumerate(sorted(raw, key=lambda name: raw[name])):
        largest = max(largest, min(1.0, raw[name] * (len(raw) - i)))
        adjusted[name] = largest
    return adjusted

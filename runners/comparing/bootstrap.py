"""Intervals of medians by the bootstrap, from few values and without a library; the same every time."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, median

DRAWS = 4000
LEVEL = 0.95
_LEVEL_OF_THREE = 0.9
"""How often the interval of a ratio holds the true one with three values a side, by simulation of log-normal noise."""
_SEED = 20231


@dataclass(frozen=True)
class Interval:
    """Where a figure lies with this confidence."""

    low: float
    high: float
    level: float

    @property
    def turned(self) -> Interval:
        """Of the inverse of a ratio."""
        return Interval(1 / self.high if self.high else math.inf, 1 / self.low if self.low else math.inf, self.level)

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def level_of_median(count: int) -> float:
    """How sure an interval of the median of so many values can be, at most 0.95.

    The widest that the values can give, from the smallest to the largest, misses the median with probability
    2^(1-n), if all of them lie on one side of it: order statistics, e.g. David and Nagaraja, Order Statistics, 7.1.
    """
    return min(LEVEL, 1.0 - 2.0 ** (1 - count))


def interval_of_median(values: Sequence[float]) -> Interval | None:
    """The bootstrap's interval of the median; None below two values.

    With fewer than six values no interval of a median reaches 95 %: `level` says what it does reach.
    """
    if len(values) < 2:
        return None
    ordered = sorted(values)
    drawn = [((ordered[i] + ordered[j]) / 2, often) for (i, j), often in _how_often(len(values)).items()]
    return _middle(drawn, len(values), level_of_median(len(values)))


def interval_of_ratio(below: Sequence[float], above: Sequence[float]) -> Interval | None:
    """The bootstrap's interval of median(above) / median(below), both drawn anew; None below three values a side."""
    fewest = min(len(below), len(above))
    if fewest < 3 or min(below) <= 0:
        return None
    ratios = [b / a for a, b in zip(medians(below, 0), medians(above, 1), strict=True)]
    return _middle([(ratio, 1) for ratio in ratios], fewest, LEVEL if fewest > 3 else _LEVEL_OF_THREE)


def medians(values: Sequence[float], stream: int) -> list[float]:
    """Medians of resamples with replacement, each as large as what was measured."""
    ordered = sorted(values)
    return [(ordered[i] + ordered[j]) / 2 for i, j in _middle_places(len(ordered), stream)]


@lru_cache(maxsize=256)
def _middle_places(count: int, stream: int) -> tuple[tuple[int, int], ...]:
    """For each draw, which of the sorted values stand in the middle of a resample; twice the same if it is one.

    A resample takes the value at floor(n·u) for n uniform u, so its k-th smallest is the one at floor(n·u(k)), where
    u(k), the k-th smallest of n uniforms, follows Beta(k, n + 1 - k): one draw instead of n and their sorting.
    """
    draw = random.Random(_SEED + 2 * count + stream)  # noqa: S311 (statistics)
    half = count // 2
    places = []
    for _ in range(DRAWS):
        if count % 2:
            low = high = draw.betavariate(half + 1, half + 1)
        else:
            low = draw.betavariate(half, half + 1)
            high = low + (1.0 - low) * draw.betavariate(1, half)  # the least of those that are larger
        places.append((min(count - 1, int(count * low)), min(count - 1, int(count * high))))
    return tuple(places)


@lru_cache(maxsize=256)
def _how_often(count: int) -> Counter[tuple[int, int]]:
    return Counter(_middle_places(count, 0))


def _middle(drawn: Sequence[tuple[float, int]], count: int, level: float) -> Interval:
    """What is left of values, each drawn so often, when the tails are cut off.

    The expanded percentile interval, which makes up for how much narrower resamples of few values are (Hesterberg, What
    Teachers Should Know About the Bootstrap, 2015, section 4.4).
    """
    ordered = sorted(drawn)
    cut = int(DRAWS * _tail(count))
    return Interval(_beyond(ordered, cut), _beyond(reversed(ordered), cut), level)


def _beyond(ordered: Iterable[tuple[float, int]], cut: int) -> float:
    """The first value after so many draws."""
    passed = 0
    for value, often in ordered:
        passed += often
        if passed > cut:
            return value
    raise AssertionError(f"fewer than {cut} draws")


@lru_cache(maxsize=256)
def _tail(count: int) -> float:
    return NormalDist().cdf(-math.sqrt(count / (count - 1)) * _student_quantile(count - 1))


def _student_quantile(freedom: int) -> float:
    """The 0.975 quantile of Student's t, from the normal one (Abramowitz and Stegun 26.7.5)."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return z + (z**3 + z) / (4 * freedom) + second


def middle_of(values: Sequence[float]) -> float:
    """The median."""
    return float(median(values))

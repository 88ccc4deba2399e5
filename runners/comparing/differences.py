"""Two groups held against each other: by how much each figure differs, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from runners.comparing.bootstrap import Interval, interval_of_ratio
from runners.comparing.groups import Estimate, Group
from runners.comparing.metrics import Metric
from runners.comparing.noise import ALPHAS, FEWEST, Family, Method, method_for, p_values

Verdict = Literal["more than noise", "within noise", "the same", "cannot tell"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A figure of group `b` against that of group `a`, both by their numbers."""

    metric: Metric
    a: int
    b: int
    before: Estimate
    after: Estimate
    ratio: float | None
    """Median of b / median of a; None where that of a is 0."""
    interval: Interval | None
    """Of the ratio; None with fewer than three runs a side."""
    p: float | None
    """Adjusted for all figures of its family (noise.py)."""
    verdict: Verdict

    @property
    def better(self) -> bool | None:
        """Whether b is better; None where neither is."""
        if self.metric.better == "neither" or self.before.median == self.after.median:
            return None
        return (self.after.median > self.before.median) == (self.metric.better == "higher")

    def row(self) -> dict[str, Any]:
        bounds = self.interval
        return {
            "metric": self.metric.key,
            "a": self.a,
            "b": self.b,
            "ratio": self.ratio,
            "low": bounds.low if bounds else None,
            "high": bounds.high if bounds else None,
            "confidence": bounds.level if bounds else None,
            "p": self.p,
            "verdict": self.verdict,
            "better": self.better,
        }


@dataclass(frozen=True)
class Pair:
    """Every figure that both groups have."""

    a: int
    b: int
    differences: tuple[Difference, ...]
    methods: Mapping[Family, Method | None]
    """How noise was told, for the headline and for the rest; None with too few runs."""

    @property
    def method(self) -> Method | None:
        """How noise was told for the headline."""
        return self.methods["headline"]

    def of(self, key: str) -> Difference | None:
        return next((each for each in self.differences if each.metric.key == key), None)


def pair_of(groups: Sequence[Group], a: int, b: int, metrics: Sequence[Metric]) -> Pair:
    """Group b against group a."""
    counts = len(groups[a].results), len(groups[b].results)
    found: list[Difference] = []
    for _, family in groupby(sorted(metrics, key=_family_of), key=_family_of):
        found += _of_family(groups, a, b, list(family))
    order = {metric.key: i for i, metric in enumerate(metrics)}
    found.sort(key=lambda each: order[each.metric.key])
    return Pair(a, b, tuple(found), {family: method_for(*counts, family) for family in FAMILIES})


FAMILIES: tuple[Family, ...] = ("headline", "rest")


def _family_of(metric: Metric) -> Family:
    return "headline" if metric.part == "headline" else "rest"


def _of_family(groups: Sequence[Group], a: int, b: int, metrics: Sequence[Metric]) -> Iterator[Difference]:
    """The figures of one family, tested together: those that all runs have and that are not the same everywhere."""
    known = {
        metric: (before, after)
        for metric in metrics
        if (before := groups[a].estimate(metric)) and (after := groups[b].estimate(metric))
    }
    tested = {
        metric.key: (before.values, after.values)
        for metric, (before, after) in known.items()
        if before.count == len(groups[a].results) and after.count == len(groups[b].results)
        if len({*before.values, *after.values}) > 1
    }
    p = p_values(tested, _family_of(metrics[0]))
    for metric, (before, after) in known.items():
        bounds = interval_of_ratio(before.values, after.values)
        yield Difference(
            metric=metric,
            a=a,
            b=b,
            before=before,
            after=after,
            ratio=after.median / before.median if before.median else None,
            interval=bounds,
            p=p.get(metric.key),
            verdict=_verdict(_family_of(metric), before, after, p.get(metric.key), bounds),
        )


def _verdict(family: Family, before: Estimate, after: Estimate, p: float | None, bounds: Interval | None) -> Verdict:
    """The test's word. Of three runs a side the interval must agree; of more it is of the medians alone, and wider than
    what all of the values say."""
    method = method_for(before.count, after.count, family)
    if min(before.count, after.count) >= FEWEST and len({*before.values, *after.values}) == 1:
        return "the same"
    if method is None or p is None:
        return "cannot tell"
    if p > ALPHAS[family] or (method == "student" and bounds and bounds.holds(1.0)):
        return "within noise"
    return "more than noise"

"""The page that Prometheus reads: recipe's own series, and the engines' as they wrote them.

It is always in the text format, and a name keeps its colon: what is negotiated by Accept, or by prometheus_client's own
rules, would make `vllm:` into `vllm_` for some Prometheus servers, and every dashboard for vLLM silently empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import exposition
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from runners.metrics.families import FAMILIES
from runners.metrics.passing import Run, passed_on
from runners.metrics.series import Point

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Series(Collector):
    """Points of runs, as prometheus_client has them: each family once, whatever the number of runs."""

    def __init__(self, runs: Iterable[Iterable[Point]]) -> None:
        self._runs = runs

    def collect(self) -> Iterator[Metric]:
        found = {family.name: Metric(family.name, family.help, family.kind) for family in FAMILIES}
        for points in self._runs:
            for point in points:
                found[point.family.name].add_sample(point.name, dict(point.labels), point.value)
        yield from (metric for metric in found.values() if metric.samples)


def text_of(read: Iterable[tuple[Iterable[Point], str, Run]]) -> bytes:
    """The page of these runs: of each its series, its engine's own page, its id and its recipe."""
    runs = list(read)
    own = exposition.generate_latest(Series(points for points, _, _ in runs))
    return own + "".join(f"{line}\n" for line in passed_on((page, run) for _, page, run in runs)).encode()

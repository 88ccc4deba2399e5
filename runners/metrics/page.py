"""The page that Prometheus reads: recipe's own series, and the engines' as they wrote them.

It is always in the text format, and a name keeps its colon: what is negotiated by Accept, or by prometheus_client's own
rules, would make `vllm:` into `vllm_` for some Prometheus servers, and every dashboard for vLLM silently empty.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import exposition
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import ALLOWUTF8
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from runners.metrics.families import FAMILIES
from runners.metrics.own_pages import of_engine
from runners.metrics.series import Point

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OWN = frozenset(family.name for family in FAMILIES)
_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_LONGEST_PAGE = 4_000_000


class Series(Collector):
    """Points of runs, and the pages of their engines, as prometheus_client has them."""

    def __init__(self, read: Iterable[tuple[list[Point], str, tuple[str, str]]]) -> None:
        self._read = tuple(read)

    def collect(self) -> Iterator[Metric]:
        """Each family once, whatever the number of runs."""
        own: dict[str, Metric] = {family.name: Metric(family.name, family.help, family.kind) for family in FAMILIES}
        engines: dict[str, Metric] = {}
        for found, page, run in self._read:
            for point in found:
                own[point.family.name].add_sample(point.name, dict(point.labels), point.value)
            for metric in passed_through(page, run):
                known = engines.setdefault(metric.name, metric)
                if known is not metric:
                    known.samples.extend(metric.samples)
        for metric in (*own.values(), *engines.values()):
            if metric.samples:
                yield metric


def text_of(series: Series) -> bytes:
    """The page."""
    return exposition.generate_latest(series, escaping=ALLOWUTF8)


def passed_through(page: str, run: tuple[str, str]) -> Iterator[Metric]:
    """An engine's own series with the labels run_id and recipe; its own labels of these names are renamed.

    A page that is none, or only up to somewhere, gives what could be read: it is not ours to judge.
    """
    if not page or len(page) > _LONGEST_PAGE:
        return
    try:
        for metric in text_string_to_metric_families(page):
            if not _NAME.fullmatch(metric.name) or metric.name in _OWN or not of_engine(metric.name):
                continue
            metric.samples = [
                sample._replace(labels=_labels(sample.labels, run), timestamp=None) for sample in metric.samples
            ]
            yield metric
    except (ValueError, KeyError, IndexError):
        logging.getLogger(__name__).debug("an engine's page could not be read whole", exc_info=True)


def _labels(labels: dict[str, Any], run: tuple[str, str]) -> dict[str, str]:
    renamed = {f"exported_{name}" if name in ("run_id", "recipe") else name: value for name, value in labels.items()}
    return {**renamed, "run_id": run[0], "recipe": run[1]}

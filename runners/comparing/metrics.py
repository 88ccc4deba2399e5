"""What runs are compared by: each figure with its unit, what is better, and where it stands in a result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runners.comparing.places import at
from runners.terminal.words import is_figure

Result = Mapping[str, Any]
Better = Literal["higher", "lower", "neither"]
Unit = Literal["tok/s", "s", "usd", "share", "count", "Wh"]
Part = Literal["headline", "figures", "phases"]

_MILLION = 1_000_000


@dataclass(frozen=True)
class Metric:
    """A figure of a run. `read` gives None where the run has none."""

    key: str
    name: str
    unit: Unit
    better: Better
    read: Callable[[Result], float | None]
    part: Part = "figures"
    """Figures of one part are tested together (see noise.py); those of the headline are what one asks first."""

    def of(self, result: Result) -> float | None:
        """The figure of this run; nothing that is no number, or none of a run, passes."""
        try:
            value = self.read(result)
        except (TypeError, KeyError, ZeroDivisionError):  # a part that is none, written by a stranger
            return None
        if value is None or isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if is_figure(value) and value >= 0 else None


def metrics_of(results: Iterable[Result]) -> tuple[Metric, ...]:
    """Those that at least one of the runs has a figure for, in the order in which they are told."""
    seen = list(results)
    names = dict.fromkeys(phase["name"] for result in seen for phase in result.get("phases") or ())
    every = (*METRICS, *map(_phase, names))
    return tuple(metric for metric in every if any(metric.of(result) is not None for result in seen))


def metric(key: str) -> Metric:
    """The metric of this key. Raises KeyError."""
    return _BY_KEY[key]


def _at(*path: str) -> Callable[[Result], float | None]:
    return lambda result: at(result, *path)


def _throughput(name: str) -> Callable[[Result], float | None]:
    """A figure of the drive; a run that answered nothing has none."""
    return lambda result: at(result, "throughput", name) if at(result, "throughput", "output_tokens") else None


def _usd_per_million_tokens(result: Result) -> float | None:
    """Prompt and output tokens together; older results do not say it themselves."""
    told: float | None = at(result, "cost", "usd_per_million_tokens")
    if told is not None:
        return told
    total = at(result, "cost", "total_usd")
    tokens = sum(at(result, "throughput", f"{kind}_tokens") or 0 for kind in ("prompt", "output"))
    return total * _MILLION / tokens if total is not None and tokens else None


def _seconds(result: Result) -> float | None:
    phases = result.get("phases") or ()
    return sum(phase["seconds"] for phase in phases) if phases else None


def _phase(name: str) -> Metric:
    def read(result: Result) -> float | None:
        found = [phase["seconds"] for phase in result.get("phases") or () if phase["name"] == name]
        return sum(found) if found else None

    return Metric(f"phase.{name}", name, "s", "lower", read, "phases")


def _latencies() -> Iterator[Metric]:
    for name in ("ttft", "tpot", "e2e"):
        for level in ("p50", "p99"):
            read = _at("latency", f"{name}_s", level)
            yield Metric(f"{name}_{level}_s", f"{name.upper()} {level}", "s", "lower", read)


METRICS: tuple[Metric, ...] = (
    Metric("output_tokens_per_s", "output", "tok/s", "higher", _throughput("output_tokens_per_s"), "headline"),
    Metric("usd_per_document", "$ per document", "usd", "lower", _at("cost", "usd_per_document"), "headline"),
    Metric("usd_per_million_tokens", "$ per M tokens", "usd", "lower", _usd_per_million_tokens, "headline"),
    Metric("prompt_tokens_per_s", "prompt", "tok/s", "higher", _throughput("prompt_tokens_per_s")),
    Metric("peak_output_tokens_per_s", "peak output", "tok/s", "higher", _throughput("peak_output_tokens_per_s")),
    Metric("peak_prompt_tokens_per_s", "peak prompt", "tok/s", "higher", _throughput("peak_prompt_tokens_per_s")),
    *_latencies(),
    Metric("seconds", "whole run", "s", "lower", _seconds),
    Metric("useful_fraction", "useful", "share", "higher", _at("cost", "useful_fraction")),
    Metric("total_usd", "$ in all", "usd", "lower", _at("cost", "total_usd")),
    Metric(
        "usd_per_million_output_tokens",
        "$ per M output",
        "usd",
        "lower",
        _at("cost", "usd_per_million_output_tokens"),
    ),
    Metric("energy_wh", "energy", "Wh", "lower", _at("cost", "energy", "total_wh")),
    Metric("failed_requests", "failed requests", "count", "lower", _at("requests", "failed")),
    Metric("prompt_tokens", "prompt tokens", "count", "neither", _at("throughput", "prompt_tokens")),
    Metric("output_tokens", "output tokens", "count", "neither", _at("throughput", "output_tokens")),
)
_BY_KEY = {metric.key: metric for metric in METRICS}

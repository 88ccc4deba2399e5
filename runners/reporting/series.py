"""What a run's charts show: values over time and latency distributions, as plain numbers. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from runners.measurement import request_rates
from runners.records import RequestRecord
from runners.reporting.reading import Run, ms_of

MOST_POINTS = 1200
"""Of a line; of more, the highest and the lowest of each stretch are kept, so that no peak is lost."""
_SHORTEST_S = 0.5
"""Counters are not compared over less, as for the peaks of result.json."""
_LATENCIES = (("ttft_s", "TTFT"), ("tpot_s", "TPOT"), ("e2e_s", "E2E"))
_MOST_STEPS = 400
Row = Mapping[str, Any]


@dataclass
class Line:
    """One line of a chart: moments in milliseconds since 1970, and values."""

    name: str
    colour: str
    x: list[float] = field(default_factory=list)
    y: list[float | None] = field(default_factory=list)
    step: bool = False

    def add(self, x: float, y: float | None) -> None:
        self.x.append(x)
        self.y.append(y)

    def document(self, origin: float) -> dict[str, Any]:
        """For the page: moments from the origin, which are shorter."""
        x, y = thinned(self.x, self.y)
        return {
            "name": self.name,
            "colour": self.colour,
            "step": self.step,
            "x": [round(at - origin) for at in x],
            "y": [None if value is None else round(value, 4) for value in y],
        }


@dataclass
class Panel:
    """Lines that share an axis of values."""

    key: str
    title: str
    unit: str
    lines: list[Line]
    top: float | None = None
    """The end of the axis, where there is one by nature."""


def thinned(x: Sequence[float], y: Sequence[float | None]) -> tuple[list[float], list[float | None]]:
    """At most MOST_POINTS, with the extremes and the gaps of every stretch."""
    if len(x) <= MOST_POINTS:
        return list(x), list(y)
    width = -(-len(x) * 2 // MOST_POINTS)
    kept: list[int] = []
    for begin in range(0, len(x), width):
        stretch = range(begin, min(begin + width, len(x)))
        known = [i for i in stretch if y[i] is not None]
        chosen = {min(known, key=lambda i: y[i] or 0), max(known, key=lambda i: y[i] or 0)} if known else {begin}
        if len(known) < len(stretch) and known:
            chosen.add(next(i for i in stretch if y[i] is None))
        kept += sorted(chosen)
    return [x[i] for i in kept], [y[i] for i in kept]


def panels_of(run: Run) -> list[Panel]:
    """Everything that is known over time, from the work down to the machine; what was not measured is left out."""
    engine = [row for row in run.telemetry if row.get("source") == "engine"]
    host = [row for row in run.telemetry if row.get("source") == "host"]
    found = [
        *_throughput(run.requests, engine),
        Panel("requests", "Requests", "", [_under_way(run.requests), *_states(engine)]),
        Panel("kv", "KV cache", "%", [_values("KV cache in use", "c3", engine, "kv_usage", 100)], top=100),
        *_gpus(host),
        Panel("cpu", "CPU", "%", [_values("all cores", "c8", host, "cpu", 100)], top=100),
        Panel("ram", "RAM", "GiB", [_values("in use", "c4", host, "ram_used_mib", 1 / 1024)]),
        Panel("traffic", "Network and disk", "MB/s", _traffic(host)),
    ]
    for panel in found:
        panel.lines = [line for line in panel.lines if any(value is not None for value in line.y)]
    return [panel for panel in found if panel.lines]


def _throughput(records: Sequence[RequestRecord], engine: Sequence[Row]) -> list[Panel]:
    answered = [r for r in records if r.prompt_tokens or r.status == "ok"]
    rates = request_rates(answered)
    panels = []
    for kind, title in (("prompt", "Prompt throughput"), ("output", "Output throughput")):
        own = Line("from requests", "c1", step=True)
        if rates is not None:
            begin = ms_of(rates.origin)
            per_s = rates.per_s[kind]  # type: ignore[index]
            for i, value in enumerate(per_s):
                own.add(begin + i * rates.width_s * 1000, value)
            own.add(begin + len(per_s) * rates.width_s * 1000, per_s[-1])
        metrics = _rates("from metrics", "c2", engine, f"{kind}_tokens_total")
        panels.append(Panel(kind, title, "tok/s", [own, metrics]))
    return panels


def _rates(name: str, colour: str, rows: Sequence[Row], key: str, factor: float = 1.0) -> Line:
    """How fast a counter rose between rows, where peaks stand as well: in the middle.

    One that fell was begun anew: nothing is known of that stretch.
    """
    line = Line(name, colour)
    for before, after in pairwise(rows):
        elapsed_s = (after["ms"] - before["ms"]) / 1000
        a, b = before.get(key), after.get(key)
        if a is None or b is None or elapsed_s < _SHORTEST_S:
            continue
        line.add((before["ms"] + after["ms"]) / 2, (b - a) / elapsed_s * factor if b >= a else None)
    return line


def _under_way(records: Sequence[RequestRecord]) -> Line:
    """How many requests the client was waiting for, at each change."""
    line = Line("under way at the client", "c1", step=True)
    changes = sorted([(ms_of(r.started_at), 1) for r in records] + [(ms_of(r.ended_at), -1) for r in records])
    count = 0
    for i, (x, change) in enumerate(changes):
        count += change
        if i + 1 == len(changes) or changes[i + 1][0] != x:
            line.add(x, count)
    return line


def _states(engine: Sequence[Row]) -> list[Line]:
    return [
        _values("running in the engine", "c3", engine, "running"),
        _values("waiting in the engine", "c2", engine, "waiting"),
    ]


def _values(name: str, colour: str, rows: Sequence[Row], key: str, factor: float = 1.0) -> Line:
    line = Line(name, colour)
    for row in rows:
        value = row.get(key)
        line.add(row["ms"], None if value is None else value * factor)
    return line


def _gpus(host: Sequence[Row]) -> list[Panel]:
    """A line for each GPU; one that was lost ends."""
    wanted: tuple[tuple[str, str, str, str, float, float | None], ...] = (
        ("gpu", "GPU utilisation", "%", "utilization", 100, 100),
        ("gpu-memory", "GPU memory", "GiB", "memory_used_mib", 1 / 1024, None),
        ("power", "GPU power", "W", "power_w", 1, None),
        ("temperature", "GPU temperature", "°C", "temperature_c", 1, None),
    )
    by_index = [{gpu.get("index", 0): gpu for gpu in row.get("gpus") or ()} for row in host]
    moments = [row["ms"] for row in host]
    indices = sorted({index for gpus in by_index for index in gpus})
    panels = []
    for key, title, unit, name, factor, top in wanted:
        lines = []
        for number, index in enumerate(indices):
            line = Line(f"GPU {index}", f"c{number % 8 + 1}")
            values = [gpus[index].get(name) if index in gpus else None for gpus in by_index]
            line.x = moments
            line.y = [None if value is None else value * factor for value in values]
            lines.append(line)
        panels.append(Panel(key, title, unit, lines, top))
    return panels


def _traffic(host: Sequence[Row]) -> list[Line]:
    return [
        _rates(name, colour, host, key, 1e-6)
        for name, colour, key in (
            ("received", "c1", "net_received_bytes"),
            ("sent", "c6", "net_sent_bytes"),
            ("read", "c2", "disk_read_bytes"),
            ("written", "c5", "disk_written_bytes"),
        )
    ]


def time_chart(run: Run, panels: Sequence[Panel]) -> dict[str, Any]:
    """The chart over time: panels on one axis, the phases behind them, peaks marked and gaps shaded."""
    phases = [p for p in run.result["phases"] if p.get("started_at")]
    starts = [ms_of(p["started_at"]) for p in phases] or [line.x[0] for panel in panels for line in panel.lines]
    origin = min(starts, default=0.0)
    return {
        "origin": origin,
        "bands": [
            {"name": p["name"], "from": round(ms_of(p["started_at"]) - origin), "ms": round(p["seconds"] * 1000)}
            for p in phases
        ],
        "gaps": _gaps(run, origin),
        "peaks": [
            {
                "panel": peak["kind"],
                "source": peak["source"],
                "x": round(ms_of(peak["at"]) - origin),
                "y": peak["tokens_per_s"],
            }
            for peak in run.result["throughput"]["peak_at"]
        ],
        "panels": [
            {
                "key": panel.key,
                "title": panel.title,
                "unit": panel.unit,
                "top": panel.top,
                "lines": [line.document(origin) for line in panel.lines],
            }
            for panel in panels
        ],
    }


def _gaps(run: Run, origin: float) -> list[dict[str, Any]]:
    """Stretches that were not measured, told at their end."""
    return [
        {
            "of": str(row.get("of", "")),
            "why": str(row.get("why", "")),
            "from": round(row["ms"] - row["seconds"] * 1000 - origin),
            "ms": round(row["seconds"] * 1000),
        }
        for row in run.telemetry
        if row.get("source") == "gap" and isinstance(row.get("seconds"), int | float)
    ]


def latency_charts(run: Run) -> list[dict[str, Any]]:
    """For TTFT, TPOT and E2E: which share of the requests took no longer than so many seconds."""
    good = [r for r in run.requests if r.status == "ok"]
    pick: dict[str, Callable[[RequestRecord], float | None]] = {
        "ttft_s": lambda r: r.ttft_s,
        "tpot_s": lambda r: r.tpot_s,
        "e2e_s": lambda r: r.e2e_s,
    }
    charts = []
    for name, title in _LATENCIES:
        values = sorted(v for r in good if (v := pick[name](r)) is not None)
        if not values:
            continue
        steps = _steps(len(values))
        marks = run.result["latency"].get(name) or {}
        charts.append(
            {
                "key": name,
                "title": title,
                "count": len(values),
                "x": [round(values[i], 6) for i in steps],
                "y": [round((i + 1) / len(values), 5) for i in steps],
                "marks": {p: marks[p] for p in ("p50", "p90", "p99") if marks.get(p) is not None},
            }
        )
    return charts


def _steps(count: int) -> list[int]:
    """Which of so many values are drawn: evenly, and both ends."""
    if count <= _MOST_STEPS:
        return list(range(count))
    return sorted({round(i * (count - 1) / (_MOST_STEPS - 1)) for i in range(_MOST_STEPS)})


def moments_table(chart: Mapping[str, Any], panels: Sequence[Panel], most: int = 40) -> list[list[Any]]:
    """The same as a table for who can't see it: at evenly spread moments, the newest value of each line."""
    if not panels:
        return []
    lines = [line for panel in panels for line in panel.lines]
    begin, end = min(line.x[0] for line in lines), max(line.x[-1] for line in lines)
    steps = min(most, max(len(line.x) for line in lines))
    found: list[list[Any]] = []
    places = [0] * len(lines)
    for step in range(steps):
        now = begin + (end - begin) * step / max(1, steps - 1)
        row: list[Any] = [(now - chart["origin"]) / 1000]
        for i, line in enumerate(lines):
            while places[i] < len(line.x) and line.x[places[i]] <= now:
                places[i] += 1
            row.append(line.y[places[i] - 1] if places[i] else None)
        found.append(row)
    return found

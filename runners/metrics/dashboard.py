"""The Grafana dashboard of runs: queries on recipe's own series, which every engine has, and one row with vLLM's own.

A query takes the highest of the series of a run, so that one that was both scraped and backfilled does not count twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

UID = "recipe-runs"
DATASOURCE = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
_WIDTH, _HEIGHT = 24, 8
_RUN = 'run_id=~"$run"'
_QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Query:
    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    title: str
    queries: Sequence[Query]
    unit: str
    kind: str = "timeseries"
    width: int = 8
    about: str = ""
    decimals: int | None = None
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]


def dashboard() -> dict[str, Any]:
    """As Grafana's provisioning and its import take it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows():
        panels.append(_row(row, len(panels) + 1, y))
        y, x = y + 1, 0
        for panel in row.panels:
            if x + panel.width > _WIDTH:
                x, y = 0, y + _HEIGHT
            panels.append(_panel(panel, len(panels) + 1, x, y))
            x += panel.width
        y += _HEIGHT
    return {
        "uid": UID,
        "title": "Runs of recipe",
        "description": "What goes on, how fast, and what it costs. Made by recipe metrics --write.",
        "tags": ["recipe"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def rows() -> Sequence[Row]:
    return (
        Row("Money and time", _money()),
        Row("Throughput", _throughput()),
        Row("Latency", _latency()),
        Row("Requests", _requests()),
        Row("GPUs", _gpus()),
        Row("Machine", _machine()),
        Row("vLLM's own", _vllm()),
    )


def _money() -> Sequence[Panel]:
    cost = Query(_of("recipe_cost_usd"), "{{run_id}}")
    phase = Query(f"{_of('recipe_phase', 'phase')} == 1", "{{run_id}} {{phase}}")
    seconds = Query(_of("recipe_phase_seconds_total", "phase"), "{{run_id}} {{phase}}")
    return (
        Panel("Dollars so far", [cost], "currencyUSD", "stat", 6, decimals=4),
        Panel("Useful share", [Query(_of("recipe_useful_ratio"), "{{run_id}}")], "percentunit", "stat", 6, _USEFUL),
        Panel("Documents done", [_ratio("recipe_documents_done", "recipe_documents")], "percentunit", "stat", 6),
        Panel("Seconds in each phase", [seconds], "s", "bargauge", 6),
        Panel("Phase", [phase], "none", "state-timeline", 12),
        Panel("Dollars", [cost], "currencyUSD", width=12, decimals=4),
    )


def _throughput() -> Sequence[Panel]:
    running = Query(_of("recipe_engine_running"), "{{run_id}} running")
    waiting = Query(_of("recipe_engine_waiting"), "{{run_id}} waiting")
    return (
        Panel("Prompt tokens per second", [_tokens("prompt")], "suffix: tok/s", about=_TOKENS),
        Panel("Output tokens per second", [_tokens("output")], "suffix: tok/s", about=_TOKENS),
        Panel("Running and waiting", [running, waiting], "none"),
    )


def _latency() -> Sequence[Panel]:
    return (
        Panel("Time to first token", _quantiles("recipe_time_to_first_token_seconds"), "s", width=12),
        Panel("Time per output token", _quantiles("recipe_time_per_output_token_seconds"), "s", width=12),
        Panel("End to end", _quantiles("recipe_e2e_request_latency_seconds"), "s", width=12),
        Panel("request_latency_seconds", _quantiles("request_latency_seconds"), "s", width=12, about=_REFERENCE),
    )


def _requests() -> Sequence[Panel]:
    ended = Query(_rate("recipe_requests_total", "status"), "{{run_id}} {{status}}")
    failed = Query(_of("recipe_requests_total", "status", 'status="failed"'), "{{run_id}}")
    retried = Query(_of("recipe_requests_retried_total"), "{{run_id}} retried")
    warnings = Query(_of("recipe_warnings_total"), "{{run_id}} warnings")
    return (
        Panel("Requests per second", [ended], "reqps"),
        Panel("Failed requests", [failed], "none"),
        Panel("Retried requests, warnings", [retried, warnings], "none"),
    )


def _gpus() -> Sequence[Panel]:
    by, legend = ("hostname", "gpu_index"), "{{run_id}} {{hostname}}/{{gpu_index}}"

    def panel(title: str, name: str, unit: str) -> Panel:
        return Panel(title, [Query(_of(name, *by), legend)], unit, width=6)

    return (
        panel("GPU utilization", "gpu_utilization", "percent"),
        panel("GPU memory used", "gpu_memory_used", "mbytes"),
        panel("GPU power", "recipe_gpu_power_watts", "watt"),
        panel("GPU temperature", "recipe_gpu_temperature_celsius", "celsius"),
    )


def _machine() -> Sequence[Panel]:
    def query(name: str, what: str = "") -> Query:
        return Query(_of(name, "hostname"), f"{{{{run_id}}}} {{{{hostname}}}}{what}")

    def rate(name: str, what: str) -> Query:
        return Query(_rate(name, "hostname"), f"{{{{run_id}}}} {{{{hostname}}}} {what}")

    network = "recipe_host_network_received_bytes_total", "recipe_host_network_sent_bytes_total"
    disk = "recipe_host_disk_read_bytes_total", "recipe_host_disk_written_bytes_total"
    return (
        Panel("CPU", [query("recipe_host_cpu_ratio")], "percentunit"),
        Panel("Load", [query("system_load_average")], "none"),
        Panel("Memory", [query("recipe_host_memory_used_bytes")], "bytes"),
        Panel("Network", [rate(network[0], "received"), rate(network[1], "sent")], "Bps"),
        Panel("Disk", [rate(disk[0], "read"), rate(disk[1], "written")], "Bps"),
        Panel("Disk free", [query("recipe_host_disk_free_bytes")], "bytes"),
    )


def _vllm() -> Sequence[Panel]:
    running = Query(_of("vllm:num_requests_running", "engine"), "{{run_id}} running")
    waiting = Query(_of("vllm:num_requests_waiting", "engine"), "{{run_id}} waiting")
    kv = Query(_of("vllm:kv_cache_usage_perc", "engine"), "{{run_id}}")
    preempted = Query(_rate("vllm:num_preemptions_total", "engine"), "{{run_id}}")
    prompt = Query(_rate("vllm:prompt_tokens_total", "engine"), "{{run_id}} prompt")
    output = Query(_rate("vllm:generation_tokens_total", "engine"), "{{run_id}} output")
    hits = Query(f"{_rate('vllm:prefix_cache_hits_total')} / {_rate('vllm:prefix_cache_queries_total')}", "{{run_id}}")
    return (
        Panel("vLLM: running and waiting", [running, waiting], "none"),
        Panel("vLLM: KV cache in use", [kv], "percentunit"),
        Panel("vLLM: preemptions per second", [preempted], "ops"),
        Panel("vLLM: tokens per second", [prompt, output], "suffix: tok/s"),
        Panel("vLLM: prefix cache hits", [hits], "percentunit"),
        Panel("vLLM: time to first token", _quantiles("vllm:time_to_first_token_seconds"), "s"),
        Panel("vLLM: inter-token latency", _quantiles("vllm:inter_token_latency_seconds"), "s"),
    )


def _of(name: str, *by: str) -> str:
    """The value of each run, and of each of its parts; a word with `=` restricts instead."""
    labels = [label for label in by if "=" not in label]
    selector = ",".join([_RUN, *(label for label in by if "=" in label)])
    return f"max by ({', '.join(['run_id', *labels])}) ({name}{{{selector}}})"


def _rate(name: str, *by: str) -> str:
    return f"max by ({', '.join(['run_id', *by])}) (rate({name}{{{_RUN}}}[$__rate_interval]))"


def _ratio(part: str, whole: str) -> Query:
    return Query(f"{_of(part)} / ({_of(whole)} > 0)", "{{run_id}}")


def _tokens(kind: str) -> Query:
    """As the engine counts them; of one that does not say, as the answers came."""
    engine, client = (_rate(f"recipe_{who}{kind}_tokens_total") for who in ("engine_", ""))
    return Query(f"{engine} or {client}", "{{run_id}}")


def _quantiles(histogram: str) -> Sequence[Query]:
    buckets = _rate(f"{histogram}_bucket", "le")
    return [Query(f"histogram_quantile({q}, {buckets})", f"{{{{run_id}}}} p{q * 100:.0f}") for q in _QUANTILES]


def _variables() -> list[dict[str, Any]]:
    source = {"name": "DS_PROMETHEUS", "label": "Data source", "type": "datasource", "query": "prometheus"}
    query = "label_values(recipe_run_info, run_id)"
    return [
        source,
        {
            "name": "run",
            "label": "Run",
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": query, "refId": "run"},
            "refresh": 2,
            "sort": 2,
            "multi": True,
            "includeAll": True,
            "current": {"text": ["All"], "value": ["$__all"]},
        },
    ]


def _row(row: Row, number: int, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "row",
        "title": row.title,
        "collapsed": False,
        "gridPos": {"h": 1, "w": _WIDTH, "x": 0, "y": y},
        "panels": [],
    }


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.unit == "percentunit":
        defaults |= {"min": 0, "max": 1}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": {"h": _HEIGHT, "w": panel.width, "x": x, "y": y},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _OPTIONS.get(panel.kind, {}),
        "targets": [_target(query, i) for i, query in enumerate(panel.queries)],
    }


def _target(query: Query, i: int) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + i),
        "datasource": DATASOURCE,
        "expr": query.expression,
        "legendFormat": query.legend,
    }


_LAST = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {**_LAST, "colorMode": "none", "graphMode": "area", "textMode": "value_and_name"},
    "bargauge": {**_LAST, "displayMode": "basic", "orientation": "horizontal"},
    "state-timeline": {"mergeValues": True, "showValue": "never"},
}
_USEFUL = "Seconds with requests under way, of the seconds that are billed."
_TOKENS = "As the engine counts them; of an engine without metrics as the answers came."
_REFERENCE = "The name that the reference node exporter has; the time of the requests."

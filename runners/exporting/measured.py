"""What was measured in runs, as tables: requests, a row each; telemetry, a row for each sample and each GPU in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

from runners.answers import rows_of
from runners.exporting.columns import Column, Kind, Reader, Table, as_number, as_time
from runners.exporting.contract import ExportedRun, What

_REQUEST = """
text run_id id document
int level index
text status
int tries
time started_at first_token_at ended_at
int prompt_tokens output_tokens cached_tokens
text tokens_from
float ttft_s tpot_s itl_mean_s itl_max_s e2e_s send_s
text finish_reason error
"""
_TELEMETRY = """
text run_id
time at
float elapsed_s
text source
int gpu
text uuid name hostname
float cpu load_1m load_5m load_15m ram_used_mib ram_total_mib
float disk_used_mib disk_free_mib disk_total_mib
int disk_read_bytes disk_written_bytes net_received_bytes net_sent_bytes
float cpu_energy_j
float utilization memory_utilization memory_used_mib memory_total_mib power_w power_limit_w energy_j temperature_c
float sm_mhz memory_mhz
text throttle
float prompt_tokens_total output_tokens_total running waiting kv_usage preemptions_total swapped
text of
float seconds
text why
"""


@dataclass(frozen=True)
class _Of:
    """A row of a run's file."""

    run: ExportedRun
    row: Mapping[str, Any]


def measured_table(what: What, runs: Iterable[ExportedRun]) -> Table:
    """The rows of all these runs, one run after the other."""
    if what == "requests":
        return REQUESTS.table(_Of(run, row) for run in runs for row in requests_of(run))
    return TELEMETRY.table(_Of(run, row) for run in runs for row in _samples(run))


def documents(what: What, runs: Iterable[ExportedRun]) -> Iterator[dict[str, Any]]:
    """The rows of their files as they are, each with its run's id before it."""
    of = requests_of if what == "requests" else telemetry_of
    for run in runs:
        for row in of(run):
            yield {"run_id": run.run_id, **row}


def requests_of(run: ExportedRun) -> Iterator[dict[str, Any]]:
    return rows_of(run.folder / "requests.jsonl", "id", "started_at")


def telemetry_of(run: ExportedRun) -> Iterator[dict[str, Any]]:
    return rows_of(run.folder / "telemetry.jsonl", "at", "source")


def _samples(run: ExportedRun) -> Iterator[dict[str, Any]]:
    """A sample's own row, and one for each of its GPUs."""
    begun = as_time(run.result.get("started_at"))
    for row in telemetry_of(run):
        instant = as_time(row["at"])
        elapsed = round((instant - begun).total_seconds(), 3) if instant and begun else None
        yield {**row, "elapsed_s": elapsed}
        gpus = row.get("gpus")
        for one in gpus if isinstance(gpus, list) else ():
            if isinstance(one, dict):
                sample = {"at": row["at"], "elapsed_s": elapsed, "source": row["source"]}
                yield {**one, **sample, "gpu": one.get("index")}


def _first_token(row: Mapping[str, Any]) -> datetime | None:
    return _after(row, "ttft_s")


def _after(row: Mapping[str, Any], name: str) -> datetime | None:
    """The moment so many seconds after the request's beginning."""
    begun, seconds = as_time(row.get("started_at")), as_number(row.get(name))
    if begun is None or seconds is None:
        return None
    try:
        return begun + timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return None


def _gaps(row: Mapping[str, Any]) -> list[float]:
    """The gaps between the pieces of an answer, in seconds."""
    gaps = row.get("itl_s")
    return [gap for gap in map(as_number, gaps) if gap is not None] if isinstance(gaps, list) else []


def _mean_gap(row: Mapping[str, Any]) -> float | None:
    gaps = _gaps(row)
    return round(sum(gaps) / len(gaps), 6) if gaps else None


def _throttle(row: Mapping[str, Any]) -> str | None:
    reasons = row.get("throttle")
    return ",".join(map(str, reasons)) if isinstance(reasons, list) and reasons else None


_MADE: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "first_token_at": _first_token,
    "ended_at": lambda row: _after(row, "e2e_s"),
    "itl_mean_s": _mean_gap,
    "itl_max_s": lambda row: max(_gaps(row), default=None),
    "throttle": _throttle,
}
"""Columns that the files do not have as they stand."""


def _reader(text: str) -> Reader[_Of]:
    kinds = {kind: kind for kind in get_args(Kind)}
    found = []
    for line in text.split("\n"):
        kind, *names = line.split() or [""]
        found += [(Column(name, kinds[kind]), _read(name)) for name in names]
    return Reader(found)


def _read(name: str) -> Callable[[_Of], Any]:
    if name == "run_id":
        return lambda of: of.run.run_id
    made = _MADE.get(name)
    return (lambda of: made(of.row)) if made else (lambda of: of.row.get(name))


REQUESTS = _reader(_REQUEST)
TELEMETRY = _reader(_TELEMETRY)

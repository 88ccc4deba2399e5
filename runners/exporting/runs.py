"""Runs as a table: a row each.

A column's name is the path of its value in result.json. What is a list there has columns of its own: the phases
(`phase_drive_seconds`, `phase_drive_usd`), the peaks of each source (`peak_output_metrics_tokens_per_s`), and the GPUs,
over all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from runners.exporting.columns import Column, Kind, Reader, Table, as_json, as_number, at, within
from runners.exporting.contract import ExportedRun

PHASES = ("plan", "provision", "prepare", "launch", "drive", "collect", "release")
_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
_IDLE = ("boot", "download", "load", "waiting", "letting_go", "kept")
_STATISTICS = ("mean", "p50", "p90", "p95", "p99")
_SOURCES = ("requests", "metrics", "log")

# Type, and paths in result.json of values of that type.
_HEAD = """
text run_id recipe recipe_digest
"""
_IDENTITY = """
text outcome.status outcome.phase outcome.error
int exit_code
time started_at ended_at
"""
_WHAT = """
text model.identifier model.commit engine.name engine.version
"""
_MACHINE = """
text offer.provider offer.id offer.accelerator
int offer.count offer.cpus
float offer.memory_gib
text offer.region offer.cloud
bool offer.spot
"""
_FIGURES = f"""
int documents.done documents.total
text documents.unit
int requests.ok requests.failed requests.retried requests.truncated requests.resumed
int throughput.prompt_tokens throughput.output_tokens throughput.cached_prompt_tokens
float throughput.seconds throughput.prompt_tokens_per_s throughput.output_tokens_per_s
float throughput.peak_prompt_tokens_per_s throughput.peak_output_tokens_per_s
text throughput.measured_at throughput.through
float {" ".join(f"latency.{name}.{s}" for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s") for s in _STATISTICS)}
text cost.priced_by
float cost.price_usd_per_h cost.storage_usd_per_h cost.billed_seconds
float cost.total_usd cost.forecast_usd cost.useful_fraction
float cost.usd_per_document cost.usd_per_million_prompt_tokens cost.usd_per_million_output_tokens
float cost.usd_per_million_tokens cost.compute_usd cost.storage_usd cost.useful_seconds cost.useful_usd
float {" ".join(f"cost.idle_seconds.{cause} cost.idle_usd.{cause}" for cause in _IDLE)}
float cost.provider_usd cost.provider_seconds cost.difference_usd cost.difference_share
float cost.energy.gpu_wh cost.energy.cpu_wh cost.energy.total_wh cost.energy.usd cost.energy.covered_seconds
text cost.energy.source
float telemetry.cpu.mean telemetry.cpu.max telemetry.ram_used_mib.mean telemetry.ram_used_mib.max
"""
_TAIL = """
text workload.kind workload.knee workload.saturated_at workload.best_goodput
text release.state git_commit versions.gpu-recipe versions.python versions.platform
"""


def runs_table(runs: Iterable[ExportedRun]) -> Table:
    """A row for each run."""
    return COLUMNS.table(runs)


def documents(runs: Iterable[ExportedRun]) -> Iterator[dict[str, Any]]:
    """Each run's whole result."""
    return (run.result for run in runs)


def _plain(text: str) -> Iterator[tuple[Column, Callable[[ExportedRun], Any]]]:
    for line in text.split("\n"):
        kind, *paths = line.split() or [""]
        yield from ((_column(path, kind), _of(path)) for path in paths)


def _of(path: str) -> Callable[[ExportedRun], Any]:
    names = path.split(".")
    return lambda run: within(run.result, names)


def _column(name: str, kind: str) -> Column:
    kinds: dict[str, Kind] = {"text": "text", "int": "int", "float": "float", "bool": "bool", "time": "time"}
    return Column(name, kinds[kind])


def _json(path: str) -> tuple[Column, Callable[[ExportedRun], Any]]:
    return Column(path, "text"), lambda run: as_json(at(run.result, path))


def _seconds(run: ExportedRun) -> float | None:
    """From the beginning to the end: the sum of the phases."""
    found = [as_number(phase.get("seconds")) for phase in _rows(run.result, "phases")]
    return round(sum(filter(None, found)), 3) if found else None


def _phases() -> Iterator[tuple[Column, Callable[[ExportedRun], Any]]]:
    for phase in PHASES:
        for what in ("seconds", "usd"):
            yield Column(f"phase_{phase}_{what}", "float"), _of_phase(phase, what)


def _of_phase(phase: str, what: str) -> Callable[[ExportedRun], Any]:
    def read(run: ExportedRun) -> float | None:
        found = [as_number(row.get(what)) for row in _rows(run.result, "phases") if row.get("name") == phase]
        known = [value for value in found if value is not None]
        return sum(known) if known else None

    return read


def _peaks() -> Iterator[tuple[Column, Callable[[ExportedRun], Any]]]:
    for kind in ("prompt", "output"):
        for source in _SOURCES:
            yield Column(f"peak_{kind}_{source}_tokens_per_s", "float"), _of_peak(kind, source, "tokens_per_s")
            yield Column(f"peak_{kind}_{source}_at", "time"), _of_peak(kind, source, "at")


def _of_peak(kind: str, source: str, what: str) -> Callable[[ExportedRun], Any]:
    def read(run: ExportedRun) -> Any:
        peaks = _rows(at(run.result, "throughput"), "peak_at")
        return next((p.get(what) for p in peaks if (p.get("kind"), p.get("source")) == (kind, source)), None)

    return read


def _gpus() -> Iterator[tuple[Column, Callable[[ExportedRun], Any]]]:
    """Over all GPUs of a run: the mean of their use, the most of any, and the sum of what they drew."""
    yield Column("gpu_utilization_mean", "float"), _of_gpus("utilization.mean", _mean)
    yield Column("gpu_memory_used_mib_max", "float"), _of_gpus("memory_used_mib.max", max)
    yield Column("gpu_temperature_c_max", "float"), _of_gpus("temperature_c.max", max)
    yield Column("gpu_power_w_mean", "float"), _of_gpus("power_w.mean", sum)
    yield Column("gpu_energy_wh", "float"), _of_gpus("energy_wh", sum)


def _of_gpus(path: str, over: Callable[[list[float]], float]) -> Callable[[ExportedRun], Any]:
    def read(run: ExportedRun) -> float | None:
        found = [as_number(at(gpu, path)) for gpu in _rows(at(run.result, "telemetry"), "gpus")]
        known = [value for value in found if value is not None]
        return over(known) if known else None

    return read


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _rows(data: Any, name: str) -> list[dict[str, Any]]:
    """The mappings in a list; none if it is no list."""
    found = at(data, name)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _parallel(i: int) -> Callable[[ExportedRun], Any]:
    def read(run: ExportedRun) -> Any:
        sizes = at(run.result, "engine.parallel")
        return sizes[i] if isinstance(sizes, list) and len(sizes) > i else None

    return read


COLUMNS: Reader[ExportedRun] = Reader([
    *_plain(_HEAD),
    _json("variant"),
    (Column("tags", "text"), lambda run: ",".join(run.row.tags)),
    (Column("origin", "text"), lambda run: run.row.origin),
    *_plain(_IDENTITY),
    (Column("seconds", "float"), _seconds),
    *_plain(_WHAT),
    *((Column(f"engine.{name}", "int"), _parallel(i)) for i, name in enumerate(_PARALLEL)),
    _json("engine.args"),
    *_plain(_MACHINE),
    *_plain(_FIGURES),
    *_phases(),
    *_peaks(),
    *_gpus(),
    *_plain(_TAIL),
])  # fmt: skip

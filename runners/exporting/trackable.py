"""A run as experiment trackers see runs: parameters, figures, how some of them went over time, and files."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from runners.exporting.columns import as_number, as_text, as_time
from runners.exporting.contract import ExportedRun
from runners.exporting.measured import requests_of, telemetry_of
from runners.exporting.runs import COLUMNS
from runners.measurement import request_rates
from runners.run_folder import RunFolder, record_of

MOST_POINTS = 5_000
"""So many points each source's series have at most: a day has 86,400 seconds, and no chart shows them all."""
_FILES = ("report.html", "result.json", "recipe.yaml", "resolved.json")
_TAGS = (
    *("run_id", "recipe", "recipe_digest", "tags", "origin", "git_commit"),
    *("outcome.status", "outcome.phase", "outcome.error", "release.state"),
    *("model.identifier", "model.commit", "engine.name", "engine.version"),
    *("offer.provider", "offer.id", "offer.accelerator", "offer.region"),
    *("versions.gpu-recipe", "versions.python", "versions.platform"),
)


@dataclass(frozen=True)
class Point:
    """Figures of one moment."""

    at: datetime
    values: Mapping[str, float]


def parameters(run: ExportedRun) -> dict[str, str | int | float | bool]:
    """The resolved recipe's settings by their paths; what is not set is left out, and lists are JSON."""
    resolved = _read_json(run.folder, "resolved.json")
    found = dict(_flat(resolved)) if isinstance(resolved, dict) else {}
    return {path: value for path, value in found.items() if path != "tags"}


def figures(run: ExportedRun) -> dict[str, float]:
    """Every number of the run's row in a table, by its column."""
    cells = zip(COLUMNS.columns, COLUMNS.row(run), strict=True)
    known = {column.name: as_number(cell) for column, cell in cells if column.kind in ("int", "float")}
    return {name: value for name, value in known.items() if value is not None and value == value}


def facts(run: ExportedRun) -> dict[str, str]:
    """What a run is found by, by its column."""
    cells = {column.name: cell for column, cell in zip(COLUMNS.columns, COLUMNS.row(run), strict=True)}
    return {name: str(cells[name]) for name in _TAGS if cells[name]}


def begun_at(run: ExportedRun) -> datetime | None:
    return as_time(run.result.get("started_at"))


def history(run: ExportedRun) -> Iterator[Point]:
    """Telemetry and the requests' throughput, in the order of time."""
    return heapq.merge(_telemetry(run), _throughput(run), key=lambda point: point.at)


def files(run: ExportedRun, *, outputs: bool) -> list[tuple[Path, str]]:
    """The files to go along, each with the folder in which it lies; not all runs have all of them."""
    found = [(run.folder / name, "") for name in _FILES]
    if outputs:
        found += [(path, "outputs") for path in sorted((run.folder / "outputs").glob("*"))]
    return [(path, folder) for path, folder in found if path.is_file() and not path.is_symlink()]


def _read_json(folder: Path, name: str) -> Any:
    try:
        return RunFolder(folder).read_json(name)
    except (OSError, ValueError):
        return None


def _flat(data: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str | int | float | bool]]:
    for name, value in data.items():
        path = f"{before}{name}"
        if isinstance(value, dict):
            yield from _flat(value, f"{path}.")
        elif isinstance(value, bool | int | float):
            yield path, value
        elif value not in (None, "", []):
            yield path, as_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)) or ""


def _telemetry(run: ExportedRun) -> Iterator[Point]:
    """The samples' numbers, as `engine.running` and `gpu.0.power_w`; evenly thinned out where there are very many."""
    every = {source: -(-n // MOST_POINTS) for source, n in Counter(_sources(run)).items()}
    seen: Counter[str] = Counter()
    for row in telemetry_of(run):
        source = str(row["source"])
        seen[source] += 1
        instant = as_time(row["at"])
        if source not in ("host", "engine") or instant is None or (seen[source] - 1) % every[source]:
            continue
        if values := dict(_numbers(row, source)):
            yield Point(instant, values)


def _sources(run: ExportedRun) -> Iterator[str]:
    return (str(row["source"]) for row in telemetry_of(run))


def _numbers(row: Mapping[str, Any], source: str) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if (number := as_number(value)) is not None and name != "n":
            yield f"{source}.{name}", number
    gpus = row.get("gpus")
    for gpu in gpus if isinstance(gpus, list) else ():
        if isinstance(gpu, dict):
            yield from ((f"gpu.{gpu.get('index')}.{name}", v) for name, v in _gpu_numbers(gpu))


def _gpu_numbers(gpu: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    numbers = ((str(name), as_number(value)) for name, value in gpu.items() if name != "index")
    return ((name, number) for name, number in numbers if number is not None)


def _throughput(run: ExportedRun) -> Iterator[Point]:
    """The requests' tokens per second, interval by interval; means over longer ones where there are very many."""
    records = [record_of({**row, "itl_s": ()}) for row in requests_of(run) if _whole(row)]
    rates = request_rates(records)
    if rates is None:
        return
    count = max(map(len, rates.per_s.values()))
    together = -(-count // MOST_POINTS)
    for begin in range(0, count, together):
        values = {
            f"requests.{kind}_tokens_per_s": _mean(per_s[begin : begin + together])
            for kind, per_s in rates.per_s.items()
        }
        yield Point(rates.origin + timedelta(seconds=begin * rates.width_s), values)


def _whole(row: Mapping[str, Any]) -> bool:
    """Whether it can be reckoned with: an imported file may say anything."""
    numbers = (row.get(name) for name in ("prompt_tokens", "output_tokens", "e2e_s"))
    ttft = row.get("ttft_s")
    known = all(as_number(value) is not None for value in numbers) and (ttft is None or as_number(ttft) is not None)
    return known and as_time(row.get("started_at")) is not None and isinstance(row.get("document"), str)


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return round(sum(kept) / len(kept), 2)

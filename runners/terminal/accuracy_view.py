"""Forecasts beside what the runs took, as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from runners.terminal.summary import aligned_table
from runners.terminal.words import clock_time, dollars, plural

_SHOWN = ("prepare", "launch", "drive")


def accuracy_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each run that had a forecast: time and cost, expected and actual, and the errors of its phases."""
    header = ("run", "forecast", "took", "error", "in range", "forecast $", "cost", *_SHOWN)
    return aligned_table(header, [_cells(result) for result in results], right=header[1:])


def accuracy_line(found: Mapping[str, Any]) -> str:
    """The errors of all of them in a line."""
    error, within = found["median_error"]["seconds"], found["within"]
    if error is None or within is None:
        return "no completed run had a forecast yet"
    drive = found["median_error_of_phases"].get("drive")
    parts = [f"median error {error:.0%}", f"drive {drive:.0%}" if drive is not None else ""]
    parts.append(f"{within:.0%} of {plural(found['runs'], 'run')} took what lay between low and high")
    return "   ".join(filter(None, parts))


def _cells(result: Mapping[str, Any]) -> list[str]:
    forecast = result["forecast"]
    error, usd = forecast["error"], forecast["total_usd"]
    phases = {phase["name"]: phase["error"] for phase in forecast["phases"]}
    return [
        result["run_id"],
        clock_time(forecast["total_seconds"]["likely"]),
        clock_time(forecast["took"]["seconds"]),
        _signed(error["seconds"]),
        "yes" if error["within"] else "no",
        dollars(usd["likely"]) if usd else "",
        dollars(forecast["took"]["usd"]),
        *(_signed(phases.get(name)) for name in _SHOWN),
    ]


def _signed(error: float | None) -> str:
    return "" if error is None else f"{error:+.0%}"

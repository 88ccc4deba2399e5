"""The tables that may be exported, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from runners.exporting import measured, runs
from runners.exporting.columns import Table
from runners.exporting.contract import ExportedRun, What

WHATS: tuple[What, ...] = ("runs", "requests", "telemetry")


def table_of(what: What, exported: Iterable[ExportedRun]) -> Table:
    """Rows of cells, each of its column's type."""
    return runs.runs_table(exported) if what == "runs" else measured.measured_table(what, exported)


def documents_of(what: What, exported: Iterable[ExportedRun]) -> Iterator[dict[str, Any]]:
    """The same as it lies on disk, whole."""
    return runs.documents(exported) if what == "runs" else measured.documents(what, exported)

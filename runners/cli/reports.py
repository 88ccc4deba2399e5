"""Pages that are written when runs have ended. What goes wrong with them is not the runs' fault, and fails none."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runners.run_folder import RunFolder

REPORTS = "reports"
"""Under RECIPE_HOME: the pages that hold several runs against each other."""
_NAMED = 3


def write_run_report(home: Path, result: Mapping[str, Any]) -> Path | None:
    """report.html in the run's folder; None if it could not be written."""
    folder = RunFolder(home / "runs" / result["run_id"])
    return _written([folder], folder.path / "report.html", [result])


def write_comparison(home: Path, results: Sequence[Mapping[str, Any]]) -> Path | None:
    """A page over these runs in RECIPE_HOME/reports; None if it could not be written."""
    folders = [RunFolder(home / "runs" / result["run_id"]) for result in results]
    return _written(folders, comparison_path(home, results), results)


def comparison_path(home: Path, results: Sequence[Mapping[str, Any]]) -> Path:
    """Named for the recipes and the first of the runs: the same runs have the same page."""
    from runners.comparing.groups import base_of

    bases = list(
        dict.fromkeys(base_of(result.get("recipe") or "runs", result.get("variant") or {}) for result in results)
    )
    more = [f"and-{len(bases) - _NAMED}-more"] if len(bases) > _NAMED else []
    first = min(result["run_id"][-20:] for result in results)
    return home / REPORTS / f"{'+'.join([*bases[:_NAMED], *more])[:150]}-{len(results)}-runs-{first}.html"


def _written(folders: Sequence[RunFolder], path: Path, results: Sequence[Mapping[str, Any]]) -> Path | None:
    from runners.reporting import write_report

    try:
        return write_report(folders, path, results)
    except Exception:
        logging.getLogger(__name__).warning("the report %s was not written", path, exc_info=True)
        return None

"""report.html: one run, or several beside each other, in a file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from provisioners.files import write_whole
from runners.run_folder import RunFolder

REPORT = "report.html"


def report_page(
    folders: Sequence[RunFolder],
    results: Sequence[Mapping[str, Any]] | None = None,
    *,
    beside: Path | None = None,
    title: str = "",
) -> bytes:
    """The page: of one run all that it left, of several how they compare.

    Raises UsageError for a run that has left no result. `results` saves reading them again. `beside` is the folder
    that the page will lie in.
    """
    from runners.reporting.reading import Run

    known = results if results is not None else [None] * len(folders)
    runs = [Run.of(folder, result) for folder, result in zip(folders, known, strict=True)]
    if len(runs) == 1:
        from runners.reporting.single import run_page

        return run_page(runs[0])
    from runners.reporting.several import several_page

    return several_page(runs, beside or Path.cwd(), title)


def write_report(
    folders: Sequence[RunFolder],
    path: Path,
    results: Sequence[Mapping[str, Any]] | None = None,
    *,
    title: str = "",
) -> Path:
    """Write the page whole, or not at all: one that is there already is replaced. Raises OSError and UsageError."""
    page = report_page(folders, results, beside=path.parent, title=title)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page)
    return path

"""The runs that are exported: from the ledger's rows, each with its result and its folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from recipes.errors import UsageError
from runners.comparing.meant import runs_meant
from runners.exporting.contract import ExportedRun
from runners.ledger import Filter, Ledger, Row
from runners.run_folder import RUN_ID

_AT_ONCE = 100


def chosen_rows(home: Path, ledger: Ledger, references: Sequence[str], meant: Filter) -> list[Row]:
    """The rows of these runs, in this order; without references all that are meant, the oldest first.

    Raises UsageError for a reference that is no run's.
    """
    if not references:
        return ledger.rows(meant, sort="started")
    wanted = dict.fromkeys(folder.run_id for folder in runs_meant(home, references))
    rows = {row.run_id: row for row in _near(ledger, wanted, meant)}
    for run_id in wanted:
        if run_id not in rows and ledger.run(run_id) is None:
            folder = home / "runs" / run_id
            raise UsageError(f"{folder} is not in {ledger.path}", advice=f"recipe import {folder}")
    return [rows[run_id] for run_id in wanted if run_id in rows]


def _near(ledger: Ledger, wanted: Iterable[str], meant: Filter) -> Iterator[Row]:
    """The rows that are meant, of the recipes that these runs are of: not all that there are."""
    if meant.recipe is not None:
        yield from ledger.rows(meant)
        return
    recipes = {found["recipe"] if (found := RUN_ID.fullmatch(run_id)) else None for run_id in wanted}
    for recipe in recipes:
        yield from ledger.rows(replace(meant, recipe=recipe))


def exported_runs(home: Path, ledger: Ledger, rows: Sequence[Row]) -> Iterator[ExportedRun]:
    """The runs of these rows; some of their results are in memory at a time."""
    remaining = iter(rows)
    while some := list(islice(remaining, _AT_ONCE)):
        results = {result["run_id"]: result for result in ledger.results(row.run_id for row in some)}
        for row in some:
            yield ExportedRun(row, results.get(row.run_id) or row.as_result(), home / "runs" / row.run_id)

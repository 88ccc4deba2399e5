"""What runs came to, by day, week, month, recipe, tag, …: counted by SQLite, so that a long log is no trouble."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from recipes.errors import UsageError
from runners.ledger.filters import Filter

BY = {
    "day": "substr(started_at, 1, 10)",
    "week": "date(substr(started_at, 1, 10), 'weekday 0', '-6 days')",  # its Monday
    "month": "substr(started_at, 1, 7)",
    "recipe": "recipe",
    "tag": "tag",
    "model": "model",
    "gpu": "gpu",
    "engine": "engine",
    "provider": "provider",
}
"""What totals are made by → its value for a run."""
TIMES = ("day", "week", "month")
_USD = "CASE status WHEN 'running' THEN (SELECT value FROM json_each(?1) WHERE key = run_id) ELSE total_usd END"
_OF_DOCUMENTS = "coalesce(unit, 'document') = 'document'"
_LOST = "run_id IN (SELECT value FROM json_each(?2))"
_SUMS = (
    "count(*), sum(status = 'completed'), sum(status = 'failed'), sum(status = 'interrupted'), "
    f"sum(status = 'running' AND {_LOST}), sum(status = 'running' AND NOT {_LOST}), "
    "total(seconds) / 3600, sum(usd), sum(idle_usd), sum(usd IS NOT NULL AND idle_usd IS NULL), "
    f"total(documents_done) FILTER (WHERE {_OF_DOCUMENTS}), "
    f"sum(usd) FILTER (WHERE {_OF_DOCUMENTS}), "
    f"total(documents_done) FILTER (WHERE {_OF_DOCUMENTS} AND usd IS NOT NULL), "
    "total(prompt_tokens), total(output_tokens), sum(energy_wh)"
)
_COLUMNS = 16


@dataclass(frozen=True, kw_only=True)
class Total:
    """What some runs came to."""

    key: str | None
    """The day (2026-11-21), the week (2026-W47), the recipe, …; None for runs that have none, and for all together."""
    runs: int
    completed: int
    failed: int
    interrupted: int
    lost: int
    running: int
    hours: float
    usd: float | None
    """With what runs that are going on, or were lost, have cost so far by the journal of leases."""
    idle_usd: float | None
    """As far as it is known."""
    idle_unknown: int
    """Runs with a cost of which it is not known."""
    documents: int
    usd_per_document: float | None
    """Over the runs whose cost is known, those that failed included."""
    prompt_tokens: int
    output_tokens: int
    energy_wh: float | None

    def document(self) -> dict[str, Any]:
        return asdict(self)


SORTS: dict[str, str] = {
    "cost": "usd",
    "idle": "idle_usd",
    "duration": "hours",
    "documents": "documents",
    "usd/document": "usd_per_document",
    "prompt-tokens": "prompt_tokens",
    "output-tokens": "output_tokens",
    "energy": "energy_wh",
    "runs": "runs",
    "failed": "failed",
}
"""What totals can be sorted by → its figure."""


def chosen(found: Sequence[Total], by: str, sort: str | None, limit: int | None) -> Sequence[Total]:
    """In the order that is asked for, and so many of them; without a `sort` the last times, or the most dollars.

    Raises UsageError for a `sort` that is none, before anything else.
    """
    name = (sort or "").removeprefix("-")
    if sort is None:
        return found if limit is None else found[-limit:] if by in TIMES else found[:limit]
    if name != by and name not in SORTS:
        advice = f"--sort {by}, or one of {', '.join(SORTS)}; - before it for the highest first"
        raise UsageError(f"--sort {sort}: totals by {by} are not sorted so", advice=advice)
    figure = "key" if name == by else SORTS[name]
    known = [total for total in found if getattr(total, figure) is not None]
    known.sort(key=lambda total: getattr(total, figure), reverse=sort.startswith("-"))
    return [*known, *(total for total in found if getattr(total, figure) is None)][:limit]


def totals(
    db: sqlite3.Connection, by: str, meant: Filter, lost: set[str], so_far_usd: Mapping[str, float]
) -> tuple[list[Total], Total]:
    """The totals, times in their order and other things by their dollars; and all together, each run counted once.

    `lost` and `so_far_usd` are of the runs that have not ended. Raises UsageError for a `by` that is none.
    """
    if by not in BY:
        from recipes.explain import did_you_mean  # it brings pydantic, which lists do without

        hint = did_you_mean(by, BY)
        raise UsageError(f"--by {by}: runs are not summed so", advice=hint or f"one of {', '.join(BY)}")
    where, arguments = meant.where(lost)
    numbered = _numbered(where, 3)
    values = (json.dumps(dict(so_far_usd)), json.dumps(sorted(lost)), *arguments)
    runs = f"SELECT *, {_USD} AS usd FROM experiments WHERE {numbered}"  # noqa: S608 (constants)
    tagged = f"({runs}) LEFT JOIN tags USING (run_id)" if by == "tag" else f"({runs})"
    order = "key" if by in TIMES else "sum(usd) DESC, key"
    grouped = f"SELECT {BY[by]} AS key, {_SUMS} FROM {tagged} GROUP BY key ORDER BY {order}"  # noqa: S608
    rows = db.execute(grouped, values).fetchall()
    if by == "tag":  # a run with two of them would count twice
        together = db.execute(f"SELECT {_SUMS} FROM ({runs})", values).fetchone()  # noqa: S608
    else:
        together = [_added(column) for column in zip(*(row[1:] for row in rows), strict=True)] or [None] * _COLUMNS
    return [_total(_named(by, row[0]), row[1:]) for row in rows], _total(None, together)


def _added(values: Sequence[float | None]) -> float | None:
    """As SQLite adds: what is unknown is left out, and unknown if nothing is left."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _numbered(where: str, first: int) -> str:
    """The condition with numbers in its places for arguments, as the figures have them too."""
    parts = where.split("?")
    return parts[0] + "".join(f"?{first + i}{part}" for i, part in enumerate(parts[1:]))


def _named(by: str, key: str | None) -> str | None:
    if by == "week" and key is not None:
        year, week, _ = date.fromisoformat(key).isocalendar()
        return f"{year}-W{week:02d}"
    return key


def _total(key: str | None, row: Sequence[Any]) -> Total:
    runs, completed, failed, interrupted, lost, running, hours, usd, idle_usd, idle_unknown, *rest = row
    documents, documents_usd, paid_documents, prompt_tokens, output_tokens, energy_wh = rest
    return Total(
        key=key,
        runs=runs or 0,
        completed=completed or 0,
        failed=failed or 0,
        interrupted=interrupted or 0,
        lost=lost or 0,
        running=running or 0,
        hours=round(hours or 0.0, 4),
        usd=_rounded(usd),
        idle_usd=_rounded(idle_usd),
        idle_unknown=idle_unknown or 0,
        documents=_whole(documents),
        usd_per_document=_rounded(documents_usd / paid_documents) if documents_usd and paid_documents else None,
        prompt_tokens=_whole(prompt_tokens),
        output_tokens=_whole(output_tokens),
        energy_wh=_rounded(energy_wh),
    )


def _whole(value: float | None) -> int:
    """Nothing for a sum that is infinite: an older import let impossible rows in."""
    return int(value) if value and math.isfinite(value) else 0


def _rounded(value: float | None) -> float | None:
    """Nine digits: what is beyond comes from the order of adding."""
    return None if value is None else float(f"{value:.9g}")

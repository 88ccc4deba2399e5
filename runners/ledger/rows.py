"""A run as its row: what lists, filters and totals need, taken from its result once."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from provisioners.processes import lives

_MOST = 1e15
_AT_ONCE = 500
"""So many ids go into one statement."""


@dataclass(frozen=True)
class Row:
    """A run. What is unknown, or not known yet, is None."""

    run_id: str
    recipe: str
    recipe_digest: str
    """Runs of one digest are repetitions of each other."""
    variant: Mapping[str, Any]
    """What a matrix set for it, by path."""
    started_at: str
    """ISO 8601 in UTC."""
    ended_at: str | None
    status: str
    """completed, failed, interrupted, running; or lost: it says that it is running, and its process has gone."""
    phase: str | None
    """In which it ended, or is."""
    exit_code: int | None
    pid: int | None
    model: str | None
    engine: str | None
    engine_version: str | None
    gpu: str | None
    gpu_count: int | None
    provider: str | None
    price_usd_per_h: float | None
    total_usd: float | None
    idle_usd: float | None
    """What was paid for while no request was running."""
    seconds: float | None
    """The sum of its phases."""
    prompt_tokens: int | None
    output_tokens: int | None
    prompt_tokens_per_s: float | None
    output_tokens_per_s: float | None
    documents_done: int | None
    documents_total: int | None
    unit: str | None
    """What a document is called: "document", "point"."""
    usd_per_document: float | None
    energy_wh: float | None
    origin: str | None
    """Where it was imported from; None for a run of this machine."""
    tags: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "tags": list(self.tags)}

    def as_result(self, so_far_usd: float | None = None) -> dict[str, Any]:
        """Of a run that has no result, what is known, in the places where a result has it."""
        return {
            "run_id": self.run_id,
            "recipe": self.recipe,
            "recipe_digest": self.recipe_digest,
            "variant": dict(self.variant),
            "tags": list(self.tags),
            "offer": {
                "provider": self.provider,
                "accelerator": self.gpu,
                "count": self.gpu_count,
                "price_usd_per_h": self.price_usd_per_h,
            },
            "model": {"identifier": self.model},
            "engine": {"name": self.engine, "version": self.engine_version},
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "outcome": {"status": self.status, "phase": self.phase, "error": None},
            "cost": {"price_usd_per_h": self.price_usd_per_h, "total_usd": so_far_usd},
        }


COLUMNS = tuple(each.name for each in fields(Row) if each.name != "tags")
_VARIANT, _STATUS, _STARTED, _PID = (COLUMNS.index(name) for name in ("variant", "status", "started_at", "pid"))


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a run when it begins."""

    variant: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    engine: str | None = None
    engine_version: str | None = None
    gpu: str | None = None
    gpu_count: int | None = None
    provider: str | None = None
    price_usd_per_h: float | None = None
    tags: Sequence[str] = ()

    def columns(self) -> dict[str, Any]:
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "tags"}
        return {**own, "variant": _variant(self.variant)}


def columns_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a result fills. What an older recipe left out is None."""
    outcome, cost, offer = (_part(result, name) for name in ("outcome", "cost", "offer"))
    model, engine, figures = (_part(result, name) for name in ("model", "engine", "throughput"))
    documents, energy = _part(result, "documents"), _part(cost, "energy")
    phases, idle = result.get("phases"), cost.get("idle_usd")
    found = {
        "run_id": result["run_id"],
        "recipe": result.get("recipe"),
        "recipe_digest": result.get("recipe_digest"),
        "variant": _variant(_part(result, "variant")),
        "started_at": in_utc(result.get("started_at")),
        "ended_at": in_utc(result.get("ended_at")),
        "status": outcome.get("status"),
        "phase": outcome.get("phase"),
        "exit_code": result.get("exit_code"),
        "model": model.get("identifier"),
        "engine": engine.get("name"),
        "engine_version": engine.get("version"),
        "gpu": offer.get("accelerator"),
        "gpu_count": offer.get("count"),
        "provider": offer.get("provider"),
        "price_usd_per_h": cost.get("price_usd_per_h"),
        "total_usd": cost.get("total_usd"),
        "idle_usd": round(sum(filter(None, idle.values())), 9) if isinstance(idle, dict) else None,
        "seconds": round(sum(phase["seconds"] or 0.0 for phase in phases), 3) if phases else None,
        "prompt_tokens": figures.get("prompt_tokens"),
        "output_tokens": figures.get("output_tokens"),
        "prompt_tokens_per_s": figures.get("prompt_tokens_per_s"),
        "output_tokens_per_s": figures.get("output_tokens_per_s"),
        "documents_done": documents.get("done"),
        "documents_total": documents.get("total"),
        "unit": documents.get("unit"),
        "usd_per_document": cost.get("usd_per_document"),
        "energy_wh": energy.get("total_wh"),
    }
    return {name: value if _is_possible(value) else None for name, value in found.items()}


def _is_possible(value: Any) -> bool:
    """Whether sums and lists can be made with it: a stranger's result may hold numbers beyond all reason."""
    return not isinstance(value, int | float) or -_MOST < value < _MOST


def tags_of(result: Mapping[str, Any]) -> list[str]:
    return [str(tag) for tag in result.get("tags") or ()]


def in_utc(instant: str | None) -> str | None:
    """An instant as the ledger writes it, so that texts are in the order of their times."""
    if not instant:
        return None
    at = datetime.fromisoformat(instant)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def chosen(db: sqlite3.Connection, run_ids: Sequence[str], query: str) -> Iterable[tuple[Any, ...]]:
    """The query's rows for these runs, in no order. It ends where the list of ids follows: `… WHERE run_id IN`."""
    for begin in range(0, len(run_ids), _AT_ONCE):
        some = run_ids[begin : begin + _AT_ONCE]
        yield from db.execute(f"{query} ({','.join('?' * len(some))})", some)


def complete(db: sqlite3.Connection, found: Sequence[tuple[Any, ...]]) -> list[Row]:
    """Rows of `COLUMNS, adopted_at`, with their tags, and of those that have not ended, how they stand."""
    tags = _tags(db, [row[0] for row in found])
    going = [row for row in found if row[_STATUS] == "running"]
    lost = lost_of((row[0], row[_PID], row[-1] or row[_STARTED]) for row in going)
    phases = _phases(db, [row[0] for row in going])
    return [_row(row, tags.get(row[0], ()), lost, phases) for row in found]


def _row(found: tuple[Any, ...], tags: Sequence[str], lost: set[str], phases: Mapping[str, str]) -> Row:
    values = [*found[:-1], tuple(tags)]
    values[_VARIANT] = json.loads(values[_VARIANT]) if values[_VARIANT] else {}
    if values[_STATUS] == "running":
        values[_STATUS] = "lost" if values[0] in lost else "running"
        values[_STATUS + 1] = phases.get(values[0])
    return Row(*values)


def lost_of(running: Iterable[tuple[str, int | None, str]]) -> set[str]:
    """Which of these runs (id, process, since when) nobody minds any more."""
    lost, living = set(), None
    for run_id, pid, since in running:
        if living is None:
            living = _processes()
        if pid is None or pid not in living or not lives(pid, datetime.fromisoformat(since)):
            lost.add(run_id)
    return lost


def _processes() -> set[int]:
    """Asked once, so that many runs whose clients died cost nothing."""
    import psutil

    return {*psutil.pids(), os.getpid()}


def _tags(db: sqlite3.Connection, run_ids: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    query = "SELECT run_id, tag FROM tags"
    many = len(run_ids) > 20 * _AT_ONCE
    for run_id, tag in db.execute(query) if many else chosen(db, run_ids, f"{query} WHERE run_id IN"):
        found.setdefault(run_id, []).append(tag)
    return found


def _phases(db: sqlite3.Connection, run_ids: Sequence[str]) -> dict[str, str]:
    """The phase that each of these began last."""
    query = "SELECT run_id, data, max(rowid) FROM events WHERE event = 'phase-started' AND run_id IN"
    found = {}
    for begin in range(0, len(run_ids), _AT_ONCE):
        some = run_ids[begin : begin + _AT_ONCE]
        rows = db.execute(f"{query} ({','.join('?' * len(some))}) GROUP BY run_id", some)
        found.update({run_id: json.loads(data)["phase"] for run_id, data, _ in rows})
    return found


def _part(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = data.get(name)
    return part if isinstance(part, dict) else {}


def _variant(variant: Mapping[str, Any]) -> str | None:
    return json.dumps(variant, ensure_ascii=False) if variant else None

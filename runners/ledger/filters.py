"""Which runs are meant, and in which order, as SQL."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from recipes.errors import UsageError

STATUSES = ("completed", "failed", "interrupted", "lost", "running")
TEXTS = ("recipe", "model", "gpu", "engine", "provider")

SORTS = {
    "started": "started_at",
    "ended": "ended_at",
    "cost": "total_usd",
    "idle": "idle_usd",
    "price": "price_usd_per_h",
    "duration": "seconds",
    "prompt-tok/s": "prompt_tokens_per_s",
    "output-tok/s": "output_tokens_per_s",
    "prompt-tokens": "prompt_tokens",
    "output-tokens": "output_tokens",
    "documents": "documents_done",
    "usd/document": "usd_per_document",
    "energy": "energy_wh",
    "recipe": "recipe",
    "model": "model",
    "engine": "engine",
    "gpu": "gpu",
    "provider": "provider",
    "status": "status",
}
"""What runs can be sorted by → its column."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which runs; None and nothing mean all.

    A text means the value that it is; where no run has just that, every value that it is a part of, or a glob of (`*`,
    `?`, `[…]`). Upper and lower case of a to z are alike.
    """

    recipe: str | None = None
    model: str | None = None
    gpu: str | None = None
    engine: str | None = None
    provider: str | None = None
    tag: str | Sequence[str] | None = None
    """Of several a run must have each."""
    status: Sequence[str] = ()
    """Any of these, "lost" and "running" told apart."""
    since: datetime | None = None
    """Begun at this moment or later."""
    until: datetime | None = None
    """Begun before this moment."""
    min_cost: float | None = None
    max_cost: float | None = None
    """In dollars, both included; a run whose cost is unknown is within neither."""
    digest: str | None = None

    @property
    def tags(self) -> tuple[str, ...]:
        if self.tag is None:
            return ()
        return (self.tag,) if isinstance(self.tag, str) else tuple(self.tag)

    @property
    def asks_who_lives(self) -> bool:
        """Whether runs that are going on must be told from lost ones to know which are meant."""
        return bool({"lost", "running"} & set(self.status))

    def where(self, lost: Collection[str] = ()) -> tuple[str, list[Any]]:
        """The condition, with its arguments. `lost` are the runs whose clients died."""
        parts = list(self._parts(lost))
        condition = " AND ".join(part for part, _ in parts) or "1"
        return condition, [argument for _, arguments in parts for argument in arguments]

    def _parts(self, lost: Collection[str]) -> Iterator[tuple[str, Sequence[Any]]]:
        """Each condition; those that cost least to look at come first."""
        if self.status:
            yield _status(self.status, lost)
        if self.since is not None:
            yield "started_at >= ?", [_instant(self.since)]
        if self.until is not None:
            yield "started_at < ?", [_instant(self.until)]
        if self.min_cost is not None:
            yield "total_usd >= ?", [self.min_cost]
        if self.max_cost is not None:
            yield "total_usd <= ?", [self.max_cost]
        if self.digest is not None:
            yield "recipe_digest = ?", [self.digest]
        for name in TEXTS:
            if (text := getattr(self, name)) is not None:
                yield _matches(name, "experiments", text)
        for text in self.tags:
            condition, arguments = _matches("tag", "tags", text)
            yield f"run_id IN (SELECT run_id FROM tags WHERE {condition})", arguments  # noqa: S608 (constants)


def order(sort: str) -> str:
    """ORDER BY for a word of SORTS, with - before it for the highest first; what is unknown comes last.

    Raises UsageError.
    """
    name, way = (sort[1:], "DESC") if sort.startswith("-") else (sort, "ASC")
    if name not in SORTS:
        from recipes.explain import did_you_mean  # it brings pydantic, which lists do without

        hint = did_you_mean(name, SORTS)
        advice = (
            hint if hint.startswith("did you mean") else f"one of {', '.join(SORTS)}; -{next(iter(SORTS))} turns it"
        )
        raise UsageError(f"--sort {sort}: runs are not sorted by {name or 'nothing'}", advice=advice)
    column = SORTS[name]
    if column == "started_at":
        return f"started_at {way}, rowid {way}"
    return f"{column} IS NULL, {column} {way}, started_at DESC, rowid DESC"


def _matches(column: str, table: str, text: str) -> tuple[str, list[str]]:
    whole = f"lower({column}) = lower(?)"
    part = text if any(c in text for c in "*?[") else f"*{text}*"
    somebody = f"EXISTS (SELECT 1 FROM {table} AS other WHERE lower(other.{column}) = lower(?))"  # noqa: S608
    condition = f"(CASE WHEN {somebody} THEN {whole} ELSE lower({column}) GLOB lower(?) END)"
    return condition, [text, text, part]


def _status(statuses: Sequence[str], lost: Collection[str]) -> tuple[str, list[str]]:
    ended = [status for status in statuses if status not in ("lost", "running")]
    parts, arguments = ["status IN (SELECT value FROM json_each(?))"], [json.dumps(ended)]
    for status, word in (("lost", "IN"), ("running", "NOT IN")):
        if status in statuses:
            going_on = f"(status = 'running' AND run_id {word} (SELECT value FROM json_each(?)))"  # noqa: S608
            parts.append(going_on)
            arguments.append(json.dumps(list(lost)))
    return f"({' OR '.join(parts)})", arguments


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()

"""Which runs a word means where each is taken as it ended: a run, a recipe's newest, or the newest of its matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runners.comparing.changes import leaves
from runners.comparing.groups import base_of
from runners.ledger import Ledger
from runners.ledger.filters import Filter
from runners.ledger.rows import Row
from runners.run_folder import RUN_ID, RunFolder

_MOST_ROWS = 10_000


def runs_meant(home: Path, words: Iterable[str]) -> list[RunFolder]:
    """The runs of these words, each once. Raises UsageError for a word that means none."""
    return list({folder.run_id: folder for word in words for folder in _meant(home, word)}.values())


def _meant(home: Path, word: str) -> list[RunFolder]:
    variants = [] if RUN_ID.fullmatch(word) or not (home / "ledger.db").is_file() else _newest_matrix(home, word)
    return [RunFolder(home / "runs" / row.run_id) for row in variants] or [RunFolder.find(home, word)]


def _newest_matrix(home: Path, name: str) -> list[Row]:
    """The newest run of each variant, the oldest first, however it ended; none if the recipe has run alone since."""
    ledger = Ledger(home)
    rows = ledger.rows(Filter(recipe=f"{name}.*"), limit=_MOST_ROWS)
    found = of_one_matrix(home, [row for row in rows if row.variant and base_of(row.recipe, row.variant) == name])
    if not found:
        return []
    alone = (row for row in ledger.rows(Filter(recipe=name), limit=1) if row.recipe == name)
    since = max(row.started_at for row in found)
    return [] if any(row.started_at > since for row in alone) else sorted(found, key=lambda row: row.started_at)


def of_one_matrix(home: Path, rows: Sequence[Row]) -> list[Row]:
    """Of runs of a matrix, the newest first: those of the newest one's text that differ only in what the matrix sets.

    Each variant is there once, with its newest run.
    """
    return list(_of_one_matrix(home, rows))


def _of_one_matrix(home: Path, rows: Sequence[Row]) -> Iterator[Row]:
    if not rows:
        return
    axes = {path for row in rows for path in row.variant}
    newest = _essence(home, rows[0], axes)
    variants, digests = list[Mapping[str, Any]](), set[str]()
    for row in rows:
        if row.recipe_digest in digests or row.variant in variants:
            continue
        digests.add(row.recipe_digest)  # the files of repetitions are not read
        if _essence(home, row, axes) == newest:
            variants.append(row.variant)
            yield row


def _essence(home: Path, row: Row, axes: Iterable[str]) -> tuple[str | None, Mapping[str, Any] | None]:
    """The recipe's text, and what it came to but for these paths."""
    folder = RunFolder(home / "runs" / row.run_id)
    text, tree = folder.path / "recipe.yaml", folder.read_json("resolved.json")
    rest = None if tree is None else {p: v for p, v in leaves(tree) if not p.startswith(tuple(axes))}
    return text.read_text(encoding="utf-8") if text.is_file() else None, rest

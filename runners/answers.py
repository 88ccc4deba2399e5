"""Answers on disk, found by what they depend on: memory holds where each lies, its text is read when it is wanted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

_FILE_BITS = 16
"""Of a place: the number of the file; the rest is the offset."""


@dataclass(frozen=True)
class Kept:
    """An answer that was had before, and the run that had it."""

    text: str
    run_id: str


class Answers:
    """The answers of some runs. A later one of the same request counts; so the latest run is added last.

    About 250 bytes for each answer, whatever the length of its text.
    """

    def __init__(self) -> None:
        self._files: list[tuple[str, IO[bytes]]] = []
        self._places: dict[int, int] = {}

    def add(self, path: Path, run_id: str) -> int:
        """Take in a run's answers.jsonl; returns how many answers it holds. A row that is none is passed over."""
        number, found = len(self._files), 0
        if not path.is_file() or number >= 1 << _FILE_BITS:
            return 0
        file = path.open("rb")
        self._files.append((run_id, file))
        offset = 0
        for line in file:
            row = row_in(line)
            if row is not None and row.get("text") and isinstance(row.get("key"), str):
                place = offset << _FILE_BITS | number
                self._places[_digest(row["key"])] = place
                self._places[_digest(row["key"], str(row.get("id")))] = place
                found += 1
            offset += len(line)
        return found

    def find(self, id: str, key: str) -> Kept | None:  # noqa: A002
        """The answer to what this key stands for: that of the same request, else of another that asked the same."""
        for digest in (_digest(key, id), _digest(key)):
            place = self._places.get(digest)
            if place is not None and (kept := self._read(place, key)) is not None:
                return kept
        return None

    def close(self) -> None:
        for _, file in self._files:
            file.close()

    def _read(self, place: int, key: str) -> Kept | None:
        run_id, file = self._files[place & (1 << _FILE_BITS) - 1]
        file.seek(place >> _FILE_BITS)
        row = row_in(file.readline())
        return Kept(row["text"], run_id) if row is not None and row.get("key") == key and row.get("text") else None


def rows_of(path: Path, *needed: str) -> Iterator[dict[str, Any]]:
    """The whole rows of a file that have these fields; one that was cut off is passed over."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            row = row_in(line)
            if row is not None and all(name in row for name in needed):
                yield row


def row_in(line: bytes) -> dict[str, Any] | None:
    """The row that a line holds; None if it holds none, because its writer died or somebody spoiled it."""
    with suppress(ValueError, RecursionError):
        row = json.loads(line)
        if isinstance(row, dict):
            return row
    return None


def _digest(*parts: str) -> int:
    """64 bits; what is found by them is compared in full."""
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest())

"""The rows of telemetry.jsonl, for whoever reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

INTERVAL_S = 1.0
"""What is sampled is sampled so often."""


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Every row, as it was written; nothing where there is no such file. A row that was cut off is passed over."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            row = row_of(line)
            if row is not None:
                yield row


def row_of(line: bytes) -> dict[str, Any] | None:
    """The row that a line holds; None if it is none, or was cut off."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "source" in row and "at" in row else None


def line_of(row: Mapping[str, Any]) -> bytes:
    """A row as it is written; what is None is left out."""
    known = {name: value for name, value in row.items() if value is not None}
    return json.dumps(known, separators=(",", ":")).encode() + b"\n"


def instant(at: datetime) -> str:
    """A moment as rows have it."""
    return at.isoformat(timespec="milliseconds")

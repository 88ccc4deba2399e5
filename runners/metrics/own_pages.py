"""engine-metrics.jsonl: the engine's own series as they grew, so that a run that is over can show them again.

A page is taken often at first and then less and less, and a row has only what has changed: of 24 hours on vLLM there
remain some megabytes. A row: `at`; `new`, the series that were not there before, numbered on from the last; `values`,
by the number of the series. A client that goes on with a run begins anew, with `first`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from runners.answers import rows_of
from runners.events import Event, PageRead, PhaseEnded

NAME = "engine-metrics.jsonl"
_SAMPLE = re.compile(r"([A-Za-z_:][\w:]*)(\{.*\})?\s+(\S+)(?:\s+-?\d+)?")
_NOT_ENGINES = re.compile(r"(python|process|http)_")
"""What servers say of themselves as processes."""
_CLOSEST_S, _FARTHEST_S, _SHARE = 1.0, 30.0, 0.01
_LIMIT_BYTES = 8_000_000
LONGEST_PAGE = 4_000_000
"""In characters; no engine's is a tenth of it, and what is longer is passed over."""


def of_engine(name: str) -> bool:
    """Whether a series is about the engine, and not about its server as a process, which others are as well."""
    return _NOT_ENGINES.match(name) is None


class PageRecorder:
    """Hears a run, and writes what its engine's pages said."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._began: datetime | None = None
        self._due: datetime | None = None
        self._numbers: dict[str, int] = {}
        self._values: list[float] = []
        self._page = ""

    def heard(self, event: Event) -> None:
        match event:
            case PageRead() if len(event.text) <= LONGEST_PAGE:
                now = datetime.now(UTC)
                self._page = event.text
                if self._due is None or now >= self._due:
                    self._take(now)
            case PhaseEnded(phase="drive") if self._page:
                self._take(datetime.now(UTC))

    def _take(self, at: datetime) -> None:
        self._began = self._began or at
        elapsed = (at - self._began).total_seconds()
        wait_s = min(_FARTHEST_S, max(_CLOSEST_S, elapsed * _SHARE))
        self._due = datetime.fromtimestamp(at.timestamp() + wait_s - 0.1, UTC)
        if self._path.exists() and self._path.stat().st_size > _LIMIT_BYTES:
            return
        row = {"at": at.isoformat(timespec="milliseconds"), **self._changes(self._page)}
        self._page = ""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")

    def _changes(self, page: str) -> dict[str, Any]:
        new: list[str] = []
        values: dict[int, float] = {}
        first = not self._numbers
        for line in page.splitlines():
            if (sample := _SAMPLE.fullmatch(line)) and of_engine(sample[1]):
                self._note(sample, new, values)
        return {**({"first": True} if first else {}), **({"new": new} if new else {}), "values": values}

    def _note(self, sample: re.Match[str], new: list[str], values: dict[int, float]) -> None:
        try:
            value = float(sample[3])
        except ValueError:
            return
        if not math.isfinite(value):  # JSON has no word for it
            return
        series = sample[1] + (sample[2] or "")
        number = self._numbers.get(series)
        if number is None:
            number = self._numbers[series] = len(self._values)
            self._values.append(math.nan)
            new.append(series)
        if self._values[number] != value:
            self._values[number] = values[number] = value


class Recorded(NamedTuple):
    """A series of an engine: the page's line without its value, and its moments with what it said."""

    series: str
    moments: list[float]
    values: list[float]


def recorded(folder: Path) -> list[Recorded]:
    """What was written of a run: its engine's series, each with a value for every moment since it was there."""
    found: dict[str, Recorded] = {}
    for at, row, numbered in _rows(folder):
        values = row["values"]
        for number, series in enumerate(numbered):
            known = found.setdefault(series, Recorded(series, [], []))
            value = values.get(str(number), known.values[-1] if known.values else None)
            if value is not None:
                known.moments.append(at)
                known.values.append(value)
    return list(found.values())


def _rows(folder: Path) -> Iterator[tuple[float, dict[str, Any], list[str]]]:
    """Each row with its moment and the series as they are numbered then."""
    numbered: list[str] = []
    for row in rows_of(folder / NAME, "at", "values"):
        if row.get("first"):
            numbered = []
        numbered += row.get("new") or ()
        yield datetime.fromisoformat(row["at"]).timestamp(), row, numbered

"""What a run left on disk, as far as it came and as far as it can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from runners.records import RequestRecord
from runners.run_folder import RunFolder, record_of

_LARGEST_FILE = 1 << 20
"""Characters of a recipe and the like that are read."""
_NUMBERS: Mapping[str, Any] = {"mean": None, "p50": None, "p90": None, "p95": None, "p99": None}
_EXPECTED: Mapping[str, Any] = {
    "recipe": "",
    "recipe_digest": "",
    "started_at": "",
    "variant": {},
    "versions": {},
    "offer": {},
    "model": {},
    "engine": {},
    "outcome": {"status": "completed", "phase": None, "error": None},
    "exit_code": 0,
    "warnings": [],
    "forced": [],
    "phases": [],
    "cost": {},
    "throughput": {"peak_at": []},
    "latency": {"ttft_s": _NUMBERS, "tpot_s": _NUMBERS, "e2e_s": _NUMBERS, "itl_s": _NUMBERS},
    "requests": {"ok": 0, "failed": 0, "retried": 0},
    "documents": {"done": 0, "total": 0, "unit": "document"},
    "release": {"state": "unknown", "proof": ""},
    "artifacts": [],
    "tags": [],
}
"""The parts of a result that a page counts on; older ones have fewer."""


@dataclass(frozen=True)
class Run:
    """A run's files. What is missing, torn or no JSON is empty here."""

    folder: RunFolder
    result: Mapping[str, Any]

    @classmethod
    def of(cls, folder: RunFolder, result: Mapping[str, Any] | None = None) -> Run:
        """Raises UsageError if the run has left no result."""
        found = folder.read_result() if result is None else result
        return cls(folder, _whole({"run_id": folder.run_id, **found}))

    @cached_property
    def plan(self) -> Mapping[str, Any]:
        return _mapping(self.folder, "plan.json")

    @cached_property
    def resolved(self) -> Mapping[str, Any]:
        return _mapping(self.folder, "resolved.json")

    @cached_property
    def recipe_text(self) -> str:
        return _text(self.folder.path / "recipe.yaml")

    @cached_property
    def requests(self) -> list[RequestRecord]:
        """Without the gaps between tokens, which may be very many."""
        found = []
        for row in rows(self.folder.path / "requests.jsonl"):
            with suppress(KeyError, TypeError, ValueError):
                found.append(record_of({**row, "itl_s": ()}))
        return found

    @cached_property
    def telemetry(self) -> list[dict[str, Any]]:
        """Each row with the moment as milliseconds since 1970 in `ms`, in the order of time."""
        found = []
        for row in rows(self.folder.path / "telemetry.jsonl"):
            with suppress(KeyError, TypeError, ValueError):
                row["ms"] = ms_of(row["at"])
                found.append(row)
        found.sort(key=lambda row: float(row["ms"]))
        return found

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        return list(rows(self.folder.path / "events.jsonl"))


def ms_of(moment: str | datetime) -> float:
    """Milliseconds since 1970, as charts count."""
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return round(at.timestamp() * 1000, 1)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of JSON lines; what is none, such as a last line that was cut off, is passed over."""
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        for line in file:
            with suppress(orjson.JSONDecodeError):
                row = orjson.loads(line)
                if isinstance(row, dict):
                    yield row


def _whole(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result, with the parts that a page counts on."""
    whole = {**result}
    for name, expected in _EXPECTED.items():
        found = whole.get(name)
        if isinstance(expected, Mapping):
            whole[name] = {**expected, **(found if isinstance(found, Mapping) else {})}
        elif found is None:
            whole[name] = expected
    return whole


def _mapping(folder: RunFolder, name: str) -> Mapping[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads((folder.path / name).read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _text(path: Path) -> str:
    with suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_LARGEST_FILE)
    return ""

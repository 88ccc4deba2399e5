"""A run's folder: its id, its files, and writing them so that none is ever half-written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from recipes.errors import UsageError
from recipes.explain import did_you_mean
from runners.records import RequestRecord

RUN_ID = re.compile(r"(?P<recipe>.+)-\d{8}-\d{6}-[0-9a-f]{4}")


def recipe_home(env: Mapping[str, str] = os.environ) -> Path:
    """RECIPE_HOME, or ~/.recipe."""
    return Path(env.get("RECIPE_HOME") or Path.home() / ".recipe").expanduser().resolve()


def recipe_cache(env: Mapping[str, str] = os.environ) -> Path:
    """Where installed engines are kept: the user's cache directory, as the XDG base directory specification has it."""
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser().resolve() / "recipe"


class RunFolder:
    """RECIPE_HOME/runs/<run_id>/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outputs = path / "outputs"

    @property
    def run_id(self) -> str:
        return self.path.name

    @classmethod
    def create(cls, home: Path, recipe_name: str) -> RunFolder:
        """A new folder with an id of its own: <recipe>-<UTC yyyymmdd-hhmmss>-<4 hex>."""
        while True:
            stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
            path = home / "runs" / f"{recipe_name}-{stamp}-{secrets.token_hex(2)}"
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            folder = cls(path)
            folder.outputs.mkdir()
            return folder

    @classmethod
    def find(cls, home: Path, reference: str) -> RunFolder:
        """The run of this id, of this unique beginning, or the newest of this recipe. Raises UsageError."""
        known = sorted(path.name for path in (home / "runs").glob("*") if path.is_dir())
        of_recipe = [name for name in known if (m := RUN_ID.fullmatch(name)) and m["recipe"] == reference]
        if reference in known:
            return cls(home / "runs" / reference)
        if of_recipe:
            return cls(home / "runs" / _newest(of_recipe))
        beginning = [name for name in known if name.startswith(reference)]
        if len(beginning) == 1:
            return cls(home / "runs" / beginning[0])
        if beginning:
            advice = f"the newest is {_newest(beginning)}"
            raise UsageError(f"{reference}: {len(beginning)} runs begin so", advice=advice)
        hint = did_you_mean(reference, known) if known else "nothing has run yet; try recipe up local-smoke"
        raise UsageError(f"{reference}: no such run", advice=hint or "see recipe runs")

    def write_json(self, name: str, data: Any) -> Path:
        return self.write_text(name, json.dumps(data, ensure_ascii=False, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> Path:
        """Write a file whole: it appears under its name only when it is complete on disk."""
        path = self.path / name
        part = path.with_name(path.name + ".part")
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        return path

    def read_result(self) -> dict[str, Any]:
        """result.json. Raises UsageError if the run left none."""
        path = self.path / "result.json"
        if not path.is_file():
            advice = f"it is going on, or was lost; see recipe logs {self.run_id} --events"
            raise UsageError(f"{self.run_id}: the run has left no result yet", advice=advice)
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return result

    def artifacts(self) -> list[dict[str, Any]]:
        """Every file with its checksum, but for the result itself."""
        files = sorted(p for p in self.path.rglob("*") if p.is_file() and p.name != "result.json")
        return [
            {
                "path": str(file.relative_to(self.path)),
                "sha256": _sha256(file),
                "bytes": file.stat().st_size,
            }
            for file in files
        ]


def _newest(run_ids: Iterable[str]) -> str:
    """By the time in the id; two of one second by chance."""
    return max(run_ids, key=lambda run_id: run_id[-20:])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RecordFile:
    """requests.jsonl and answers.jsonl: a row each per request, on disk before the request counts."""

    def __init__(self, folder: RunFolder) -> None:
        self._requests: IO[str] = (folder.path / "requests.jsonl").open("a", encoding="utf-8")
        self._answers: IO[str] = (folder.path / "answers.jsonl").open("a", encoding="utf-8")

    def write(self, record: RequestRecord, text: str | None) -> None:
        if text is not None:
            row = {"id": record.id, "document": record.document, "level": record.level, "text": text}
            self._append(self._answers, row)
        self._append(self._requests, {**asdict(record), "started_at": record.started_at.isoformat()})

    def close(self) -> None:
        self._requests.close()
        self._answers.close()

    @staticmethod
    def _append(file: IO[str], row: dict[str, Any]) -> None:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()

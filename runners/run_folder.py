"""A run's folder: its id, its files, and writing them so that none is ever half-written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
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
            tail = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
            path = home / "runs" / f"{recipe_name}-{tail}"
            if path.parent.is_dir() and any(other.name.endswith(tail) for other in path.parent.iterdir()):
                continue  # the name of a machine may hold no more of a run's id than this tail
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

    def wish_to_stop(self) -> None:
        """Leave a wish for the run's client, which is told to look."""
        self.write_text("stop", "")

    def wishes_to_stop(self) -> bool:
        return (self.path / "stop").exists()

    def read_json(self, name: str) -> Any | None:
        """A file of the folder; None if there is none."""
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def free_for(self, name: str) -> Path:
        """The path of this name; what has it already is moved aside, because nothing is overwritten."""
        path = self.path / name
        if path.exists():
            number = next(n for n in range(1, 10_000) if not path.with_name(f"{name}.{n}").exists())
            path.rename(path.with_name(f"{name}.{number}"))
        return path

    def read_result(self) -> dict[str, Any]:
        """result.json. Raises UsageError if the run left none."""
        path = self.path / "result.json"
        if not path.is_file():
            advice = f"it is going on, or was lost; see recipe logs {self.run_id} --events"
            raise UsageError(f"{self.run_id}: the run has left no result yet", advice=advice)
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return result

    def earlier(self) -> Earlier:
        """The answers and outputs of the run's earlier clients."""
        answers = {
            (row["id"], row["key"]): row["text"]
            for row in _rows(self.path / "answers.jsonl", "id", "key", "text")
            if row["text"]
        }
        rows = _rows(self.path / "documents.jsonl", "document", "output")
        outputs = {row["document"]: self.outputs / row["output"] for row in rows}
        records = tuple(_record(row) for row in _rows(self.path / "requests.jsonl", "id", "document", "started_at"))
        return Earlier(answers, {document: path for document, path in outputs.items() if path.is_file()}, records)

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


@dataclass(frozen=True)
class Earlier:
    """What a client of this run has on disk already: it is not asked for again."""

    answers: Mapping[tuple[str, str], str]
    """By the request's id and its key."""
    outputs: Mapping[str, Path]
    """By document."""
    records: tuple[RequestRecord, ...] = ()


class RecordFile:
    """requests.jsonl, answers.jsonl and documents.jsonl: on disk before what they say counts."""

    def __init__(self, folder: RunFolder) -> None:
        self._requests, self._answers, self._documents = (_appended(folder.path / name) for name in _RECORDS)

    def write(self, record: RequestRecord, text: str | None, key: str) -> None:
        """A request that has ended; `key` stands for everything that its answer depends on."""
        if text is not None:
            row = {"id": record.id, "document": record.document, "level": record.level, "key": key, "text": text}
            self._append(self._answers, row)
        self._append(self._requests, {**asdict(record), "started_at": record.started_at.isoformat()})

    def document_done(self, document: str, output: Path) -> None:
        self._append(self._documents, {"document": document, "output": output.name})

    def close(self) -> None:
        for file in (self._requests, self._answers, self._documents):
            file.close()

    @staticmethod
    def _append(file: IO[str], row: dict[str, Any]) -> None:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()


_RECORDS = ("requests.jsonl", "answers.jsonl", "documents.jsonl")


def _appended(path: Path) -> IO[str]:
    """The file, open for further rows; a row that was cut off when a client died is ended first."""
    file = path.open("a+", encoding="utf-8")
    if (size := path.stat().st_size) > 0:
        with path.open("rb") as reading:
            reading.seek(size - 1)
            if reading.read(1) != b"\n":
                file.write("\n")
    return file


def _record(row: dict[str, Any]) -> RequestRecord:
    known = {name: row[name] for name in RequestRecord.__dataclass_fields__ if name in row}
    return RequestRecord(**{**known, "started_at": datetime.fromisoformat(row["started_at"])})


def _rows(path: Path, *needed: str) -> Iterator[dict[str, Any]]:
    """The whole rows of a file that have these fields; one that was cut off is passed over."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict) and all(name in row for name in needed):
                    yield row

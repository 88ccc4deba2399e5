"""A run's folder: its id, its files, and writing them so that none is ever half-written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from provisioners.files import write_whole
from provisioners.site import recipe_home
from recipes.errors import UsageError
from runners.answers import Answers, Kept, rows_of
from runners.records import RequestRecord

DRIVER_BEGUN = "driver.json"
"""That a driver was started: in the run's folder here, and in the one that the driver has on the machine."""
CLIENT_LOG = "client.log"
"""What a client in the background printed."""
_TAIL = len("-20261121-051203-9f3a")
_COMPARED = 200
"""So many names are compared with a misspelt one."""
RUN_ID = re.compile(r"(?P<recipe>.+)-\d{8}-\d{6}-[0-9a-f]{4}")


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
            if any(other.endswith(tail) for other in _folders(path.parent)):
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
        runs = home / "runs"
        if RUN_ID.fullmatch(reference) and (runs / reference).is_dir():
            return cls(runs / reference)
        # Beyond here all names are looked at, once: there may be a hundred thousand.
        beginning = [name for name in _folders(runs) if name.startswith(reference)]
        if reference in beginning:
            return cls(runs / reference)
        of_recipe = [name for name in beginning if name[:-_TAIL] == reference and RUN_ID.fullmatch(name)]
        if of_recipe or len(beginning) == 1:
            return cls(runs / _newest(of_recipe or beginning))
        if beginning:
            advice = f"the newest is {_newest(beginning)}"
            raise UsageError(f"{reference}: {len(beginning):,} runs begin so", advice=advice)
        raise UsageError(f"{reference}: no such run", advice=_meant(reference, runs))

    def write_json(self, name: str, data: Any) -> Path:
        return self.write_text(name, json.dumps(data, ensure_ascii=False, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> Path:
        """Write a file whole: it appears under its name only when it is complete on disk."""
        path = self.path / name
        write_whole(path, text)
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
        try:
            result: Any = json.loads(path.read_bytes())
        except ValueError as error:
            result = error
        if not isinstance(result, dict):
            why = result if isinstance(result, ValueError) else "not an object"
            advice = "bring it again from where it was made: recipe import"
            raise UsageError(f"{path} is no result: {why}", advice=advice)
        return result

    def takes_over(self, run_ids: Sequence[str]) -> None:
        """Earlier runs, the newest first, whose answers and outputs this one goes on from."""
        self.write_json(_TAKEN_OVER, list(run_ids))

    def earlier(self) -> Earlier:
        """What earlier clients of this run, and the runs that it goes on from, have on disk."""
        others = [RunFolder(self.path.parent / name) for name in self.read_json(_TAKEN_OVER) or ()]
        answers, held = Answers(), {}
        outputs: dict[str, list[Output]] = {}
        for folder in (*reversed(others), self):
            if found := answers.add(folder.path / "answers.jsonl", folder.run_id):
                held[folder.run_id] = found
            for row in rows_of(folder.path / "documents.jsonl", "document", "output"):
                output = Output(folder.outputs / row["output"], folder.run_id, row.get("key") or "")
                outputs.setdefault(row["document"], []).append(output)
        rows = rows_of(self.path / "requests.jsonl", "id", "document", "started_at")
        # What earlier clients measured counts for the cost alone.
        records = tuple(record_of({**row, "itl_s": ()}) for row in rows)
        return Earlier(self.run_id, answers, outputs, records, held)

    def artifacts(self) -> list[dict[str, Any]]:
        """Every file with its checksum, but for the result itself and what is written after it."""
        files = sorted(p for p in self.path.rglob("*") if p.is_file() and p.name not in _GROWING)
        return [
            {
                "path": str(file.relative_to(self.path)),
                "sha256": _sha256(file),
                "bytes": file.stat().st_size,
            }
            for file in files
        ]


def run_ids(beginning: str = "") -> list[str]:
    """The runs whose ids begin so, for completion: the last in the alphabet first."""
    return sorted((name for name in _folders(recipe_home() / "runs") if name.startswith(beginning)), reverse=True)


def _folders(path: Path) -> list[str]:
    """The names of the folders in it: asked for once, because a path for each of them takes ten times as long."""
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _meant(reference: str, runs: Path) -> str:
    """What may have been meant: of so many names as one looks like, only recipes and the newest runs are compared."""
    known = [name for name in _folders(runs) if RUN_ID.fullmatch(name)]
    if not known:
        return "nothing has run yet; try recipe up local-smoke"
    from recipes.explain import did_you_mean  # it brings pydantic, which nobody else here needs

    newest = sorted(known, key=lambda run_id: run_id[1 - _TAIL :])[-_COMPARED:]
    recipes = {name[:-_TAIL] for name in known}
    return did_you_mean(reference, {*newest, *sorted(recipes)[:_COMPARED]}) or "see recipe runs"


def _newest(run_ids: Iterable[str]) -> str:
    """By the time in the id; two of one second by chance."""
    return max(run_ids, key=lambda run_id: run_id[1 - _TAIL :])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Output:
    """A document's output that was written before."""

    path: Path
    run_id: str
    key: str
    """Stands for everything that it depends on; empty if its writer did not say."""


@dataclass(frozen=True)
class Earlier:
    """What is on disk already, of this run and of those that it goes on from: it is not asked for again."""

    run_id: str
    answers: Answers
    outputs: Mapping[str, Sequence[Output]]
    """By document, the newest last."""
    records: tuple[RequestRecord, ...] = ()
    """Of this run alone."""
    held: Mapping[str, int] = field(default_factory=dict)
    """How many answers each run has."""

    def output_of(self, document: str, key: str) -> Output | None:
        """The newest output of a document that depends on the same. Without a key, only this run's own will do."""
        for output in reversed(self.outputs.get(document, ())):
            own = output.run_id == self.run_id
            if (output.key == key if key and output.key else own) and output.path.is_file():
                return output
        return None


class RecordFile:
    """requests.jsonl, answers.jsonl and documents.jsonl: with the system before what they say counts.

    What the system has survives the death of this process. For that of the machine `sync` puts it on the disk.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._requests, self._answers, self._documents = (Rows(folder.path / f"{name}.jsonl") for name in _RECORDS)

    def write(self, record: RequestRecord, text: str | None, key: str) -> None:
        """A request that has ended; `key` stands for everything that its answer depends on."""
        if text is not None:
            self._answers.append(
                {"id": record.id, "document": record.document, "level": record.level, "key": key, "text": text}
            )
        self._requests.append(_row(record))

    def taken_over(self, id: str, key: str, kept: Kept) -> None:  # noqa: A002
        """Another run's answer, so that this run's own file holds all that it is made of."""
        self._answers.append({"id": id, "key": key, "from": kept.run_id, "text": kept.text})

    def document_done(self, document: str, output: Path, key: str = "", *, taken_from: str | None = None) -> None:
        row = {"document": document, "output": output.name, **({"key": key} if key else {})}
        self._documents.append({**row, **({"from": taken_from} if taken_from else {})})

    def sync(self) -> None:
        """Put what was written on the disk; takes its time, and may be called from another thread."""
        for rows in (self._answers, self._requests, self._documents):
            rows.sync()

    def close(self) -> None:
        for rows in (self._answers, self._requests, self._documents):
            rows.close()


class Rows:
    """A file that rows are added to. A row that could not be written whole spoils none that follows."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b", buffering=0)
        self._torn = _was_cut_off(path)
        self._dirty = False
        self._lost: OSError | None = None

    def append(self, row: Mapping[str, Any]) -> None:
        """The row is with the system when this returns. Raises OSError, also for rows before it that were lost."""
        if self._lost is not None:
            raise self._lost
        data = (b"\n" if self._torn else b"") + _line(row)
        self._torn = True
        while data:
            data = data[self._file.write(data) :]
        # Dirty only now: a sync in another thread may have come between.
        self._torn, self._dirty = False, True

    def sync(self) -> None:
        if not self._dirty or self._file.closed:
            return
        self._dirty = False
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            if error.errno != errno.EINVAL:  # as of a pipe, or a file system that cannot
                self._lost = error

    def close(self) -> None:
        self.sync()
        self._file.close()


_RECORDS = ("requests", "answers", "documents")
_GROWING = ("result.json", "report.html", "live.json", "live.json.part", CLIENT_LOG)
_TAKEN_OVER = "takes-over.json"
_FIELDS = tuple(RequestRecord.__dataclass_fields__)


def _was_cut_off(path: Path) -> bool:
    """Whether the last row was cut off."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read(1) not in (b"", b"\n")


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half a character, as in the name of a file that is no UTF-8
        return (json.dumps(row) + "\n").encode()


def _row(record: RequestRecord) -> dict[str, Any]:
    """A row of requests.jsonl."""
    row = {name: getattr(record, name) for name in _FIELDS}
    row["itl_s"] = [round(gap, 4) for gap in record.itl_s]
    return {**row, "started_at": record.started_at.isoformat()}


def record_of(row: Mapping[str, Any]) -> RequestRecord:
    """The record that a row of requests.jsonl holds."""
    known = {name: row[name] for name in _FIELDS if name in row}
    known["itl_s"] = array("f", gaps) if (gaps := known.get("itl_s")) else ()
    return RequestRecord(**{**known, "started_at": datetime.fromisoformat(row["started_at"])})

"""Runs in folders, and whether each may be taken: what it is, whether it is whole, and whether it holds only files."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from runners.answers import rows_of
from runners.importing.shape import problem_of
from runners.modelfacts.clean import printable
from runners.run_folder import RUN_ID

_SIGNS = ("result.json", "events.jsonl", "plan.json", "resolved.json")
_DEEPEST = 6
"""So far below what is named a run's folder is looked for: an archive of a home has `home/.recipe/runs/<run>`."""
_MOST_BYTES = 64 * 2**20
"""No result.json is larger; the largest have a row for each of some thousand files."""
LEFT_OUT = frozenset({"report.html", "live.json", "live.json.part", "stop"})
"""What is of no use here: a page is made anew from the figures, so that no stranger's page is opened."""


class NotTaken(Exception):
    """A run that is not taken, and why."""


@dataclass(frozen=True)
class Found:
    """A run's folder, whose result was read and found whole."""

    folder: Path
    run_id: str
    result: dict[str, Any]
    files: tuple[Path, ...]
    """What belongs to it, relative to the folder."""
    missing: tuple[str, ...]
    """Files that it had when it ended, and that did not come along."""


def run_folders(path: Path, depth: int = 0) -> Iterator[Path]:
    """The folders of runs at a path or below it; no link is followed."""
    if any((path / name).is_file() for name in _SIGNS):
        yield path
    elif depth < _DEEPEST:
        for below in sorted(path.iterdir()):
            if below.is_dir() and not below.is_symlink():
                yield from run_folders(below, depth + 1)


def judged(folder: Path) -> Found:
    """The run in this folder. Raises NotTaken."""
    if not (folder / "result.json").is_file():
        raise NotTaken("it has left no result: it is going on there, or was lost; import it when it has ended")
    result = _result(folder)
    run_id: str = result["run_id"]
    if RUN_ID.fullmatch(folder.name) and folder.name != run_id:
        raise NotTaken(f"its folder is {printable(folder.name)}, and its result says {run_id}")
    files = tuple(_files(folder))
    missing = tuple(_checked(folder, result, files))
    _check_names(folder)
    return Found(folder, run_id, result, files, missing)


def _result(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    if path.is_symlink() or path.stat().st_size > _MOST_BYTES:
        raise NotTaken("its result.json is a link, or too large for one")
    try:
        result = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise NotTaken(f"its result.json cannot be read: {error}") from error
    if problem := problem_of(result, datetime.now(UTC)):
        raise NotTaken(printable(problem))
    shown: dict[str, Any] = _shown(result)
    return shown


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _shown(value: Any) -> Any:
    """The same with what a terminal would obey written out; lines stay lines."""
    if isinstance(value, str):
        return "\n".join(printable(line) for line in value.split("\n"))
    if isinstance(value, dict):
        return {printable(name): _shown(inner) for name, inner in value.items()}
    return [_shown(inner) for inner in value] if isinstance(value, list) else value


def _files(folder: Path) -> Iterator[Path]:
    """Every file of the run, relative to its folder. Raises NotTaken for anything that is no file and no folder."""
    for base, folders, names in os.walk(folder):
        for name in sorted(folders + names):
            path = Path(base) / name
            mode = path.lstat().st_mode
            shown = printable(str(path.relative_to(folder)))
            if stat.S_ISLNK(mode):
                raise NotTaken(f"{shown} is a link")
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise NotTaken(f"{shown} is no file")
        relative = Path(base).relative_to(folder)
        here = [relative / name for name in sorted(names)]
        yield from (path for path in here if str(path) not in LEFT_OUT and path.suffix != ".part")


def _checked(folder: Path, result: dict[str, Any], files: tuple[Path, ...]) -> Iterator[str]:
    """The artifacts that are missing. Raises NotTaken if one is not what it was."""
    there = set(files)
    for artifact in result["artifacts"]:
        path = PurePosixPath(artifact["path"])
        if path.is_absolute() or ".." in path.parts:
            raise NotTaken(f"its artifact {printable(str(path))} leads out of its folder")
        if str(path) in LEFT_OUT:
            continue
        if Path(path) not in there:
            yield printable(str(path))
        elif _sha256(folder / path) != artifact["sha256"]:
            raise NotTaken(f"{printable(str(path))} is not the file that its result names: the checksum differs")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_names(folder: Path) -> None:
    """Names in its files that are read as paths here must stay within the folder. Raises NotTaken."""
    for row in rows_of(folder / "documents.jsonl", "output"):
        if not isinstance(row["output"], str) or Path(row["output"]).name != row["output"]:
            raise NotTaken("documents.jsonl names an output outside of outputs/")
    taken = folder / "takes-over.json"
    if taken.is_file():
        try:
            names = json.loads(taken.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            names = None
        if not isinstance(names, list) or not all(
            isinstance(n, str) and RUN_ID.fullmatch(n) and "/" not in n for n in names
        ):
            raise NotTaken("takes-over.json does not name runs")

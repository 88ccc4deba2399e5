"""Merging runs of other machines into the ledger: each once, none over another, none by half."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recipes.errors import UsageError
from runners.importing.archives import is_archive, unpack
from runners.importing.judging import Found, NotTaken, judged, run_folders
from runners.ledger import Ledger
from runners.modelfacts.clean import printable
from runners.run_folder import RunFolder

ORIGIN = "origin.txt"
"""In a run's folder: where it was imported from."""
State = Literal["taken", "there", "refused"]


@dataclass(frozen=True)
class Merged:
    """What became of one run."""

    run_id: str
    state: State
    note: str = ""
    """Why it was refused, or what is missing of it."""
    origin: str = ""


class Merge:
    """Takes runs in. Only one at a time does so in a home; what a killed one left by half is removed by the next."""

    def __init__(self, home: Path, ledger: Ledger, *, origin: str | None = None, dry_run: bool = False) -> None:
        self._home, self._ledger = home, ledger
        self._origin, self._dry_run = origin, dry_run
        self._staging = home / "importing"
        self._seen: dict[str, dict[str, Any]] = {}

    def take(self, paths: Sequence[Path]) -> Iterator[Merged]:
        """Everything below these folders and archives. Raises UsageError for one that is neither, or holds no run."""
        for path in paths:
            if not path.exists():
                raise UsageError(
                    f"{path}: there is no such file or folder",
                    advice="name a RECIPE_HOME, a folder of runs, or an archive of them",
                )
            if not path.is_dir() and not is_archive(path):
                raise UsageError(f"{path} is no folder, .zip or .tar.gz", advice="name a folder of runs")
        with self._alone():
            for path in paths:
                yield from self._take_from(path)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self._staging.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"nothing can be taken into {self._home}: {error.strerror}"
            raise UsageError(what, advice="export RECIPE_HOME=… to a folder that you may write to") from error
        with (self._staging / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                what = f"another recipe import is going on in {self._home}"
                raise UsageError(what, advice="try again when it has ended") from error
            for left in self._staging.iterdir():
                if left.is_dir():
                    shutil.rmtree(left)
            yield

    def _take_from(self, path: Path) -> Iterator[Merged]:
        origin = self._origin or printable(str(path))
        with tempfile.TemporaryDirectory(dir=self._staging) as unpacked:
            root = path
            if is_archive(path) and path.is_file():
                unpack(path, root := Path(unpacked))
            try:
                folders = list(run_folders(root))
            except OSError as error:
                raise UsageError(f"{path} cannot be read: {error}", advice="see who may read it") from error
            if not folders:
                advice = "name a RECIPE_HOME, its runs folder, a run's folder, or an archive of one of these"
                raise UsageError(f"{path} holds no run", advice=advice)
            for folder in folders:
                yield self._taken(folder, origin)

    def _taken(self, folder: Path, origin: str) -> Merged:
        name = printable(folder.name)
        try:
            found = judged(folder)
            name = found.run_id
            new = self._is_new(found)
            origin = self._first_origin(folder, origin)
            if new and not self._dry_run:
                self._move_in(found, origin)
                self._ledger.insert(found.result, origin=origin or None)
        except (NotTaken, OSError) as error:
            return Merged(name, "refused", str(error))
        if not new:
            return Merged(name, "there")
        self._seen[name] = found.result
        return Merged(name, "taken", _note(found), origin)

    def _first_origin(self, folder: Path, origin: str) -> str:
        """Of a folder that is in this home already, for a ledger that is made again: nothing if the run is its own."""
        if folder.resolve().parent != (self._home / "runs").resolve():
            return origin
        try:
            return printable((folder / ORIGIN).read_text(encoding="utf-8").strip())
        except (OSError, ValueError):
            return ""

    def _is_new(self, found: Found) -> bool:
        """Whether the run, or the half of it that a killed import did not come to, is missing here.

        Raises NotTaken if something else has its id.
        """
        target = self._home / "runs" / found.run_id
        if target.is_dir() and _read(target) not in (None, found.result):
            raise NotTaken("a run of the same id is here, and its result differs")
        known = self._seen.get(found.run_id)
        row = self._ledger.run(found.run_id)
        if row is not None:
            known = row["result"]
            if known is None:
                raise NotTaken(f"it is a run of this machine, which is {row['status']} here")
        if known not in (None, found.result):
            raise NotTaken("a run of the same id is here, and its result differs")
        return known is None or (not target.is_dir() and found.run_id not in self._seen)

    def _move_in(self, found: Found, origin: str) -> None:
        """Copy the run's files; its folder appears when all of them are there."""
        target = self._home / "runs" / found.run_id
        if target.is_dir():
            if _read(target) is None:
                raise NotTaken(f"{target} is there, and has no result")
            return
        target.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._staging) as part:
            staged = Path(part) / found.run_id
            (staged / "outputs").mkdir(parents=True)
            for path in found.files:
                (staged / path).parent.mkdir(parents=True, exist_ok=True)
                _copy(found.folder / path, staged / path)
            RunFolder(staged).write_json("result.json", found.result)
            RunFolder(staged).write_text(ORIGIN, f"{origin}\n")
            staged.rename(target)


def _copy(source: Path, target: Path) -> None:
    """A file's content; a link that took its place meanwhile is not followed."""
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file, target.open("xb") as copy:
        shutil.copyfileobj(file, copy)
    shutil.copystat(source, target, follow_symlinks=False)


def _read(folder: Path) -> Any | None:
    """The result in a folder; None if there is none, or none that can be read."""
    try:
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _note(found: Found) -> str:
    if not found.missing:
        return ""
    shown = ", ".join(found.missing[:3]) + (", …" if len(found.missing) > 3 else "")
    return f"without {len(found.missing)} of its files: {shown}"

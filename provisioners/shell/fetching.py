"""Files on their way from a machine: packed there, unpacked and checked here, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from provisioners.shell.agent import Agent, Patience
from provisioners.shell.target import Ran
from provisioners.threads import in_thread
from recipes.errors import HostCommandFailed

_BLOCK = 1 << 20
_SAID = 2000


@dataclass(frozen=True)
class Packed:
    """What the other side says of a file."""

    bytes: int
    sha256: str


async def fetch(agent: Agent, patterns: Sequence[str], into: Path) -> list[Path]:
    """Copy the work directory's files that match into a folder; returns where they are.

    Raises NoMachine, and HostCommandFailed if they did not arrive as they were; then nothing has changed here.
    """
    into.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".fetched-", dir=into))
    try:
        receiving = _Receiving(agent, patterns, aside / "archive")
        listing = await agent.patiently(receiving.attempt)
        try:
            await in_thread(unpack, aside / "archive", listing, aside / "files")
        except HostCommandFailed:
            if not receiving.resumed:
                raise
            # A file that changed between two halves of the archive: once more, in one piece.
            receiving = _Receiving(agent, patterns, aside / "archive")
            listing = await agent.patiently(receiving.attempt)
            await in_thread(unpack, aside / "archive", listing, aside / "files")
        return await in_thread(_put_in_place, aside / "files", listing, into)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


class _Receiving:
    """An archive on its way. After a cut it goes on where it was: the same files make the same archive."""

    def __init__(self, agent: Agent, patterns: Sequence[str], archive: Path) -> None:
        self._agent, self._patterns, self._archive = agent, patterns, archive
        archive.unlink(missing_ok=True)
        self.resumed = False

    async def attempt(self, patience: Patience) -> dict[str, Packed]:
        err = bytearray()
        try:
            with self._archive.open("ab") as file:
                begin = file.tell()
                self.resumed = self.resumed or begin > 0

                def write(data: bytes) -> None:
                    file.write(data)
                    patience.progress()

                argv = self._agent.argv("pack", f"--from={begin}", *self._patterns)
                status = await self._agent.shell.converse(argv, feed=None, on_out=write, on_err=err.extend)
            said = b"" if status == 0 else self._archive.read_bytes()[-_SAID:]
        except OSError as error:
            raise HostCommandFailed(f"cannot write to {self._archive.parent.parent}: {error.strerror}") from error
        if status != 0:
            raise self._agent.refusal("pack", Ran(status, said, bytes(err)))
        return {entry["path"]: Packed(entry["bytes"], entry["sha256"]) for entry in _listing(err)}


def unpack(archive: Path, listing: Mapping[str, Packed], folder: Path) -> None:
    """Write the files that are listed, and nothing else; each is checked. Raises HostCommandFailed."""
    left = dict(listing)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.isreg() and (packed := left.pop(member.name, None)):
                    reading = tar.extractfile(member)
                    assert reading is not None
                    _write(reading, packed, folder / _safe(member.name))
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise HostCommandFailed(f"the files from the machine cannot be unpacked: {error}") from error
    if left:
        raise HostCommandFailed(f"{', '.join(sorted(left))} did not come from the machine")


def _write(reading: Any, packed: Packed, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, missing = hashlib.sha256(), packed.bytes
    with target.open("wb") as file:
        # What was cut off while it was packed is filled up in the archive; only what was there is taken.
        while missing and (block := reading.read(min(_BLOCK, missing))):
            file.write(block)
            digest.update(block)
            missing -= len(block)
    if missing or digest.hexdigest() != packed.sha256:
        raise HostCommandFailed(f"{target.name} did not arrive as it was on the machine")


def _safe(name: str) -> PurePosixPath:
    """The name of a file below a folder. Raises HostCommandFailed for one that leads elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise HostCommandFailed(f"the machine sent {name!r}, which is no file of the work directory")
    return path


def _put_in_place(folder: Path, listing: Mapping[str, Packed], into: Path) -> list[Path]:
    placed = []
    for name in sorted(listing):
        target = into / _safe(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / _safe(name)).replace(target)
        placed.append(target)
    return placed


def _listing(err: bytes | bytearray) -> list[dict[str, Any]]:
    try:
        files: list[dict[str, Any]] = json.loads(_last_line(err))["files"]
        return files
    except (ValueError, KeyError, TypeError) as error:
        raise HostCommandFailed(f"the agent did not say what it packed: {_last_line(err)[:300]}") from error


def _last_line(err: bytes | bytearray) -> str:
    return (err.decode(errors="replace").strip().splitlines() or [""])[-1]

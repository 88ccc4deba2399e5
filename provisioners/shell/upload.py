"""Files and folders on their way to a machine: checked by their digest, resumed after a cut, whole or not there.

Only a POSIX shell and one of sha256sum, shasum and openssl are needed on the other side: this also brings the scripts
with which everything else is done.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from provisioners.shell.exchange import Feed, Sink
from provisioners.shell.target import Ran
from provisioners.threads import in_thread
from recipes.errors import HostCommandFailed

T = TypeVar("T")
Moved = Callable[[], None]

BLOCK = 64 << 10
"""What an upload that is resumed goes back to: offsets are multiples of it."""
_AT_ONCE = 1 << 20
"""Bytes of a file that is just sent, without asking how much of it is there."""
_LARGE = 4 << 20
"""Bytes of a file in a folder from which on it travels alone, and can be resumed."""
_BATCH = 32 << 20
_MOST_ARGUMENTS = 60_000
_CHANGED = 65

_SHA = "sha() { { sha256sum 2>/dev/null || shasum -a 256 2>/dev/null || openssl dgst -sha256 -r; } | cut -c1-64; }; "
_SIZE = 'if [ -f "$1" ]; then wc -c < "$1"; else echo 0; fi'
_PREFIX = _SHA + 'head -c "$2" < "$1" | sha'
# Written at its place and not appended: what an older connection still had under way lands where it belongs.
_RECEIVE = (
    _SHA + 'umask 077; d=$(dirname "$5"); mkdir -p "$d" && { [ "$2" -gt 0 ] || : > "$1"; } || exit 1; '
    'dd of="$1" bs=65536 seek="$2" conv=notrunc || exit 1; '
    f'[ "$(sha < "$1")" = "$3" ] || exit {_CHANGED}; '
    'chmod "$4" "$1" && mv -f "$1" "$5"'
)
_DIGESTS = (
    _SHA + 'cd "$1" 2>/dev/null || exit 0; shift; '
    'for f in "$@"; do if [ -f "./$f" ]; then sha < "./$f"; else echo -; fi; done'
)
_UNPACK = 'umask 077; mkdir -p "$1" && cd "$1" && tar -xpf -'
_FINISH = 'if [ -e "$2" ]; then rm -rf "$2"; fi; mv "$1" "$2"'


def nothing() -> None:
    """For whoever does not mind how far it is."""


class Commands(Protocol):
    """What an upload needs of a shell."""

    async def run(self, argv: Sequence[str], *, input: bytes = ..., timeout_s: float = ...) -> Ran: ...  # noqa: A002

    async def converse(
        self, argv: Sequence[str], *, feed: Feed, on_out: Sink, on_err: Sink, timeout_s: float | None = ...
    ) -> int: ...


@dataclass(frozen=True)
class Piece:
    """A file of ours."""

    name: str
    """Its path in the folder, with slashes."""
    path: Path
    bytes: int
    mode: int
    sha256: str


@dataclass(frozen=True)
class Folder:
    """A folder of ours as it will stand on the machine: links are followed."""

    folders: tuple[str, ...]
    pieces: tuple[Piece, ...]

    @property
    def sha256(self) -> str:
        lines = [f"{piece.name}\0{piece.mode:o}\0{piece.sha256}\n" for piece in self.pieces]
        return hashlib.sha256("".join([*self.folders, "\0", *lines]).encode("utf-8", "surrogateescape")).hexdigest()


def digest(path: Path, count: int | None = None) -> str:
    """SHA-256 of a file, or of its first bytes."""
    found, left = hashlib.sha256(), count
    with path.open("rb") as file:
        while block := file.read(1 << 20 if left is None else min(1 << 20, left)):
            found.update(block)
            left = None if left is None else left - len(block)
    return found.hexdigest()


def piece(path: Path, name: str | None = None) -> Piece:
    status = path.stat()
    return Piece(name or path.name, path, status.st_size, status.st_mode & 0o777, digest(path))


def folder(path: Path) -> Folder:
    """Everything below a folder. A folder that a link brings back into itself is entered once."""
    seen: set[tuple[int, int]] = set()
    folders, pieces = [], []
    for at, below, files in os.walk(path, followlinks=True):
        status = Path(at).stat()
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        here = Path(at)
        if here != path:
            folders.append(here.relative_to(path).as_posix())
        found = (here / name for name in files)
        pieces += [piece(one, one.relative_to(path).as_posix()) for one in found if one.is_file()]
    return Folder(tuple(sorted(folders)), tuple(sorted(pieces, key=lambda one: one.name)))


async def put_piece(shell: Commands, ours: Piece, target: str, moved: Moved = nothing) -> None:
    """Bring a file to its place. After Lost, call it again: it goes on where it was cut.

    `moved` is called, in a thread, whenever something went out. Raises Lost, and HostCommandFailed if the file cannot
    be written there.
    """
    part = f"{target}.{ours.sha256[:12]}.part"
    blocks = await _blocks_there(shell, ours, part)
    for first in (blocks, 0):
        err = bytearray()
        argv = ["sh", "-c", _RECEIVE, "sh", part, str(first), ours.sha256, f"{ours.mode:o}", target]
        feed = _sending(ours.path, first * BLOCK, moved)
        status = await shell.converse(argv, feed=feed, on_out=_ignored, on_err=err.extend)
        if status == 0:
            return
        if status != _CHANGED:
            raise HostCommandFailed(f"cannot write {target} on the machine: {_said(err)}", advice=_advice(err))
    raise HostCommandFailed(
        f"{ours.path} arrived changed as {target}, twice", advice="was it written to meanwhile? else check the disks"
    )


async def put_folder(shell: Commands, ours: Folder, target: str, moved: Moved = nothing) -> None:
    """Bring a folder to its place, as a file is brought, replacing what is there."""
    staging = f"{target}.{ours.sha256[:12]}.part"
    there = await _digests(shell, staging, [one.name for one in ours.pieces])
    missing = [one for one in ours.pieces if there.get(one.name) != one.sha256]
    small = [one for one in missing if one.bytes < _LARGE]
    for number, batch in enumerate(_batches(small) or [[]]):
        await _unpack(shell, ours.folders if number == 0 else (), batch, staging, moved)
    for large in missing:
        if large.bytes >= _LARGE:
            await put_piece(shell, large, f"{staging}/{large.name}", moved)
    arrived = await _digests(shell, staging, [one.name for one in small])
    for one in small:
        if arrived.get(one.name) != one.sha256:
            raise HostCommandFailed(f"{one.path} arrived changed", advice="was it written to meanwhile?")
    ran = await shell.run(["sh", "-c", _FINISH, "sh", staging, target], timeout_s=300)
    if ran.status != 0:
        raise HostCommandFailed(f"cannot write {target} on the machine: {_said(ran.err)}", advice=_advice(ran.err))


async def _blocks_there(shell: Commands, ours: Piece, part: str) -> int:
    """How many blocks of an earlier attempt are there and right."""
    if ours.bytes <= _AT_ONCE:
        return 0
    ran = await shell.run(["sh", "-c", _SIZE, "sh", part])
    size = int(ran.out) if ran.out.strip().isdigit() else 0
    blocks = min(size, ours.bytes) // BLOCK
    if blocks == 0:
        return 0
    out = bytearray()
    argv = ["sh", "-c", _PREFIX, "sh", part, str(blocks * BLOCK)]
    await shell.converse(argv, feed=b"", on_out=out.extend, on_err=_ignored)
    expected = await in_thread(digest, ours.path, blocks * BLOCK)
    return blocks if out.decode().strip() == expected else 0


async def _digests(shell: Commands, staging: str, names: Sequence[str]) -> dict[str, str]:
    """The digests of those files that are there."""
    found: dict[str, str] = {}
    for batch in _groups(names, len, _MOST_ARGUMENTS):
        out = bytearray()
        argv = ["sh", "-c", _DIGESTS, "sh", staging, *batch]
        await shell.converse(argv, feed=b"", on_out=out.extend, on_err=_ignored)
        found.update(zip(batch, out.decode().split(), strict=False))
    return found


async def _unpack(shell: Commands, folders: Sequence[str], pieces: Sequence[Piece], staging: str, moved: Moved) -> None:
    err = bytearray()
    argv = ["sh", "-c", _UNPACK, "sh", staging]
    status = await shell.converse(argv, feed=_packing(folders, pieces, moved), on_out=_ignored, on_err=err.extend)
    if status != 0:
        raise HostCommandFailed(f"cannot write to {staging} on the machine: {_said(err)}", advice=_advice(err))


def _packing(folders: Sequence[str], pieces: Sequence[Piece], moved: Moved) -> Callable[[Sink], None]:
    def pack(write: Sink) -> None:
        with tarfile.open(fileobj=_Written(write), mode="w|", format=tarfile.GNU_FORMAT) as archive:
            for name in folders:
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            for one in pieces:
                entry = tarfile.TarInfo(one.name)
                entry.size, entry.mode = one.bytes, one.mode
                with one.path.open("rb") as file:
                    archive.addfile(entry, file)
                moved()

    return pack


class _Written(io.RawIOBase):
    """A file object whose content goes to a function."""

    def __init__(self, write: Sink) -> None:
        super().__init__()
        self._write = write

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._write(bytes(data))
        return len(data)


def _sending(path: Path, start: int, moved: Moved) -> Callable[[Sink], None]:
    def send(write: Sink) -> None:
        with path.open("rb") as file:
            file.seek(start)
            while block := file.read(4 * BLOCK):
                write(block)
                moved()

    return send


def _batches(pieces: Sequence[Piece]) -> list[list[Piece]]:
    return list(_groups(pieces, lambda one: one.bytes, _BATCH))


def _groups(things: Sequence[T], size: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """The things in order, in groups none of which is larger than that, unless it is a single thing."""
    group: list[T] = []
    filled = 0
    for thing in things:
        if group and filled + size(thing) > most:
            yield group
            group, filled = [], 0
        group.append(thing)
        filled += size(thing) + 1
    if group:
        yield group


def _ignored(_: bytes) -> None:
    pass


def _said(err: bytes | bytearray) -> str:
    """The last thing that was said, but for dd's count of records."""
    lines = [line for line in err.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if "records " not in line and "bytes" not in line]
    return (telling or lines or ["no reason was given"])[-1].strip()


def _advice(err: bytes | bytearray) -> str:
    return "ask for a larger disk: resources.disk_size" if b"No space left" in err else ""

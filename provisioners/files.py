"""Files that appear whole, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def write_whole(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """The file has its old content or the new one, on the disk; `private`: it is its owner's alone.

    Its folder is there. Raises OSError.
    """
    data = _encoded(content)
    with written_whole(path, private=private) as file:
        file.write(data)


def write_for_good(path: Path, content: str | bytes) -> None:
    """The same for what is its owner's alone, and whose name, too, is on the disk when this returns. Raises OSError."""
    write_whole(path, content, private=True)
    sync_folder(path.parent)


def write_once(path: Path, content: str) -> None:
    """The same as a private `write_whole` for a file that only whoever comes first writes. Raises OSError."""
    data = _encoded(content)
    with _part_of(path) as part, suppress(FileExistsError):
        _write(part, data)
        if not _linked(part, path):
            _write(path, data)


@contextmanager
def written_whole(path: Path, *, private: bool = False) -> Iterator[IO[bytes]]:
    """A file to write into that has its name once this is left without an error. Raises OSError."""
    with _part_of(path) as part:
        with os.fdopen(_new(part, private=private), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def sync_folder(folder: Path) -> None:
    """The names in it are on the disk when this returns. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _part_of(path: Path) -> Iterator[Path]:
    """A name beside the file's that nobody has."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _linked(part: Path, path: Path) -> bool:
    """Whether this file system has links. Raises FileExistsError."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _write(path: Path, data: bytes) -> None:
    """A new one. Raises FileExistsError."""
    handle = _new(path, private=True)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
    except BaseException:
        path.unlink()
        raise


def _new(path: Path, *, private: bool) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)


def _encoded(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content

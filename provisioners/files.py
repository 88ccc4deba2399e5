"""Files that appear whole, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """The file has its old text or the new one, and is its owner's alone. Its folder is there. Raises OSError."""
    with _part_of(path, text) as part:
        part.replace(path)


def write_once(path: Path, text: str) -> None:
    """The same for a file that only whoever comes first writes. Raises OSError."""
    with _part_of(path, text) as part, suppress(FileExistsError):
        if not _linked(part, path):
            _write(path, text)


def _linked(part: Path, path: Path) -> bool:
    """Whether this file system has links. Raises FileExistsError."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


@contextmanager
def _part_of(path: Path, text: str) -> Iterator[Path]:
    part = path.with_name(f".{secrets.token_hex(8)}")
    _write(part, text)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    """A new one. Raises FileExistsError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
    except BaseException:
        path.unlink()
        raise

"""A file that is there whole or not at all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from provisioners.files import written_whole
from recipes.errors import UsageError


def check(path: Path, *, force: bool) -> None:
    """Raises UsageError if nothing should be written there."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder", advice=f"name a file: -o {path / 'runs.csv'}")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: there is no such folder", advice=f"mkdir -p {path.parent}")
    if path.is_file() and not force:
        raise UsageError(f"{path} is there already", advice="--force writes it anew")


@contextmanager
def written(path: Path | None) -> Iterator[IO[bytes]]:
    """Standard output, or a file that appears under its name when it is complete; a pipe or a device is written to.

    A link keeps pointing where it points. Raises UsageError if it cannot be written.
    """
    if path is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        with written_whole(path.resolve()) as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error

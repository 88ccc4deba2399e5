"""Everything that the engine says of a stack, without secrets, in a file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from provisioners.contract import Site
from stacks.backend import key_of, pulumi_home

_MOST = 4_000_000
"""Bytes; then the file is begun anew, and the one before is kept beside it."""


def log_of(site: Site, project: str, name: str) -> Path:
    """Where it lies."""
    return pulumi_home(site) / "logs" / key_of(site) / f"{project}.{name}.log"


class Log:
    """Lines from several threads. A full disk stops nothing."""

    def __init__(self, path: Path, mask: Callable[[str], str]) -> None:
        self.path, self.masked = path, mask
        self._lock = threading.Lock()
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if path.is_file() and path.stat().st_size > _MOST:
                path.replace(path.with_suffix(".log.1"))

    def write(self, line: str) -> None:
        with self._lock, suppress(OSError), self.path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(self.masked(line) + "\n")

    def remove(self) -> None:
        for path in (self.path, self.path.with_suffix(".log.1")):
            with suppress(OSError):
                path.unlink(missing_ok=True)

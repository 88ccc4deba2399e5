"""Where Prometheus finds the pages of runs that go on: files for its file_sd, one for each process."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from provisioners.files import write_whole

FOLDER = "metrics/targets"
"""Below RECIPE_HOME."""
_NAME = re.compile(r"(?P<host>.+)-(?P<pid>\d+)\.json")


@contextmanager
def announced(home: Path, targets: Sequence[str]) -> Iterator[None]:
    """The pages are found while this lasts. A folder that can't be written keeps no run from going on.

    A process that was killed leaves its file, and Prometheus a target that is down, until the next one begins here.
    """
    folder = home / FOLDER
    path = folder / f"{_host()}-{os.getpid()}.json"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        _forget_dead(folder)
        write_whole(path, json.dumps([{"targets": list(targets), "labels": {}}]) + "\n")
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def known(home: Path) -> Iterator[tuple[int, str]]:
    """The pages that are served on this machine now, each with the process that serves it."""
    folder = home / FOLDER
    _forget_dead(folder)
    for path in sorted(folder.glob("*.json")):
        match = _NAME.fullmatch(path.name)
        with suppress(OSError, ValueError):
            groups = json.loads(path.read_text(encoding="utf-8"))
            if match and match["host"] == _host():
                yield from ((int(match["pid"]), target) for group in groups for target in group["targets"])


def _forget_dead(folder: Path) -> None:
    """Files of processes of this machine that are gone; of another, with the same home, nobody here can say."""
    for path in folder.glob("*.json"):
        match = _NAME.fullmatch(path.name)
        if match and match["host"] == _host() and not _alive(int(match["pid"])):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _host() -> str:
    return socket.gethostname() or "host"

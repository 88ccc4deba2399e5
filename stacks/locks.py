"""Locks that Pulumi keeps in its state, as the engine tells of them: who holds one, and whether he still lives."""

from __future__ import annotations

import getpass
import os
import pwd
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

from provisioners.processes import lives

_HOLDER = re.compile(r"^\s*(?:(\S.*): )?created by (\S*)@(\S+) \(pid (\d+)\) at (\S+)", re.MULTILINE)
_FILE = "file://"
_LOCKS = "/.pulumi/locks/"


@dataclass(frozen=True)
class Holder:
    """Who has locked a stack."""

    user: str
    host: str
    pid: int
    since: datetime | None
    lock: str = ""
    """Where the lock lies, a URL."""

    @property
    def is_dead(self) -> bool:
        """A process of ours, of this machine, that has ended. Of others' nobody can know here.

        Many machines are called the same, and see each other's locks in a bucket: what is in no file here is theirs.
        """
        ours = self._path is not None and self.host == socket.gethostname() and self.user == _user()
        return ours and self.since is not None and not lives(self.pid, self.since)

    def lift(self) -> None:
        """Take this very lock away, and none that somebody has taken meanwhile. Raises OSError."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path.with_name(f"{self._path.name}.attrs").unlink(missing_ok=True)

    @property
    def _path(self) -> Path | None:
        """Where it lies on this machine; None for anything else that an engine may call a lock."""
        path = Path(unquote(self.lock.removeprefix(_FILE).partition("?")[0]))
        is_lock = _LOCKS in path.as_posix() and path.suffix == ".json" and ".." not in path.parts
        return path if self.lock.startswith(_FILE) and path.is_absolute() and is_lock else None

    def __str__(self) -> str:
        since = f" since {self.since:%Y-%m-%d %H:%M:%S %Z}".rstrip() if self.since else ""
        return f"{self.user}@{self.host} (process {self.pid}){since}"


def holders(said: str) -> list[Holder]:
    """Those of whom the engine's error tells."""
    return [Holder(user, host, int(pid), _moment(at), lock) for lock, user, host, pid, at in _HOLDER.findall(said)]


def lifted(found: Sequence[Holder]) -> bool:
    """Whether all these locks were of processes that have died, and are gone now."""
    if not found or not all(holder.is_dead for holder in found):
        return False
    try:
        for holder in found:
            holder.lift()
    except OSError:
        return False
    return True


def _user() -> str:
    """As the engine calls whoever runs it: by his number, whatever the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return getpass.getuser()


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None

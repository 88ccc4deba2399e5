"""Locks that Pulumi keeps in its state, as the engine tells of them: who holds one, and whether he still lives."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from datetime import datetime

import psutil

_HOLDER = re.compile(r"created by (\S*)@(\S+) \(pid (\d+)\) at (\S+)")
_CLOCK_S = 2.0
"""By how much the moment in a lock may be before the process's own."""


@dataclass(frozen=True)
class Holder:
    """Who has locked a stack."""

    user: str
    host: str
    pid: int
    since: datetime | None

    @property
    def is_dead(self) -> bool:
        """A process of this machine that has ended. Of others' nobody can know here."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            began_s = process.create_time()
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False
        return self.since is not None and began_s > self.since.timestamp() + _CLOCK_S  # another one by now

    def __str__(self) -> str:
        since = f" since {self.since:%Y-%m-%d %H:%M:%S %Z}".rstrip() if self.since else ""
        return f"{self.user}@{self.host} (process {self.pid}){since}"


def holders(said: str) -> list[Holder]:
    """Those of whom the engine's error tells."""
    return [Holder(user, host, int(pid), _moment(at)) for user, host, pid, at in _HOLDER.findall(said)]


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None

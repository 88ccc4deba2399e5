"""Whether a process of this machine is still the one that was meant."""

from __future__ import annotations

import os
from datetime import datetime

_CLOCK_S = 2.0
"""By how much a process may seem to have begun later than it was noted: a clock that is set moves all such times."""


def lives(pid: int, since: datetime) -> bool:
    """Whether the process is still the one of that time, and not a later one of the same number. A zombie is dead.

    One that may not be looked at lives, as far as anybody knows.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return bool(process.create_time() <= since.timestamp() + _CLOCK_S)
    except (psutil.NoSuchProcess, ValueError):
        return False
    except psutil.Error:
        return True


def this_one() -> tuple[int, float]:
    """This process's number, and when it began, in seconds since 1970."""
    import psutil

    return os.getpid(), psutil.Process().create_time()

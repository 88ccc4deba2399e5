"""A provider's process ends with Pulumi's engine, however that ends: nobody buys anything for an engine that is dead.

Pulumi itself does not see to it: an engine that is killed leaves its providers, which finish what they do, and more.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from contextlib import suppress

_PROVIDER = "pulumi.dynamic.__main__"
_begun = threading.Lock()


def end_with_engine() -> None:
    """In a provider's process as Pulumi starts it: `watch_engine`. Does nothing in any other."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if getattr(spec, "name", "") == _PROVIDER:
        watch_engine()


def watch_engine() -> None:
    """From now on the end of stdin is the end of this process, and of all in its group: the engine holds the other end.

    Its parent tells nothing: that is a shell, which outlives the engine as well. Does nothing where stdin is no pipe,
    and a second time.
    """
    if _is_pipe(0) and _begun.acquire(blocking=False):
        threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _is_pipe(descriptor: int) -> bool:
    with suppress(OSError):
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    return False


def _wait_for_the_end() -> None:
    """Not through sys.stdin: Python could not end while a thread waits in there. What cannot be read has ended too."""
    try:
        while os.read(0, 4096):
            pass
    finally:
        os.killpg(0, signal.SIGKILL)

"""Keys as they are pressed, in a terminal that somebody watches."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LONGEST = 64


class Keys:
    """Waits for keys; where standard input is no terminal, there are none."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def wait(self, seconds: float) -> str:
        """What was pressed within this time; nothing when it has passed."""
        if self._descriptor is None:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        if not ready:
            return ""
        pressed = os.read(self._descriptor, _LONGEST)
        if not pressed:  # the terminal has gone
            self._descriptor = None
        return pressed.decode("utf-8", "replace")


@contextmanager
def keys() -> Iterator[Keys]:
    """While entered, keys come one by one, and are not shown. Ctrl-C stays what it is."""
    descriptor = _terminal()
    if descriptor is None:
        yield Keys(None)
        return
    before: list[Any] = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _terminal() -> int | None:
    try:
        descriptor = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    return descriptor if os.isatty(descriptor) else None

"""SIGINT, SIGTERM and SIGHUP as a wish that a session can grant in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WISH = signal.SIGUSR1
"""Sent by `recipe down`: the wishes lie in the folders of the runs."""
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, WISH)


@contextmanager
def handled(on_signal: Callable[[str], None]) -> Iterator[None]:
    """While entered, each of the signals calls `on_signal` with its name, inside the event loop."""
    loop = asyncio.get_running_loop()
    # nohup turns SIGHUP off, and means it.
    wanted = [number for number in HANDLED if signal.getsignal(number) != signal.SIG_IGN]
    for number in wanted:
        loop.add_signal_handler(number, on_signal, number.name)
    try:
        yield
    finally:
        for number in wanted:
            loop.remove_signal_handler(number)

"""An event loop for many connections: where the system has epoll, what arrives on them is taken while it is found.

asyncio puts every event into its queue and takes it out again; with thousands of tokens a second that is a fifth of the
work. Everything else in this loop is asyncio's own.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_MOST_EVENTS = 1024


def run(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, in this loop."""
    with asyncio.Runner(loop_factory=DirectLoop if hasattr(selectors, "EpollSelector") else None) as runner:
        return runner.run(main)


class DirectLoop(asyncio.SelectorEventLoop):
    """`direct` has the readers that are called at once, by file number; `add_reader` must know them too."""

    def __init__(self) -> None:
        self.direct: dict[int, Callable[[], object]] = {}
        super().__init__(_DirectSelector(self.direct, self.call_exception_handler))


if hasattr(selectors, "EpollSelector"):

    class _DirectSelector(selectors.EpollSelector):
        def __init__(self, direct: dict[int, Callable[[], object]], report: Callable[[dict[str, Any]], None]) -> None:
            super().__init__()
            self._direct, self._report = direct, report
            self._epoll = select.epoll.fromfd(os.dup(self.fileno()))  # the same one, by a number of our own

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """What is ready, but for what a direct reader has taken."""
            # epoll counts in milliseconds; a shorter wait would be none at all.
            seconds = -1.0 if timeout is None else math.ceil(timeout * 1e3) * 1e-3 if timeout > 0 else 0.0
            try:
                found = self._epoll.poll(seconds, _MOST_EVENTS)
            except InterruptedError:
                return []
            ready: list[tuple[selectors.SelectorKey, int]] = []
            for number, event in found:
                reader = self._direct.get(number)
                readable, writable = event & ~select.EPOLLOUT, event & ~select.EPOLLIN
                if reader is not None and readable:
                    self._call(reader)
                    readable = 0
                if readable or writable:
                    self._add(ready, number, readable, writable)
            return ready

        def close(self) -> None:
            self._epoll.close()
            super().close()

        def _call(self, reader: Callable[[], object]) -> None:
            try:
                reader()
            except Exception as error:
                self._report({"message": f"an error in {reader}", "exception": error})

        def _add(
            self, ready: list[tuple[selectors.SelectorKey, int]], number: int, readable: int, writable: int
        ) -> None:
            try:
                key = self.get_key(number)
            except KeyError:  # what was called before has let go of it
                return
            events = (selectors.EVENT_READ if readable else 0) | (selectors.EVENT_WRITE if writable else 0)
            if events & key.events:
                ready.append((key, events & key.events))

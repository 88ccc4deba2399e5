"""live.json: how a run stands, for other processes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import suppress

from runners.events import Event
from runners.live.run import LIVE, LiveRun

_CLOSEST_S = 0.1
"""Phases can be shorter than this; a write is not worth more."""


class LiveFile:
    """Keeps live.json as new as a second, and newer where a phase changes.

    It is written whole or not at all, and its loss is nobody's. It is written also when nothing happens, so that its
    age says how long nobody has heard of the client.
    """

    def __init__(self, live: LiveRun, *, every_s: float = 1.0) -> None:
        self._live, self._every_s = live, every_s
        self._path = live.folder.path / LIVE
        self._part = self._path.with_name(f"{LIVE}.part")
        self._written_at = self._due = 0.0
        self._next: asyncio.TimerHandle | None = None
        self._closed = False

    def heard(self, event: Event) -> None:
        if event.lasting or self._next is None:
            self._write_by(self._written_at + _CLOSEST_S)

    def _write_by(self, due: float) -> None:
        """At this moment of the monotonic clock, or now if it has passed; an earlier one that is planned stands."""
        wait = due - time.monotonic()
        if wait <= 0:
            self._write()
        elif due < self._due:
            self._plan(wait)

    def _plan(self, wait: float) -> None:
        if self._next is not None:
            self._next.cancel()
        self._due = time.monotonic() + wait
        with suppress(RuntimeError):  # without a loop it is written when something happens
            self._next = asyncio.get_running_loop().call_later(wait, self._write)

    def _write(self) -> None:
        if self._closed:
            return
        self._written_at = time.monotonic()
        try:
            self._part.write_text(json.dumps(self._live.document()), encoding="utf-8")
            self._part.replace(self._path)
        except OSError:
            pass  # a full disk, perhaps; it is tried again in a second
        except Exception:  # the run's loop calls this, and must not hear of it
            logging.getLogger(__name__).debug("live.json is not written any more", exc_info=True)
            self._closed = True
            return
        self._plan(self._every_s)

    def close(self) -> None:
        """The run has ended."""
        self._closed = True
        if self._next is not None:
            self._next.cancel()
        for path in (self._path, self._part):
            with suppress(OSError):
                path.unlink(missing_ok=True)

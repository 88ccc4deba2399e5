"""An answer as it comes: its status, its fields, and the blocks of its body with the moment at which each arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runners.http.errors import HttpFailed, Malformed, Unusable

_BATCH_BYTES = 32 * 1024
"""So much is collected before the reader is woken: waking it for each block costs more than the block."""
_MOST_BYTES = 256 * 1024
"""If a reader lets so much lie, the connection is not read any further."""


class Response:
    """Filled by its connection and read by whoever asked. Moments are those of time.monotonic."""

    __slots__ = (
        "_error",
        "_flow",
        "_paused",
        "_waiter",
        "blocks",
        "ended",
        "headers",
        "held",
        "moments",
        "sent",
        "started",
        "status",
    )

    def __init__(self, flow: Callable[[bool], None]) -> None:
        """`flow` stops and resumes the reading from the wire."""
        self.status = 0
        self.headers: dict[str, str] = {}
        """By their names in lower case; repeated ones are joined with commas."""
        self.started = 0.0
        """Just before the first byte of the request was handed to the kernel."""
        self.sent: float | None = None
        """When the last one had been."""
        self.ended: float | None = None
        """When the answer was complete."""
        self.blocks: list[bytes] = []
        """What arrived of the body and was not taken yet."""
        self.moments: list[float] = []
        """When each of the blocks did."""
        self.held = 0
        """How much arrived since the reader took something, framing included."""
        self._error: HttpFailed | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._flow = flow
        self._paused = False

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def check(self) -> None:
        """Raises Unusable for an answer that is elsewhere, and Malformed for one in a form that nobody asked for."""
        if 300 <= self.status < 400 and "location" in self.headers:
            raise Unusable(f"HTTP {self.status}: moved to {self.headers['location']}; write that address")
        coding = self.headers.get("content-encoding", "identity").strip().lower()
        if self.status < 400 and coding not in ("identity", ""):
            raise Malformed(f"the answer is compressed ({coding}), which was not asked for")

    async def begun(self) -> None:
        """Returns when a batch has come, with the status and the headers. Raises HttpFailed if none will come."""
        while self.held < _BATCH_BYTES and self.ended is None and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if not self.blocks and self._error is not None:
            raise self._error

    async def batch(self) -> tuple[list[float], list[bytes]]:
        """The next blocks of the body and when each arrived; nothing at its end.

        Returns when many have come, or the last. Raises HttpFailed, after what came before the failure was given out.
        """
        while True:
            await self.begun()
            taken = self.moments.copy(), self.blocks.copy()
            self.moments.clear()
            self.blocks.clear()
            self.held = 0
            if self._paused:
                self._paused = False
                self._flow(True)
            if taken[1] or self.ended is not None:
                return taken

    async def read(self, most_bytes: int) -> bytes:
        """The whole body. Raises HttpFailed, also when it is larger than this."""
        parts: list[bytes] = []
        size = 0
        while blocks := (await self.batch())[1]:
            parts.extend(blocks)
            size += sum(map(len, blocks))
            if size > most_bytes:
                raise Malformed(f"the answer is larger than {most_bytes:,} bytes")
        return b"".join(parts)

    # The connection's side.

    def grown(self) -> None:
        """More has come: wake the reader if it is worth it, and stop reading if it lags."""
        if self.held >= _BATCH_BYTES:
            self._wake()
            if self.held >= _MOST_BYTES and not self._paused:
                self._paused = True
                self._flow(False)

    def complete(self, moment: float) -> None:
        self.ended = moment
        self._wake()

    def fail(self, error: HttpFailed) -> None:
        if self.ended is None and self._error is None:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

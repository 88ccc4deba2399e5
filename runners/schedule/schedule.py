"""One queue over all documents and levels: the first document first, and no slot of the engine idle."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from runners.schedule.concurrency import Concurrency


@dataclass(frozen=True, order=True)
class Place:
    """Where a request stands; a lower one goes first where nothing else decides."""

    document: int
    """The document's number in the order of the inputs."""
    height: int
    """How many requests must follow one another from this one to the document's end, this one included."""
    index: int
    """Its number within its level."""


class Schedule:
    """Hands out turns. `concurrency.limit` says how many may be held at once, and may change at any moment."""

    def __init__(self, concurrency: Concurrency) -> None:
        self.concurrency = concurrency
        self.under_way = 0
        self._waiting: list[tuple[Place, int, asyncio.Future[None]]] = []
        self._count = 0

    def expect(self, requests: Mapping[int, float]) -> None:
        """So many further requests are to come, by height; those of later levels as far as they can be foreseen."""

    @asynccontextmanager
    async def turn(self, place: Place) -> AsyncIterator[None]:
        """Wait until this request may be sent, and hold its slot until it has ended."""
        self._count += 1
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (place, self._count, turn))
        self.changed()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._over()
            raise
        try:
            yield
        finally:
            self._over()

    async def room(self) -> None:
        """Returns when a slot would be free for a document that has not begun."""

    def changed(self) -> None:
        """Hand out what the limit allows; to be called when the limit has changed."""
        while self._waiting and self.under_way < self.concurrency.limit:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                self.under_way += 1
                turn.set_result(None)

    def _over(self) -> None:
        self.under_way -= 1
        self.changed()

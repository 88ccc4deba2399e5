"""One queue over all documents and levels: no slot of the engine idle, and a document finished as soon as may be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from runners.engine import EngineSample
from runners.records import RequestRecord
from runners.schedule.concurrency import Concurrency
from runners.schedule.order import Order, Place, Waiting, shortest_first

__all__ = ["Place", "Schedule", "shortest_first"]

_LEAST_READY = 8
"""So many requests are kept waiting, so that a slot that becomes free finds one."""


class Schedule:
    """Hands out turns. `concurrency.limit` says how many may be held at once, and may change at any moment.

    A workload tells what is to come, begins documents as there is room for them, and takes a turn for each request:

        for document in documents:                         # by rank: `shortest_first` says which
            schedule.expect({3: 47, 2: 7, 1: 1}, document=document.rank)
        for document in documents:
            await schedule.room(document.rank)
            group.create_task(summarise(document))         # …with, for each of its requests:
        async with schedule.turn(Place(rank, height, index)):
            await client.complete(prompt)

    Neighbours in a document are sent one after the other, each with the same words before its own text (the template's
    head), so that an engine's prefix cache has what they share; nothing else of a prompt can be shared.
    """

    def __init__(self, concurrency: Concurrency) -> None:
        self.concurrency = concurrency
        self.under_way = 0
        self._order: Order[asyncio.Future[None]] = Order()
        self._rooms: list[tuple[int | None, asyncio.Future[None]]] = []
        self._used = False
        self._starting: set[int] = set()
        """Documents that were given room and have not asked for a turn."""

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return self._order.waiting

    def expect(self, requests: Mapping[int, float], *, document: int | None = None) -> None:
        """So many more requests than was said so far are to come, by height; fewer where a number is negative.

        Each turn that is asked for takes one off its document's and its height's number. Which documents must overlap
        at the end, so that the slots stay full, is found from what is foreseen of each: name the `document` (its rank).
        What is foreseen of none in particular counts only for how long the load takes.
        """
        self._order.expect(requests, document)
        self._look_for_room()

    def turn(self, place: Place) -> Turn:
        """`async with` it: waits until this request may be sent, and holds its slot until it has ended."""
        return Turn(self, place)

    async def room(self, document: int | None = None) -> None:
        """Returns when the next document should begin: its requests are needed to keep the slots full.

        To be awaited for one document after the other, by rank. A document that was given room and for which something
        is foreseen counts as waiting until it asks for its first turn, or nothing is foreseen of it any more.
        """
        await asyncio.sleep(0)  # what was begun before asks for its turns first
        if not self._has_room(document):
            there: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            entry = (document, there)
            self._rooms.append(entry)
            try:
                await there
            finally:
                self._rooms = [other for other in self._rooms if other is not entry]
        if document is not None:
            self._starting.add(document)

    def changed(self) -> None:
        """Hand out what the limit allows; to be called when the limit has changed."""
        limit = self.concurrency.limit
        while self.under_way < limit and (turn := self._order.pop(limit)) is not None:
            if not turn.done():
                self.under_way += 1
                turn.set_result(None)
        self._look_for_room()

    # What the drive tells of the engine.

    def looked(self, sample: EngineSample) -> None:
        """The engine's state now."""
        self.concurrency.sampled(sample, self.under_way, at_s=time.monotonic())
        self.changed()

    def answered(self, record: RequestRecord) -> None:
        """A request has just ended so."""
        if record.status == "ok":
            self.concurrency.answered(
                ttft_s=record.ttft_s,
                e2e_s=record.e2e_s,
                prompt_tokens=record.prompt_tokens,
                under_way=self.under_way,
                at_s=time.monotonic(),
            )
            self.changed()

    def refused(self) -> None:
        """The endpoint has just refused a request because it has too many."""
        self.concurrency.refused(self.under_way, at_s=time.monotonic())

    def summary(self) -> dict[str, Any] | None:
        """Where the limit lay; None if nobody took a turn."""
        return self.concurrency.summary() if self._used else None

    async def _take(self, place: Place) -> None:
        order = self._order
        self._starting.discard(place.document)
        self._used = True
        order.asked(place)
        if not order.waiting and self.under_way < self.concurrency.limit:
            self.under_way += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting: Waiting[asyncio.Future[None]] = order.add(place, turn)
        self.changed()
        try:
            await turn
        except asyncio.CancelledError:
            order.remove(waiting)
            if turn.done() and not turn.cancelled():
                self._over()
            raise

    def _over(self) -> None:
        self.under_way -= 1
        self.changed()

    def _has_room(self, document: int | None) -> bool:
        limit, order = self.concurrency.limit, self._order
        ready = order.waiting
        for rank in list(self._starting):
            foreseen = order.foreseen(rank)
            if foreseen <= 0:
                self._starting.discard(rank)
            ready += round(foreseen)
        if ready < max(0, limit - self.under_way) + max(_LEAST_READY, limit // 4):
            return True
        return document is not None and order.waiting > 0 and order.in_tail(document, limit)

    def _look_for_room(self) -> None:
        for document, there in self._rooms:
            if not there.done() and self._has_room(document):
                there.set_result(None)


class Turn:
    """A request's turn: entered when it may be sent, left when it has ended."""

    __slots__ = ("_place", "_schedule")

    def __init__(self, schedule: Schedule, place: Place) -> None:
        self._schedule, self._place = schedule, place

    async def __aenter__(self) -> None:
        await self._schedule._take(self._place)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._schedule._over()

"""Sends one point's requests: as many at once as a closed loop has, or each when it is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from recipes.traffic import Traffic
from runners.client import Client, RequestFailed
from runners.recording import answered, failed
from runners.records import RequestRecord
from runners.text.tokens import TokenCounter
from runners.workload import Recorder
from runners.workloads.load.points import Point, due_times_s
from runners.workloads.load.prompts import Ask

_HOPELESS = 20
"""A point whose first answers were so many failures, and nothing else, is broken off."""
_WARM_AT_ONCE = 8
LENGTH_IS_FORCED: Mapping[str, Any] = {"ignore_eos": True}
"""vLLM, llama.cpp, SGLang and TensorRT-LLM know it; OpenAI's own API refuses it."""


@dataclass
class Sender:
    """Hands requests to the client and what becomes of them to the recorder."""

    client: Client
    recorder: Recorder
    counter: TokenCounter
    asks: Iterator[Ask]
    """What is sent, in this order, over all points."""
    forcing: bool = True
    """Whether the endpoint knows how to keep an answer from ending early."""
    records: list[RequestRecord] = field(default_factory=list)
    """Of the point that is on."""

    async def warm_up(self, requests: int, *, forced: bool) -> str | None:
        """Send requests that count nowhere; returns why none of them was answered, if so.

        Where answers are to be of a certain length, the first finds out whether the endpoint takes the wish.
        """
        if forced:
            failed = await self._tried()
            if failed is not None and failed.kind == "refused":
                self.forcing = False
                failed = await self._tried()
            if failed is not None:
                return failed.message
        failures: list[str] = []
        left = asked = max(0, requests - 1 if forced else requests)

        async def some() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                if (failed := await self._tried()) is not None:
                    failures.append(failed.message)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(asked, _WARM_AT_ONCE)):
                group.create_task(some())
        return failures[0] if failures and len(failures) == asked and not forced else None

    async def _tried(self) -> RequestFailed | None:
        """Why a request that counts nowhere failed; None if it did not."""
        ask = next(self.asks)
        try:
            await self.client.complete(ask.prompt, max_tokens=ask.max_tokens, extra=self._extra(ask))
        except RequestFailed as error:
            return error
        return None

    async def send(self, point: Point, index: int, ask: Ask) -> None:
        """One request of a point, to its record."""
        place = {"id": f"{point.name}/1/{index}", "document": point.name, "level": 1, "index": index}
        try:
            answer = await self.client.complete(ask.prompt, max_tokens=ask.max_tokens, extra=self._extra(ask))
        except RequestFailed as error:
            record = failed(error, place)
        else:
            record = answered(answer, ask.prompt, place, self.counter, may_be_empty=True)
        self.records.append(record)
        self.recorder.record(record, None, "")

    def _extra(self, ask: Ask) -> dict[str, Any] | None:
        extra: dict[str, Any] = {}
        if ask.messages is not None:
            extra["messages"] = ask.messages
        if ask.forced and self.forcing:
            extra |= LENGTH_IS_FORCED
        return extra or None


class PointRun:
    """A point from its first request until the last is answered."""

    def __init__(self, point: Point, sender: Sender, traffic: Traffic, most_under_way: int) -> None:
        self._point, self._sender, self._traffic, self._most = point, sender, traffic, most_under_way
        self._sent = 0
        self._under_way = 0
        self._until: float | None = None

    async def run(self) -> None:
        """Send everything, and wait for every answer."""
        loop = asyncio.get_running_loop()
        self._sender.records.clear()
        if self._point.duration_s is not None:
            self._until = loop.time() + self._point.duration_s
        if self._point.rate_per_s is None:
            await self._closed_loop(loop.time)
        else:
            await self._open_loop(loop.time)

    def _ended(self, now: float) -> bool:
        """Whether a closed loop sends no further request."""
        if self._point.requests is not None and self._sent >= self._point.requests:
            return True
        return (self._until is not None and now >= self._until) or self._broken_off()

    def _broken_off(self) -> bool:
        """Whether nothing but failures came so far."""
        first = self._sender.records[:_HOPELESS]
        return len(first) == _HOPELESS and not any(record.status == "ok" for record in first)

    async def _closed_loop(self, clock: Callable[[], float]) -> None:
        """As many workers as requests are to be under way; each sends its next when its last is answered."""

        async def work() -> None:
            while not self._ended(clock()):
                index, self._sent = self._sent, self._sent + 1
                if self._point.requests is None:
                    self._sender.recorder.expect(1)
                await self._sender.send(self._point, index, next(self._sender.asks))

        async with asyncio.TaskGroup() as group:
            for _ in range(self._point.concurrency or 1):
                group.create_task(work())

    async def _open_loop(self, clock: Callable[[], float]) -> None:
        """Each request when it is due, whatever became of those before it."""
        begun = clock()

        async def send(index: int, ask: Ask) -> None:
            try:
                await self._sender.send(self._point, index, ask)
            finally:
                self._under_way -= 1

        async with asyncio.TaskGroup() as group:
            for index, due_s in enumerate(due_times_s(self._traffic, self._point)):
                ask = next(self._sender.asks)  # made before it is due
                await asyncio.sleep(max(0.0, begun + due_s - clock()))
                if self._broken_off() or self._under_way >= self._most:
                    break
                self._sent, self._under_way = index + 1, self._under_way + 1
                group.create_task(send(index, ask))

"""Asks for the summaries of one document, each once: what an earlier client has on disk is not asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from itertools import islice
from typing import Any, TypeVar

from runners.client import RequestFailed
from runners.recording import answered, failed
from runners.schedule.schedule import Place
from runners.text.splitter import Span
from runners.together import together
from runners.workload import Means
from runners.workloads.summarize.documents import Document, DocumentFailed, Reader
from runners.workloads.summarize.foresight import Foresight, Outlook
from runners.workloads.summarize.prepared import Prepared
from runners.workloads.summarize.tree import Node, Passage, covering

_AHEAD = 128
"""So many requests of a level wait for their turn at once; the texts of the others need not exist yet."""
_LONG = 10_000
"""Characters: counting the tokens of more takes milliseconds."""

T = TypeVar("T")
Begun = Callable[[], None]
Start = Callable[[Begun], Coroutine[Any, Any, None]]


class Asker:
    """One document's requests. `nodes` grows with every answer."""

    def __init__(
        self, prepared: Prepared, document: Document, read: Reader, means: Means, foresight: Foresight, outlook: Outlook
    ) -> None:
        self.prepared, self.document = prepared, document
        self.settings = prepared.recipe.workload
        self.nodes: list[Node] = []
        self._read, self._means = read, means
        self._foresight, self._outlook = foresight, outlook

    def expect(self, requests: int) -> None:
        """So many further requests are known to come."""
        self._means.recorder.expect(requests)

    def foresee(self, chunks: int, prompt_tokens: int, *, at_least: int = 1, begun: int = 0) -> int:
        """How many levels so many requests will take, themselves included; the schedule is told what is to come.

        So many of the requests are `begun` already.
        """
        requests = self._foresight.of(chunks, prompt_tokens)
        further = max(0, at_least - max(requests))
        requests = {height + further: number for height, number in requests.items()}
        self._outlook.becomes({**requests, max(requests): max(0.0, requests[max(requests)] - begun)})
        return max(requests)

    async def count(self, text: str) -> int:
        return await _aside(len(text), self.prepared.splitter.counter.count, text)

    async def cut(self, text: str) -> list[Span]:
        """Where the chunks of a text lie in it."""
        return await _aside(len(text), self.prepared.splitter.spans, text)

    async def all(
        self,
        requests: int,
        ask: Callable[[int, Begun], Coroutine[Any, Any, Node]],
        arrived: Callable[[int, Node], None] = lambda index, node: None,
    ) -> list[Node]:
        """The answers to so many requests of a level. The first failure ends the others: they would only cost.

        `arrived` is told of each as it comes.
        """
        found: dict[int, Node] = {}

        def start(index: int) -> Start:
            async def one(begun: Begun) -> None:
                found[index] = await ask(index, begun)
                arrived(index, found[index])

            return one

        async with together(DocumentFailed) as group:
            feed(group, map(start, range(requests)))
        return [found[index] for index in range(requests)]

    async def chunk(self, index: int, height: int, begun: Begun = lambda: None) -> Node:
        """The summary of a chunk of the document."""
        passage = self._passage(index)
        return await self.ask((1, index), height, self._text_of(passage), (), chunk=passage, begun=begun)

    async def refined(self, index: int, height: int, before: Node | None) -> Node:
        """The summary of all up to a chunk of the document, from the one of what comes before it."""
        passage, place = self._passage(index), (index + 1, 0)
        if before is None:
            return await self.ask(place, height, self._text_of(passage), (), chunk=passage)
        return await self.ask(place, height, self._text_of(passage), (before,), chunk=passage, summary=before.text)

    def _passage(self, index: int) -> Passage:
        return Passage(self.document.starts[index], self.document.ends[index])

    def _text_of(self, passage: Passage) -> str:
        return self._read(passage.start, passage.end)

    async def ask(
        self,
        place: tuple[int, int],
        height: int,
        text: str,
        children: tuple[Node, ...],
        *,
        chunk: Passage | None = None,
        summary: str | None = None,
        begun: Begun = lambda: None,
    ) -> Node:
        """The summary of a text, or of a `summary` that the text continues; `place` is its level and index.

        `begun` is called when it has its turn. Raises DocumentFailed.
        """
        prompt = self.prepared.prompt(text, summary)
        reply, truncated = await self._reply(prompt, place, height, begun)
        node = Node(
            level=place[0],
            index=place[1],
            source=covering(children, chunk),
            chunk=chunk,
            children=children,
            text=reply,
            tokens=self.prepared.splitter.counter.count(reply),
            truncated=truncated,
        )
        self._foresight.saw(node.tokens)
        self.nodes.append(node)
        return node

    def drop(self, asking: asyncio.Task[Node]) -> None:
        """What is asked, or was, is no part of the document."""
        if asking.cancel():
            self.expect(-1)
        else:
            self.nodes.remove(asking.result())

    async def _reply(self, prompt: str, place: tuple[int, int], height: int, begun: Begun) -> tuple[str, bool | None]:
        client, recorder = self._means.client, self._means.recorder
        where: dict[str, Any] = {"document": self.document.id, "level": place[0], "index": place[1]}
        where["id"] = f"{self.document.id}/{place[0]}/{place[1]}"
        key = client.key(prompt)
        if earlier := recorder.answered(where["id"], key):
            self._outlook.answered(height)
            begun()
            return earlier, None
        self._outlook.asked(height)
        try:
            async with self._means.schedule.turn(Place(self.document.rank, height, place[1])):
                begun()
                answer = await client.complete(prompt)
        except RequestFailed as error:
            recorder.record(failed(error, where), None, key)
            raise DocumentFailed(_explained(error, where["id"])) from None
        reply = answer.text.strip()
        record = answered(answer, prompt, where, self.prepared.splitter.counter)
        recorder.record(record, reply, key)
        if record.status == "failed" and self.settings.on_empty == "fail":
            raise DocumentFailed(f"{where['id']}: {record.error}; workload.on_empty: skip would go on without it")
        return reply, record.finish_reason == "length"


def feed(group: asyncio.TaskGroup, starts: Iterable[Start]) -> None:
    """Begin each of a level's requests in its order, the next one whenever one of them has its turn."""
    waiting = iter(starts)

    def begin(most: int = 1) -> None:
        for start in islice(waiting, most):
            group.create_task(start(begin))

    begin(_AHEAD)


async def _aside(length: int, work: Callable[[str], T], text: str) -> T:
    """Work on a text; beside the event loop if it takes so long that answers would wait to be read."""
    return await asyncio.to_thread(work, text) if length > _LONG else work(text)


def _explained(error: RequestFailed, place: str) -> str:
    if error.kind == "context":
        return f"{place}: the chunk is longer than the engine's context; lower workload.chunk_size: {error.message}"
    tries = f" after {error.tries} tries" if error.tries > 1 else ""
    return f"{place}: {error.message}{tries}"

"""The strategy `recursive`, the reference's own: all summaries are joined with newlines, and the join is summarised in
turn, cut like a text if it is too long for one request.

Where the join is cut depends on the whole of it, but not everywhere: as long as it is longer than chunk_size, it is cut
from its beginning, piece by piece, and every chunk of its beginning but the last stays as it is whatever follows. (It
is cut at the first separator that occurs anywhere in it. If that is one which comes only later, the beginning is its
first piece, is too long, and is cut at the next separator: where it was cut before.) So a chunk of the join is asked
about as soon as its summaries are there and a further one. When the join is complete it is cut once more, and only
answers to what this finds are used.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice

from runners.text.splitter import Span
from runners.together import together
from runners.workloads.summarize.asking import Asker, Begun
from runners.workloads.summarize.documents import DocumentFailed
from runners.workloads.summarize.tree import Node

_LOOK_AGAIN = 1.1
"""The join is cut anew only when it has grown by so much, so that all cuts together cost about ten."""


async def recursive(asker: Asker) -> Node:
    """The document's summary. Raises DocumentFailed."""
    async with together(DocumentFailed) as group:
        root = await _Recursion(asker, group).summary()
    return root  # noqa: RET504 — a group that ends without a summary raises, which only people know


class _Recursion:
    def __init__(self, asker: Asker, group: asyncio.TaskGroup) -> None:
        self._asker, self._group = asker, group
        self._size = asker.settings.chunk_size

    async def summary(self) -> Node:
        asker, document = self._asker, self._asker.document
        tokens, level = document.tokens, 1
        height = asker.foresee(document.chunks, document.prompt_tokens)
        early = self._early(1, tokens, document.chunks, height)
        nodes = await asker.all(document.chunks, lambda i, begun: asker.chunk(i, height, begun), early.arrived)
        while tokens >= self._size:
            nodes = _said(nodes, level)
            joined = "\n".join(node.text for node in nodes)
            before, tokens = tokens, await asker.count(joined)
            if tokens >= before:
                raise DocumentFailed(
                    f"its summaries do not shrink: {before:,} tokens became {tokens:,} at level {level}; "
                    "lower workload.max_tokens or raise workload.chunk_size"
                )
            if level == asker.settings.max_levels:
                raise DocumentFailed(f"not finished after {level} levels; raise workload.max_levels")
            level += 1
            nodes, early = await self._above(level, nodes, joined, tokens, early)
        return _said(nodes, level)[0]

    async def _above(
        self, level: int, children: Sequence[Node], joined: str, tokens: int, begun: _Early
    ) -> tuple[list[Node], _Early]:
        """The summaries of a join of so many tokens, some of which have been begun, and what they began in turn."""
        asker = self._asker
        is_last = tokens < self._size
        spans = [Span(0, len(joined))] if is_last else await asker.cut(joined)
        asker.expect(len(spans) - begun.keep(spans))
        prompt_tokens = tokens + len(spans) * asker.prepared.template_tokens
        height = asker.foresee(len(spans), prompt_tokens, at_least=1 if is_last else 2, begun=len(begun.tasks))
        of = list(_overlapped(children, spans))

        async def ask(index: int, has_turn: Begun) -> Node:
            if task := begun.tasks.get(index):
                has_turn()
                return await task
            start, end = spans[index]
            return await asker.ask((level, index), height, joined[start:end], of[index], begun=has_turn)

        early = self._early(level, tokens, len(spans), height)
        return await asker.all(len(spans), ask, early.arrived), early

    def _early(self, level: int, tokens: int, requests: int, height: int) -> _Early:
        return _Early(self._asker, self._group, level, tokens / requests, max(2, height - 1))


class _Early:
    """Asks for summaries of the next level while this one is still being asked for."""

    def __init__(self, asker: Asker, group: asyncio.TaskGroup, level: int, tokens_each: float, height: int) -> None:
        """`tokens_each` has each request of this level, of the text that it is about."""
        self.tasks: dict[int, asyncio.Task[Node]] = {}
        self._asker, self._group = asker, group
        self._level, self._tokens_each, self._height = level, tokens_each, height
        self._spans: list[Span] = []
        """Those that were begun."""
        self._there: dict[int, Node] = {}
        self._nodes: list[Node] = []
        """Those without a gap before them, but for the empty ones."""
        self._taken, self._tokens = 0, 0
        settings, splitter = asker.settings, asker.prepared.splitter
        as_a_whole = splitter.balanced or splitter.whole_sentences or asker.document.tokens < settings.chunk_size
        self._look_at = math.inf if as_a_whole or level == settings.max_levels else float(settings.chunk_size)
        self._looking: asyncio.Task[None] | None = None

    def arrived(self, index: int, node: Node) -> None:
        """One of this level's summaries is there."""
        self._there[index] = node
        while (following := self._there.pop(self._taken, None)) is not None:
            self._taken += 1
            self._tokens += following.tokens
            if following.text:
                self._nodes.append(following)
        if self._looking is None and self._is_time:
            self._looking = self._group.create_task(self._look())

    @property
    def _is_time(self) -> bool:
        """Whether a further chunk may be certain; nothing is begun of summaries that have not shrunk so far."""
        return self._look_at <= self._tokens < self._taken * self._tokens_each

    async def _look(self) -> None:
        """Begin what is certain of the join as far as it goes."""
        while self._is_time:
            nodes, tokens = list(self._nodes), self._tokens
            self._look_at = tokens * _LOOK_AGAIN
            joined = "\n".join(node.text for node in nodes)
            if await self._asker.count(joined) < self._asker.settings.chunk_size:
                continue
            *certain, last = await self._asker.cut(joined)
            new = enumerate(zip(certain, _overlapped(nodes, certain), strict=True))
            for index, (span, children) in islice(new, len(self._spans), None):
                self._begin(index, joined[span.start : span.end], children)
                self._spans.append(span)
            before = sum(node.tokens for node, end in zip(nodes, _ends(nodes), strict=True) if end <= last.start)
            self._look_at = max(self._look_at, float(before + self._asker.settings.chunk_size))
        self._looking = None

    def _begin(self, index: int, text: str, children: tuple[Node, ...]) -> None:
        self._asker.expect(1)
        asking = self._asker.ask((self._level + 1, index), self._height, text, children)
        self.tasks[index] = self._group.create_task(asking)

    def keep(self, spans: Sequence[Span]) -> int:
        """This level is complete, and the join is cut so: drop what was begun of other chunks, if there were any.

        Returns how many requests of the next level are begun, or done, already.
        """
        self._look_at = math.inf
        if self._looking is not None:
            self._looking.cancel()
        for index, begun in enumerate(self._spans):
            if index >= len(spans) or spans[index] != begun:
                self._asker.drop(self.tasks.pop(index))
        return len(self.tasks)


def _said(nodes: Sequence[Node], level: int) -> list[Node]:
    """Those whose answer was not empty. Raises DocumentFailed if there is none."""
    said = [node for node in nodes if node.text]
    if not said:
        raise DocumentFailed(f"every answer of level {level} was empty")
    return said


def _ends(nodes: Sequence[Node]) -> list[int]:
    """Where each summary ends in their join."""
    return [end - 1 for end in accumulate(len(node.text) + 1 for node in nodes)]


def _overlapped(nodes: Sequence[Node], spans: Sequence[Span]) -> Iterator[tuple[Node, ...]]:
    """The summaries that have a part in each span of their join."""
    ends = _ends(nodes)
    starts = [0, *(end + 1 for end in ends)][:-1]
    for start, end in spans:
        yield tuple(nodes[bisect_right(ends, start) : bisect_left(starts, end)])

"""The strategies `hierarchical` and `pairwise`: neighbouring summaries are merged, level by level, until one is left.

A merge is asked for as soon as its own summaries are there. `pairwise` merges two and two, which is known beforehand.
`hierarchical` merges as many neighbours as fit into chunk_size, so that a merge begins when the first one that does not
fit is there as well. Two are always merged, also where they are longer than chunk_size together, so that there is an
end; the plan reckons with that. A summary without a neighbour rises to the next level as it is.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass, field

from runners.together import together
from runners.workloads.summarize.asking import Asker, Begun, Start, feed
from runners.workloads.summarize.documents import DocumentFailed
from runners.workloads.summarize.tree import Node


async def hierarchical(asker: Asker) -> Node:
    """The document's summary. Raises DocumentFailed."""
    return await _merged(_Neighbours(asker))


async def pairwise(asker: Asker) -> Node:
    """The document's summary. Raises DocumentFailed."""
    return await _merged(_Pairs(asker))


async def _merged(merging: _Merging) -> Node:
    asker = merging.asker
    async with together(DocumentFailed) as merging.tasks:
        feed(merging.tasks, (merging.leaf(i) for i in range(asker.document.chunks)))
    if merging.root is None:
        raise DocumentFailed("every answer of level 1 was empty")
    return merging.root


class _Merging(ABC):
    """Takes summaries as they come, and asks for what they make possible."""

    tasks: asyncio.TaskGroup

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.root: Node | None = None

    def leaf(self, index: int) -> Start:
        async def ask(begun: Begun) -> None:
            self.arrived(1, index, await self.asker.chunk(index, self.height(1, index), begun))

        return ask

    @abstractmethod
    def arrived(self, level: int, index: int, node: Node | None) -> None:
        """A summary is there, or there is none, at its place in a level; one may also be empty."""

    @abstractmethod
    def height(self, level: int, index: int) -> int:
        """How many requests follow one another from this one on."""

    def rises(self, level: int, index: int, children: list[Node]) -> None:
        """What becomes of neighbours at their place in the next level: a merge, if there are several."""
        if len(children) < 2:
            self.arrived(level, index, children[0] if children else None)
            return
        most = self.asker.settings.max_levels
        if level > most:
            raise DocumentFailed(f"not finished after {most} levels; raise workload.max_levels")
        self.tasks.create_task(self._merge(level, index, tuple(children)))

    async def _merge(self, level: int, index: int, children: tuple[Node, ...]) -> None:
        text = "\n".join(child.text for child in children)
        self.arrived(level, index, await self.asker.ask((level, index), self.height(level, index), text, children))


def levels_of_pairs(chunks: int) -> int:
    """How many levels there are until one summary is left."""
    return len(_sizes(chunks))


def _sizes(chunks: int) -> list[int]:
    """How many summaries each level has."""
    sizes = [chunks]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


class _Pairs(_Merging):
    """Numbers 2n and 2n + 1 of a level become number n of the next."""

    def __init__(self, asker: Asker) -> None:
        super().__init__(asker)
        self._there: dict[tuple[int, int], Node | None] = {}
        self._sizes = _sizes(asker.document.chunks)
        asker.foresee(asker.document.chunks, asker.document.prompt_tokens)

    def height(self, level: int, index: int) -> int:
        return len(self._sizes) - level + 1

    def arrived(self, level: int, index: int, node: Node | None) -> None:
        said, other = node if node and node.text else None, index ^ 1
        if level == len(self._sizes):
            self.root = said
            return
        has_neighbour = other < self._sizes[level - 1]
        if has_neighbour and (level, other) not in self._there:
            self._there[level, index] = said
            return
        pair = [said, self._there.pop((level, other))] if has_neighbour else [said]
        children = sorted((node for node in pair if node), key=lambda node: node.source)
        if has_neighbour and len(children) < 2:
            self.asker.expect(-1)
        self.rises(level + 1, index // 2, children)


@dataclass
class _Row:
    """What is known of a level."""

    total: int | None = None
    """How many summaries it will have, once that is known."""
    there: dict[int, Node | None] = field(default_factory=dict)
    """Those that have come and not been taken yet, by their place; None for one that was empty."""
    taken: int = 0
    group: list[Node] = field(default_factory=list)
    """The neighbours that were taken last, as long as a further one may fit."""
    groups: int = 0
    """So many are complete."""


class _Neighbours(_Merging):
    """As many as fit, in the order of the text: the same groups in whatever order the answers come."""

    def __init__(self, asker: Asker) -> None:
        super().__init__(asker)
        self._rows: defaultdict[int, _Row] = defaultdict(_Row)
        self._rows[1].total = asker.document.chunks
        self._levels = asker.foresee(asker.document.chunks, asker.document.prompt_tokens)

    def height(self, level: int, index: int) -> int:
        is_last = self._rows[level].total == 1
        return 1 if is_last else max(2, self._levels - level + 1)

    def arrived(self, level: int, index: int, node: Node | None) -> None:
        self._rows[level].there[index] = node if node and node.text else None
        self._advance(level)

    def _advance(self, level: int) -> None:
        """Take what has come, as far as nothing is missing before it."""
        row = self._rows[level]
        while row.taken in row.there:
            node = row.there.pop(row.taken)
            row.taken += 1
            if node is None:
                continue
            if len(row.group) > 1 and not self._fit([*row.group, node]):
                self._complete(level, row)
            row.group.append(node)
        if row.taken == row.total:
            self._end(level, row)

    def _fit(self, nodes: list[Node]) -> bool:
        """Each costs its tokens with its special ones, which stand for the newline after it."""
        return sum(node.tokens for node in nodes) < self.asker.settings.chunk_size

    def _complete(self, level: int, row: _Row) -> None:
        children, row.group = row.group, []
        row.groups += 1
        if len(children) > 1:
            self.asker.expect(1)
        self.rises(level + 1, row.groups - 1, children)

    def _end(self, level: int, row: _Row) -> None:
        """All have been taken; where any was said, the last of them are a group that nothing further can join."""
        if row.groups == 0 and len(row.group) < 2:
            self.root = row.group[0] if row.group else None
            return
        self._rows[level + 1].total = row.groups + 1
        self._complete(level, row)

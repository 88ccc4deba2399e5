"""Cuts a text into chunks of at most so many tokens, with overlap: the same chunks as langchain's recursive splitter.

The semantics are those of RecursiveCharacterTextSplitter(keep_separator=True) of langchain-text-splitters 1.x with a
length function that counts a text's tokens together with its special ones, so that an empty text costs what those cost.
A test compares the two. Here nothing but offsets moves: every chunk is one slice of the text.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from runners.text.tokens import TokenCounter

SEPARATORS = {"paragraphs": ("\n\n", "\n", " ", ""), "sentences": ("\n\n", "\n", ".")}


class Span(NamedTuple):
    """A chunk's place in its text, in characters; the end is behind its last one."""

    start: int
    end: int


@dataclass(frozen=True)
class Splitter:
    """Cuts at the first separator that a text has, and what is still too long at the ones after it."""

    counter: TokenCounter
    chunk_size: int
    chunk_overlap: int
    separators: Sequence[str] = SEPARATORS["paragraphs"]

    def split(self, text: str) -> list[str]:
        """The chunks, stripped, none of them empty. A piece without a separator may be longer than chunk_size."""
        return [text[start:end] for start, end in self.spans(text)]

    def spans(self, text: str) -> list[Span]:
        """Where the chunks lie, stripped of white space, in their order; they overlap as chunk_overlap allows."""
        return list(self._cut(text, 0, len(text), self.separators))

    def _cut(self, text: str, start: int, end: int, separators: Sequence[str]) -> Iterator[Span]:
        at = next((i for i, s in enumerate(separators) if text.find(s, start, end) >= 0), len(separators) - 1)
        finer = separators[at + 1 :] if separators[at] else ()
        edges = piece_edges(text, start, end, separators[at])
        counts = self.counter.count_pieces(text, edges)
        begin = 0
        for i in self._too_long(counts):
            yield from self._merge(text, edges[begin : i + 1], counts[begin:i])
            if finer:
                yield from self._cut(text, edges[i], edges[i + 1], finer)
            else:
                yield from _stripped(text, edges[i], edges[i + 1], strip=False)
            begin = i + 1
        yield from self._merge(text, edges[begin:], counts[begin:])

    def _too_long(self, counts: Sequence[int]) -> list[int]:
        if not counts or max(counts) < self.chunk_size:
            return []
        return [i for i, tokens in enumerate(counts) if tokens >= self.chunk_size]

    def _merge(self, text: str, edges: Sequence[int], counts: Sequence[int]) -> Iterator[Span]:
        """Join neighbours up to chunk_size; the end of one chunk, up to chunk_overlap, begins the next."""
        for first, last in windows(counts, self.counter.count(""), self.chunk_size, self.chunk_overlap):
            yield from _stripped(text, edges[first], edges[last])


def windows(counts: Sequence[int], joint: int, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Which pieces make a chunk: first, and one behind the last. Between two pieces `joint` tokens are counted."""
    sums = list(accumulate((tokens + joint for tokens in counts), initial=0))
    first, least = 0, 1
    while first < len(counts):
        last = max(least, bisect_right(sums, sums[first] + joint + size) - 1)
        yield first, last
        if last == len(counts):
            return
        kept = max(0, min(overlap, size - counts[last] - joint))
        first, least = bisect_left(sums, sums[last] - joint - kept, first, last), last + 1


def piece_edges(text: str, start: int, end: int, separator: str) -> list[int]:
    """Where the pieces begin, and the end: a separator begins its piece; an empty one separates all characters."""
    if not separator:
        return list(range(start, end + 1))
    width = len(separator)
    parts = text[start:end].split(separator)
    edges = [edge - width for edge in accumulate((len(part) + width for part in parts), initial=start)]
    edges[0] = start
    return edges if parts[0] else edges[1:]


def _stripped(text: str, start: int, end: int, *, strip: bool = True) -> Iterator[Span]:
    if not strip:
        yield Span(start, end)
        return
    chunk = text[start:end]
    if kept := chunk.lstrip():
        begin = end - len(kept)
        yield Span(begin, begin + len(kept.rstrip()))

"""Cuts a text that may be larger than memory: the same chunks as `Splitter.spans`, a block at a time.

Which separator applies depends on the whole text, so it is read once to find that out (its beginning, if the first
separator is there). A piece that goes on and on is too long for a chunk whatever follows: its end is looked for, and
it is cut by the finer separators as a text of its own, from the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from runners.text.source import Source, find, first_of
from runners.text.splitter import Span, Splitter, filled, piece_edges, piece_sums

_LONG_PIECE = 1 << 20
"""Characters of a piece without an end, from which on its tokens are counted."""
_SURE = 2
"""Times chunk_size: a piece whose beginning has so many tokens has at least chunk_size as a whole."""


def stream(splitter: Splitter, source: Source) -> Iterator[tuple[Span, str]]:
    """The chunks of a text and where they lie, in order. For a splitter without `balanced` and `whole_sentences`."""
    assert not splitter.balanced
    assert not splitter.whole_sentences
    return _stream(splitter, source, 0, None, splitter.separators)


def _stream(
    splitter: Splitter, source: Source, start: int, end: int | None, separators: Sequence[str]
) -> Iterator[tuple[Span, str]]:
    at = first_of(source, separators, start, end)
    separator, finer = separators[at], separators[at + 1 :] if separators[at] else ()
    while True:
        level = _Level(splitter, separator, finer, start)
        for block in source.blocks(start, end):
            yield from level.take(block)
            if level.endless:
                break
        else:
            yield from level.finish()
            return
        yield from level.run.finish()
        begin = level.position
        beginning = "".join(source.blocks(begin, begin + len(separator)))
        until = find(source, separator, begin + (len(separator) if beginning == separator else 0), end)
        if finer:
            yield from _stream(splitter, source, begin, until or end, finer)
        else:
            yield _whole(source, begin, until or end)
        if until is None:
            return
        start = until


def _whole(source: Source, start: int, end: int | None) -> tuple[Span, str]:
    text = "".join(source.blocks(start, end))
    return Span(start, start + len(text)), text


@dataclass
class _Run:
    """Pieces that follow each other and fit a chunk each, from the first of an unfinished chunk on."""

    splitter: Splitter
    start: int
    """Where the text begins."""
    text: str = ""
    edges: list[int] = field(default_factory=lambda: [0])
    """In the text; the last is the end of the last piece."""
    counts: list[int] = field(default_factory=list)
    least: int = 1

    def add(self, text: str, edges: Sequence[int], counts: Sequence[int]) -> Iterator[tuple[Span, str]]:
        """The chunks that end before the last of these pieces."""
        shift = len(self.text)
        self.text += text[edges[0] : edges[-1]]
        self.edges += [edge - edges[0] + shift for edge in edges[1:]]
        self.counts += counts
        least = self.least
        for first, last in self._windows():
            if last == len(self.counts):
                self._forget(first, least)
                return
            yield from self._chunk(first, last)
            least = last + 1

    def finish(self) -> Iterator[tuple[Span, str]]:
        """The chunks that are left."""
        for first, last in self._windows():
            yield from self._chunk(first, last)
        self.start += len(self.text)
        self.text, self.edges, self.counts, self.least = "", [0], [], 1

    def _windows(self) -> Iterator[tuple[int, int]]:
        joint = self.splitter.counter.count("")
        sums = piece_sums(self.counts, joint)
        return filled(sums, joint, self.splitter.chunk_size, self.splitter.chunk_overlap, least=self.least)

    def _forget(self, first: int, least: int) -> None:
        cut = self.edges[first]
        self.start, self.text = self.start + cut, self.text[cut:]
        self.edges, self.counts = [edge - cut for edge in self.edges[first:]], self.counts[first:]
        self.least = least - first

    def _chunk(self, first: int, last: int) -> Iterator[tuple[Span, str]]:
        chunk = self.text[self.edges[first] : self.edges[last]]
        if kept := chunk.lstrip():
            begin = self.start + self.edges[last] - len(kept)
            kept = kept.rstrip()
            yield Span(begin, begin + len(kept)), kept


class _Level:
    """A text's pieces between the same separators, as its blocks come in."""

    def __init__(self, splitter: Splitter, separator: str, finer: Sequence[str], start: int) -> None:
        self._splitter, self._separator, self._finer = splitter, separator, finer
        self.run = _Run(splitter, start)
        self.position = start
        """Where the piece begins of which the end has not come."""
        self._held = ""
        self._limit = _LONG_PIECE
        self.endless = False

    def take(self, block: str) -> Iterator[tuple[Span, str]]:
        text = self._held + block
        edges = piece_edges(text, 0, len(text), self._separator)
        whole = edges if not self._separator else edges[:-1]
        if len(whole) > 1:
            yield from self._pieces(text, whole)
            self._limit = _LONG_PIECE
        self._held = text[whole[-1] :] if whole else text
        if len(self._held) > self._limit:
            self._limit = 2 * len(self._held)
            tokens = self._splitter.counter.count(self._held)
            self.endless = tokens >= _SURE * self._splitter.chunk_size

    def finish(self) -> Iterator[tuple[Span, str]]:
        if self._held:
            yield from self._pieces(self._held, [0, len(self._held)])
        yield from self.run.finish()

    def _pieces(self, text: str, edges: Sequence[int]) -> Iterator[tuple[Span, str]]:
        counts = self._splitter.counter.count_pieces(text, edges)
        size, begin, position = self._splitter.chunk_size, 0, self.position
        for i in [i for i, tokens in enumerate(counts) if tokens >= size]:
            if begin < i:
                yield from self.run.add(text, edges[begin : i + 1], counts[begin:i])
            yield from self.run.finish()
            yield from self._too_long(text[edges[i] : edges[i + 1]], position + edges[i] - edges[0])
            self.run.start = position + edges[i + 1] - edges[0]
            begin = i + 1
        if begin < len(counts):
            yield from self.run.add(text, edges[begin:], counts[begin:])
        self.position = position + edges[-1] - edges[0]

    def _too_long(self, piece: str, start: int) -> Iterator[tuple[Span, str]]:
        if not self._finer:
            yield Span(start, start + len(piece)), piece
            return
        for begin, end in self._splitter.cut(piece, self._finer):
            yield Span(start + begin, start + end), piece[begin:end]

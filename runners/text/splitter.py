"""Cuts a text into chunks of at most so many tokens, with overlap: the same chunks as langchain's recursive splitter.

The semantics are those of RecursiveCharacterTextSplitter(keep_separator=True) of langchain-text-splitters 1.x with a
length function that counts a text's tokens together with its special ones, so that an empty text costs what those cost.
A test compares the two. Here nothing but offsets moves: every chunk is one slice of the text.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import NamedTuple

from runners.text.tokens import TokenCounter

SEPARATORS = {"paragraphs": ("\n\n", "\n", " ", ""), "sentences": ("\n\n", "\n", ".")}

# Punctuation that ends a sentence, with quotes and brackets that close behind it, before white space that no small
# letter follows; the same in Chinese and Japanese, where nothing follows; and an empty line.
_SENTENCE_END = re.compile(
    r"""(?<![.!?…])[.!?…]++["'”’»)\]]*+(?=\s+[^\sa-zß-öø-ÿ])|[。！？]++[」』”’）]*+"""
    r"""|(?<=\S)(?=[^\S\n]*\n[^\S\n]*\n)"""
)
# A point behind one of these ends no sentence: titles, initials, and what stands before names and numbers.
_ABBREVIATED = re.compile(
    r"(?:^|[^\w.])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Rev|Hon|Gen|Col|Capt|Lt|Sgt|Jr|Sr|No|Nr|Vol|Ch|Fig|Figs|Eq|Ref|pp?|vs|cf"
    r"|e\.g|i\.e|etc|al|ca|approx|Inc|Ltd|Co|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)\.$"
)
_LONGEST_ABBREVIATION = 10


class Span(NamedTuple):
    """A chunk's place in its text, in characters; the end is behind its last one."""

    start: int
    end: int


@dataclass(frozen=True)
class Splitter:
    """Cuts at the first separator that a text has, and what is still too long at the ones after it.

    `balanced`: among all ways to fill the chunks one after the other, the one with the smallest full chunk that makes
    no more chunks than the reference would; so all are of about one size. The reference fills each to chunk_size, and
    the last one has what is left. None is ever larger than the reference's limit.

    `whole_sentences`: the pieces are sentences (`sentences`), so that a chunk begins and ends with a whole one and the
    overlap is made of whole ones; a chunk then holds up to chunk_size tokens as the engine counts it, its special
    tokens included. Only a sentence of chunk_size tokens or more is cut, at the separators.
    """

    counter: TokenCounter
    chunk_size: int
    chunk_overlap: int
    separators: Sequence[str] = SEPARATORS["paragraphs"]
    balanced: bool = False
    whole_sentences: bool = False

    def split(self, text: str) -> list[str]:
        """The chunks, stripped, none of them empty. A piece without a separator may be longer than chunk_size."""
        return [text[start:end] for start, end in self.spans(text)]

    def spans(self, text: str) -> list[Span]:
        """Where the chunks lie, stripped of white space, in their order; they overlap as chunk_overlap allows."""
        if self.whole_sentences:
            return list(self._join_sentences(text))
        return list(self.cut(text, self.separators))

    def cut(self, text: str, separators: Sequence[str]) -> Iterator[Span]:
        """The same by other separators."""
        return self._cut(text, 0, len(text), separators)

    def _cut(self, text: str, start: int, end: int, separators: Sequence[str]) -> Iterator[Span]:
        at = next((i for i, s in enumerate(separators) if text.find(s, start, end) >= 0), len(separators) - 1)
        finer = separators[at + 1 :] if separators[at] else ()
        edges = piece_edges(text, start, end, separators[at])
        counts = self.counter.count_pieces(text, edges)
        joint = self.counter.count("")
        yield from self._join(text, edges, counts, finer, joint=joint, size=self.chunk_size)

    def _join_sentences(self, text: str) -> Iterator[Span]:
        special = self.counter.count("")
        edges = sentence_edges(text)
        counts = self.counter.count_within(text, edges)
        yield from self._join(text, edges, counts, self.separators, joint=0, size=self.chunk_size - special)

    def _join(
        self, text: str, edges: Sequence[int], counts: Sequence[int], finer: Sequence[str], *, joint: int, size: int
    ) -> Iterator[Span]:
        """Chunks of whole pieces; a piece that is too long is cut at the finer separators, if there are any."""
        begin = 0
        for i in [i for i, tokens in enumerate(counts) if tokens >= size] if max(counts, default=0) >= size else ():
            yield from self._merge(text, edges[begin : i + 1], counts[begin:i], joint, size)
            if finer:
                yield from self._cut(text, edges[i], edges[i + 1], finer)
            else:
                yield Span(edges[i], edges[i + 1])
            begin = i + 1
        yield from self._merge(text, edges[begin:], counts[begin:], joint, size)

    def _merge(self, text: str, edges: Sequence[int], counts: Sequence[int], joint: int, size: int) -> Iterator[Span]:
        """Join neighbours up to the size; the end of one chunk, up to chunk_overlap, begins the next."""
        made = even_windows if self.balanced else windows
        for first, last in made(counts, joint, size, self.chunk_overlap):
            chunk = text[edges[first] : edges[last]]
            if kept := chunk.lstrip():
                begin = edges[last] - len(kept)
                yield Span(begin, begin + len(kept.rstrip()))


def windows(counts: Sequence[int], joint: int, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Which pieces make a chunk: first, and one behind the last. Between two pieces `joint` tokens are counted."""
    return filled(piece_sums(counts, joint), joint, size, overlap)


def even_windows(counts: Sequence[int], joint: int, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """The same with the smallest size that makes no more chunks."""
    sums = piece_sums(counts, joint)
    most = _number(filled(sums, joint, size, overlap), limit=len(counts))
    low, high = min(size, max(overlap + 1, sums[-1] // max(1, most) - joint)), size
    while low < high:
        middle = (low + high) // 2
        if _number(filled(sums, joint, middle, overlap), limit=most) <= most:
            high = middle
        else:
            low = middle + 1
    return filled(sums, joint, high, overlap)


def _number(found: Iterable[object], *, limit: int) -> int:
    """How many there are; counting ends behind the limit."""
    return sum(1 for _ in islice(found, limit + 1))


def piece_sums(counts: Sequence[int], joint: int) -> list[int]:
    return list(accumulate((tokens + joint for tokens in counts), initial=0))


def filled(sums: Sequence[int], joint: int, size: int, overlap: int, *, least: int = 1) -> Iterator[tuple[int, int]]:
    """Windows by the sums over all pieces before: where one ends is found by halving, not by going through it.

    `least` pieces at least are in the first one: more than one, if it goes on from earlier.
    """
    first, end = 0, len(sums) - 1
    while first < end:
        last = max(least, bisect_right(sums, sums[first] + joint + size) - 1)
        yield first, last
        if last == end:
            return
        kept = max(0, min(overlap, size - (sums[last + 1] - sums[last])))
        first, least = bisect_left(sums, sums[last] - joint - kept, first, last), last + 1


def sentence_edges(text: str) -> list[int]:
    """Where sentences begin, each with the white space before it, and the end of the text."""
    ends = (match.end() for match in _SENTENCE_END.finditer(text))
    return list(dict.fromkeys([0, *(end for end in ends if not _abbreviated(text, end)), len(text)]))


def _abbreviated(text: str, end: int) -> bool:
    return text[end - 1] == "." and bool(_ABBREVIATED.search(text[max(0, end - _LONGEST_ABBREVIATION) : end]))


def piece_edges(text: str, start: int, end: int, separator: str) -> list[int]:
    """Where the pieces begin, and the end: a separator begins its piece; an empty one separates all characters."""
    if not separator:
        return list(range(start, end + 1))
    width = len(separator)
    parts = text[start:end].split(separator)
    edges = [edge - width for edge in accumulate((len(part) + width for part in parts), initial=start)]
    edges[0] = start
    return edges if parts[0] else edges[1:]

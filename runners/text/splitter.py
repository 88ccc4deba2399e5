"""Cuts a text into chunks of at most so many tokens, with overlap: the same chunks as langchain's recursive splitter.

The semantics are those of RecursiveCharacterTextSplitter(keep_separator=True) of langchain-text-splitters 1.x with a
length function that counts a text's tokens together with its special ones, so that an empty text costs what those cost.
A test compares the two on real and on random texts.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from runners.text.tokens import TokenCounter

SEPARATORS = {"paragraphs": ("\n\n", "\n", " ", ""), "sentences": ("\n\n", "\n", ".")}


@dataclass(frozen=True)
class Splitter:
    """Cuts at the first separator that a text has, and what is still too long at the ones after it."""

    counter: TokenCounter
    chunk_size: int
    chunk_overlap: int
    separators: Sequence[str] = SEPARATORS["paragraphs"]

    def split(self, text: str) -> list[str]:
        """The chunks, stripped, none of them empty. A piece without a separator may be longer than chunk_size."""
        return list(self._split(text, self.separators))

    def _split(self, text: str, separators: Sequence[str]) -> Iterator[str]:
        at = next((i for i, s in enumerate(separators) if s == "" or s in text), len(separators) - 1)
        finer = separators[at + 1 :] if separators[at] else ()
        pieces = _pieces(text, separators[at])
        fitting: list[tuple[str, int]] = []
        for piece, tokens in zip(pieces, self.counter.count_all(pieces), strict=True):
            if tokens < self.chunk_size:
                fitting.append((piece, tokens))
                continue
            yield from self._merge(fitting)
            fitting = []
            if finer:
                yield from self._split(piece, finer)
            else:
                yield piece
        yield from self._merge(fitting)

    def _merge(self, pieces: Sequence[tuple[str, int]]) -> Iterator[str]:
        """Join neighbours up to chunk_size; the end of one chunk, up to chunk_overlap, begins the next."""
        joint = self.counter.count("")
        window: deque[tuple[str, int]] = deque()
        total = 0
        for piece, tokens in pieces:
            if total + tokens + (joint if window else 0) > self.chunk_size and window:
                yield from _joined(window)
                while total > self.chunk_overlap or (
                    total > 0 and total + tokens + (joint if window else 0) > self.chunk_size
                ):
                    total -= window[0][1] + (joint if len(window) > 1 else 0)
                    window.popleft()
            window.append((piece, tokens))
            total += tokens + (joint if len(window) > 1 else 0)
        yield from _joined(window)


def _pieces(text: str, separator: str) -> list[str]:
    """The text cut before each separator, which stays at the beginning of its piece; by characters for an empty one."""
    if not separator:
        return list(text)
    cuts = [match.start() for match in re.finditer(re.escape(separator), text)]
    edges = [0, *cuts, len(text)]
    return [piece for a, b in pairwise(edges) if (piece := text[a:b])]


def _joined(window: Sequence[tuple[str, int]]) -> Iterator[str]:
    if chunk := "".join(piece for piece, _ in window).strip():
        yield chunk

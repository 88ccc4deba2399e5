"""Texts that are read block by block, from any place: files that may be larger than memory.

A text is what Python's text mode gives: UTF-8, every kind of line end as a newline. Offsets are in its characters.
"""

from __future__ import annotations

import codecs
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = 1 << 20
"""Bytes that are read at once."""


class NotText(Exception):
    """A byte that no UTF-8 text has at this place."""

    def __init__(self, position: int, byte: int) -> None:
        super().__init__(f"not UTF-8: byte {position} is 0x{byte:02x}")


@dataclass
class TextFile:
    """A file's text. Each block that was read once can be gone back to."""

    path: Path
    _characters: array[int] = field(default_factory=lambda: array("q", [0]))
    _bytes: array[int] = field(default_factory=lambda: array("q", [0]))

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[str]:
        """The text from one character to another, in blocks, none of them empty. Raises NotText and OSError."""
        at = bisect_right(self._characters, start) - 1
        position = self._characters[at]
        for block in self._from(at):
            head, position = max(0, start - position), position + len(block)
            tail = len(block) if end is None or position <= end else len(block) - (position - end)
            if piece := block[head:tail]:
                yield piece
            if end is not None and position >= end:
                return

    def read(self, start: int, end: int) -> str:
        """The text between two characters."""
        return "".join(self.blocks(start, end))

    def _from(self, at: int) -> Iterator[str]:
        """Whole blocks from the one with this number on; notes where they begin."""
        characters, begin = self._characters[at], self._bytes[at]
        held = b""
        with self.path.open("rb") as file:
            file.seek(begin)
            while True:
                fresh = file.read(_BLOCK)
                text, used = _decoded(held + fresh, begin, final=not fresh)
                held, begin = (held + fresh)[used:], begin + used
                text = text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
                characters += len(text)
                if text and begin > self._bytes[-1]:
                    self._characters.append(characters)
                    self._bytes.append(begin)
                if text:
                    yield text
                if not fresh:
                    return


def _decoded(data: bytes, position: int, *, final: bool) -> tuple[str, int]:
    """The text of whole characters and line ends, and how many bytes it takes."""
    try:
        text, used = codecs.utf_8_decode(data, "strict", final)
    except UnicodeDecodeError as error:
        raise NotText(position + error.start, data[error.start]) from None
    if text.endswith("\r") and not final:
        return text[:-1], used - 1
    return text, used


@dataclass(frozen=True)
class TextInMemory:
    """A text at hand, in the same form."""

    text: str
    block: int = _BLOCK

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[str]:
        end = len(self.text) if end is None else end
        for begin in range(start, end, self.block):
            yield self.text[begin : min(end, begin + self.block)]


Source = TextFile | TextInMemory


def first_of(source: Source, words: Sequence[str], start: int, end: int | None) -> int:
    """The number of the first of the words that the text holds; that of the last, if it holds none."""
    best, tail = len(words) - 1, ""
    longest = max(map(len, words), default=1)
    for block in source.blocks(start, end):
        text = tail + block
        best = next((i for i, word in enumerate(words[:best]) if word in text), best)
        if best == 0:
            break
        tail = text[-(longest - 1) :] if longest > 1 else ""
    return best


def find(source: Source, word: str, start: int, end: int | None) -> int | None:
    """Where a word is found first."""
    tail, position = "", start
    for block in source.blocks(start, end):
        text = tail + block
        if (found := text.find(word)) >= 0:
            return position - len(tail) + found
        position += len(block)
        tail = text[-(len(word) - 1) :] if len(word) > 1 else ""
    return None

"""Counts a text's tokens as the sum over its words, each of which the tokenizer sees once.

A text is taken apart at its single spaces and newlines, which costs next to nothing, and each part is looked up. Parts
of which the count is known only together with a neighbour (several spaces in a row, white space at a line's end) count
`_TOGETHER`, so that the sum tells: such a text is taken apart more carefully, by a regular expression.
"""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from runners.text.methods import Method
from runners.text.patterns import shape

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TOGETHER = 1 << 48
_LONG = 128
"""Characters; longer parts are not remembered."""
_MANY = 300_000
"""Parts; with more than this remembered, all is forgotten: some 40 MB."""
_SEGMENT = 1 << 16
"""Characters that are taken apart at once."""
_BAR = "▁"
_BETWEEN_WORDS = re.compile(rf"(?<=[^\s{_BAR}]) (?=[^\s{_BAR}])")


class Sums(ABC):
    """Counts without special tokens. The tokenizer is made when a part is new."""

    def __init__(self, method: Method, tokenizer: Callable[[], Tokenizer], known: dict[str, int]) -> None:
        self._method, self._tokenizer = method, tokenizer
        self.known = known
        """The count of each part that was met; it may be kept, and given to another of the same tokenizer."""
        self._careful: dict[str, int] = {}
        self._remember_signs()

    def count(self, text: str, start: int, end: int) -> int:
        """Tokens of text[start:end], as a text of its own."""
        total, first = 0, True
        while end - start > 2 * _SEGMENT and (cut := _BETWEEN_WORDS.search(text, start + _SEGMENT, end)):
            total += self._segment(text[start : cut.start()], first=first)
            start, first = cut.end(), False
        return total + (self._segment(text[start:end], first=first) if start < end else 0)

    def _segment(self, text: str, *, first: bool) -> int:
        """Tokens of a text, or of what follows a space within one (the space is not in it but counted)."""
        taken = self._take_apart(text, first=first)
        if taken is not None:
            parts, more = taken
            try:
                total = sum(map(self.known.__getitem__, parts), more)
            except KeyError:
                total = more + (sum(map(self.known.__getitem__, parts)) if self._learn(parts) else _TOGETHER)
            if total < _TOGETHER:
                return total
        return self._carefully(text, first=first)

    def _learn(self, parts: Iterable[str]) -> bool:
        """Count the new ones; False if one is too long to be remembered."""
        known = self.known
        if len(known) > _MANY:
            known.clear()
            self._remember_signs()
        new = set(parts) - known.keys()
        if max(map(len, new), default=0) > _LONG:
            return False
        for part in new:
            known[part] = self._part(part)
        return True

    def _carefully(self, text: str, *, first: bool) -> int:
        careful, total = self._careful, 0
        for unit in self._units(text, first=first):
            tokens = careful.get(unit)
            if tokens is None:
                tokens = self._unit(unit)
                if len(careful) > _MANY:
                    careful.clear()
                if len(unit) <= _LONG:
                    careful[unit] = tokens
            total += tokens
        return total

    @abstractmethod
    def _remember_signs(self) -> None:
        """Put down what `_part` is not asked."""

    @abstractmethod
    def _take_apart(self, text: str, *, first: bool) -> tuple[Sequence[str], int] | None:
        """The parts, and the tokens that come to theirs; None if it takes more care."""

    @abstractmethod
    def _part(self, part: str) -> int:
        """The tokens of a part, or _TOGETHER."""

    @abstractmethod
    def _units(self, text: str, *, first: bool) -> Sequence[str]:
        """The text taken apart with care; tokens of the units add up."""

    @abstractmethod
    def _unit(self, unit: str) -> int:
        """The tokens of a unit."""


class WordSums(Sums):
    """For SentencePiece's BPE: no token reaches over the beginning of a run of ▁, or past a newline.

    A part is a word that stands behind a space, or a newline and the word behind it.
    """

    _UNIT = re.compile(f"{_BAR}*[^{_BAR}\n]+|{_BAR}+|\n")

    def _remember_signs(self) -> None:
        self.known[""] = _TOGETHER

    def _take_apart(self, text: str, *, first: bool) -> tuple[Sequence[str], int] | None:
        if _BAR in text or (first and text.startswith(" ")):
            return None
        body, more = text.replace("\n", " \n"), 0
        if first and text.startswith("\n"):
            body, more = body[1:], 0 if self._method.lead == "never" else self._sign(_BAR)
        elif first and self._method.lead == "never":
            body, more = "\n" + body, -self._sign("\n")
        return body.split(" "), more

    def _sign(self, sign: str) -> int:
        """The tokens of a ▁ or a newline alone. A part holds no ▁, so that both can be kept among them."""
        if sign not in self.known:
            self.known[sign] = self._unit(sign)
        return self.known[sign]

    def _part(self, part: str) -> int:
        if part == "\n":
            return self._unit(part)
        return self._sign("\n") + self._unit(part[1:]) if part.startswith("\n") else self._unit(_BAR + part)

    def _units(self, text: str, *, first: bool) -> Sequence[str]:
        text = text.replace(" ", _BAR)
        lead = self._method.lead
        if not first or lead == "always" or (lead == "unless there" and not text.startswith(_BAR)):
            text = _BAR + text
        return self._UNIT.findall(text)

    def _unit(self, unit: str) -> int:
        return len(self._tokenizer().model.tokenize(unit))


class PieceSums(Sums):
    """For byte-level BPE: no piece reaches over the space between two words, or past a single newline between two.

    A part is a word that stands behind a space; behind `_BARE`, one that stands at a line's beginning; behind `_HEAD`,
    a text's first, with the newlines before it. If a newline ends a part, it is the only white space there.
    """

    _BARE, _HEAD = "\0", "\1"
    _UNIT_BY_LINES = re.compile(r"\s*\S+(?:(?!\n\S)[^\S ]\s*\S+)*(?:\n(?=\S)|\s+\Z)?|\s+")
    _UNIT = re.compile(r"\s*\S+(?:[^\S ]\s*\S+)*(?:\s+\Z)?|\s+")

    def __init__(self, method: Method, tokenizer: Callable[[], Tokenizer], known: dict[str, int]) -> None:
        super().__init__(method, tokenizer, known)
        self._pieces = re.compile(method.source) if method.source else None
        self._of_pieces: dict[str, int] = {}

    def _remember_signs(self) -> None:
        self.known[""] = _TOGETHER

    def _take_apart(self, text: str, *, first: bool) -> tuple[Sequence[str], int] | None:
        if self._BARE in text or self._HEAD in text:
            return None
        by_lines = self._method.cut_after_newline
        solid = text.lstrip("\n") if first and by_lines else text
        if first and (not solid or solid.startswith(" ")):
            return None
        parts = (solid.replace("\n", f"\n {self._BARE}") if by_lines else solid).split(" ")
        if first:
            newlines = text[: len(text) - len(solid)]
            parts[0] = (self._BARE if by_lines and not newlines else self._HEAD) + newlines + parts[0]
        return parts, 0

    def _part(self, part: str) -> int:
        mark = part[0] if part[0] in (self._BARE, self._HEAD) else ""
        words = part[len(mark) :]
        body = words.removesuffix("\n") if self._method.cut_after_newline else words
        if not body or body[-1].isspace() or (mark == self._BARE and body[0].isspace()):
            return _TOGETHER
        return self._unit(words if mark else f" {words}")

    def _units(self, text: str, *, first: bool) -> Sequence[str]:
        unit = self._UNIT_BY_LINES if self._method.cut_after_newline else self._UNIT
        return unit.findall(text if first else f" {text}")

    def _unit(self, unit: str) -> int:
        """By the expression's pieces where they can be found here, else by the tokenizer."""
        shaped = shape(unit) if self._pieces else None
        if self._pieces and shaped and (not self._method.nfc or unicodedata.is_normalized("NFC", unit)):
            spans = [match.span() for match in self._pieces.finditer(shaped)]
            if sum(end - start for start, end in spans) == len(unit):
                return sum(self._piece(unit[start:end]) for start, end in spans)
        return len(self._tokenizer().encode(unit, add_special_tokens=False))

    def _piece(self, piece: str) -> int:
        tokens = self._of_pieces.get(piece)
        if tokens is None:
            written = piece.encode().decode("latin-1").translate(_WRITTEN_BYTES)
            tokens = len(self._tokenizer().model.tokenize(written))
            if len(self._of_pieces) > _MANY:
                self._of_pieces.clear()
            self._of_pieces[piece] = tokens
        return tokens


def _written_bytes() -> dict[int, str]:
    """How byte-level vocabularies write bytes: printable ones of Latin-1 as they are, the others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(0x100 + i) for i, byte in enumerate(others)}


_WRITTEN_BYTES = _written_bytes()

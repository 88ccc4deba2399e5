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
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from runners.text.methods import Method
from runners.text.patterns import shape

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TOGETHER = 1 << 48
_LONG = 128
"""Characters; longer parts are not remembered."""
_MANY = 300_000
"""Parts; with more than this remembered, all is forgotten: some 40 MB."""
_SEGMENT = 1 << 11
"""Characters that are taken apart at once, at least: where care is needed, it is needed for no more than twice that."""
_BAR = "▁"
BETWEEN_WORDS = re.compile(rf"(?<=[^\s{_BAR}]) (?=[^\s{_BAR}])")
"""The space between two words: every method may cut before it."""


class Sums(ABC):
    """Counts without special tokens. The tokenizer is made when a part is new."""

    def __init__(
        self, method: Method, tokenizer: Callable[[], Tokenizer], known: dict[str, int], units: dict[str, int]
    ) -> None:
        self._method, self._tokenizer = method, tokenizer
        self.known, self.units = known, units
        """The count of each part and unit that was met; they may be kept, and given to another of this tokenizer."""
        self.asked = False
        """Whether anything was new that the next process would have to ask the tokenizer, too."""
        self._remember_signs()

    @cached_property
    def model(self) -> Callable[[str], Sequence[object]]:
        """Makes tokens of what the steps before it leave of a text."""
        tokenize: Callable[[str], Sequence[object]] = self._tokenizer().model.tokenize
        return tokenize

    def count(self, text: str, start: int, end: int, *, first: bool = True) -> int:
        """Tokens of text[start:end], as a text of its own; if not first, as what follows a space, which is counted."""
        total = 0
        while end - start > 2 * _SEGMENT and (cut := BETWEEN_WORDS.search(text, start + _SEGMENT, end)):
            total += self._segment(text[start : cut.start()], first=first)
            start, first = cut.end(), False
        return total + (self._segment(text[start:end], first=first) if start < end else 0)

    def count_within(self, text: str, start: int, end: int) -> int:
        """Tokens that text[start:end] adds to the text before it, if it begins with the white space between words."""
        return self.count(text, start, end)

    def _segment(self, text: str, *, first: bool) -> int:
        """Tokens of a text, or of what follows a space within one (the space is not in it but counted)."""
        taken = self._take_apart(text, first=first)
        if taken is not None:
            parts, more = taken
            try:
                total = sum(map(self.known.__getitem__, parts), more)
            except KeyError:
                total = more + (sum(map(self.known.__getitem__, parts)) if self._learn(parts) else _TOGETHER)
            if total < _TOGETHER // 2:  # what comes to the parts' tokens may be negative
                return total
        return self._carefully(text, first=first)

    def _learn(self, parts: Iterable[str]) -> bool:
        """Count the new ones; False if one is too long to be remembered."""
        known = self.known
        if len(known) > _MANY:
            known.clear()
            self._remember_signs()
        new = [part for part in set(parts) if part not in known]
        if max(map(len, new), default=0) > _LONG:
            return False
        for part in new:
            known[part] = self._part(part)
        return True

    def _carefully(self, text: str, *, first: bool) -> int:
        careful, total = self.units, 0
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

    def count_within(self, text: str, start: int, end: int) -> int:
        """The ▁ that is put before a text of its own does not count, where the text goes on."""
        lead = self._method.lead if 0 < start < end else "never"
        if lead == "always" and text[start] == " ":
            return self.count(text, start + 1, end)
        led = lead != "never" and text[start] == "\n"
        return self.count(text, start, end) - (self._sign(_BAR) if led else 0)

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
        self.asked = True
        return len(self.model(unit))


class PieceSums(Sums):
    """For byte-level BPE: no piece reaches over the space between two words, nor over one end of newlines.

    A part is a word that stands behind a space, or `_BARE` and one that does not, each with the newlines before it or
    behind it, as the expression's lines are cut. A part's own white space must be all that there is at that place, and
    none may stand where the next part begins; else the two count together.
    """

    _BARE = "\0"
    _UNITS: ClassVar = {
        "before": re.compile(r"\s*\S+(?:[^\S \n]\s*\S+)*(?:\s+\Z)?|\s+"),
        "after": re.compile(r"\s*\S+(?:(?!\n+[^\s/])[^\S ]\s*\S+)*(?:\n+(?=[^\s/])|\s+\Z)?|\s+"),
        "": re.compile(r"\s*\S+(?:[^\S ]\s*\S+)*(?:\s+\Z)?|\s+"),
    }

    def __init__(
        self, method: Method, tokenizer: Callable[[], Tokenizer], known: dict[str, int], units: dict[str, int]
    ) -> None:
        super().__init__(method, tokenizer, known, units)
        self._lines = method.lines
        self._expression = re.compile(method.source) if method.source else None
        self._pieces = _Pieces(self)

    def _remember_signs(self) -> None:
        self.known[""] = _TOGETHER

    def _take_apart(self, text: str, *, first: bool) -> tuple[Sequence[str], int] | None:
        if self._BARE in text or (first and text.startswith(" ")):
            return None
        newlines = ""
        if self._lines == "before":
            body = text.replace("\n", " \n")
            while "\n \n" in body:
                body = body.replace("\n \n", "\n\n")
        elif self._lines == "after":
            newlines = text[: len(text) - len(text.lstrip("\n"))] if first else ""
            body = text[len(newlines) :].replace("\n", f"\n {self._BARE}")
            while f"\n {self._BARE}\n" in body:
                body = body.replace(f"\n {self._BARE}\n", "\n\n")
        else:
            body = text
        parts = body.split(" ")
        if first and self._lines == "before" and text.startswith("\n"):
            del parts[0]
        elif first:
            parts[0] = self._BARE + newlines + parts[0]
        return parts, 0

    def _part(self, part: str) -> int:
        bare = part.startswith(self._BARE)
        words = part[1:] if bare else part
        if self._lines == "after":
            solid = words.rstrip("\n")
            if bare and (words.startswith("/") or (words[:1].isspace() and not words.startswith("\n"))):
                return _TOGETHER
        else:
            solid = words
        if not solid or solid[-1].isspace():
            return _TOGETHER
        stands_alone = bare or (self._lines == "before" and words.startswith("\n"))
        return self._unit(words if stands_alone else f" {words}")

    def _units(self, text: str, *, first: bool) -> Sequence[str]:
        return self._UNITS[self._lines].findall(text if first else f" {text}")

    def _unit(self, unit: str) -> int:
        """By the expression's pieces where they can be found here, else by the tokenizer."""
        self.asked = True
        pieces = self._pieces_of(unit) if self._expression else None
        if pieces and len("".join(pieces)) == len(unit):
            return sum(map(self._pieces.__getitem__, pieces))
        return len(self._tokenizer().encode(unit, add_special_tokens=False))

    def _pieces_of(self, unit: str) -> Sequence[str] | None:
        assert self._expression is not None
        if unit.isascii():
            return self._expression.findall(unit)
        shaped = shape(unit)
        if shaped is None or (self._method.nfc and not unicodedata.is_normalized("NFC", unit)):
            return None
        return [unit[match.start() : match.end()] for match in self._expression.finditer(shaped)]


class _Pieces(dict[str, int]):
    """The tokens of each piece that was met."""

    def __init__(self, sums: PieceSums) -> None:
        super().__init__()
        self._sums = sums

    def __missing__(self, piece: str) -> int:
        if piece.isascii() and piece.isprintable():
            written = piece.replace(" ", _WRITTEN_BYTES[0x20])
        else:
            written = piece.encode().decode("latin-1").translate(_WRITTEN_BYTES)
        if len(self) > _MANY:
            self.clear()
        tokens = self[piece] = len(self._sums.model(written))
        return tokens


def _written_bytes() -> dict[int, str]:
    """How byte-level vocabularies write bytes: printable ones of Latin-1 as they are, the others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(0x100 + i) for i, byte in enumerate(others)}


_WRITTEN_BYTES = _written_bytes()

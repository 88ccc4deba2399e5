"""What a pre-tokenizer's regular expression can match: where text may be cut, and the same pieces by Python's `re`.

Byte-level BPE tokenizers cut a text with an expression such as ` ?\\p{L}+|\\s+(?!\\S)|\\s+` before anything is merged.
`read` proves two things of such an expression, by the characters that can stand side by side in one match (the pairs
of Glushkov's construction; what it finds is never less than what is possible):

- no match holds a space behind a character that is no white space, so that text may be cut between two words;
- either the same of a newline, or no match holds such a character behind a newline, so that lines may be cut apart.

It also writes the expression again for Python's `re`, with each character beyond ASCII replaced by a stand-in for its
general category (`shape`). Characters whose category has changed since Unicode 3.2, or that fold to ASCII, have none:
different Unicode tables would disagree on them, and the tokenizer itself is asked.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

_SPACE, _NEWLINE, _OTHER_SPACE, _SLASH, _OTHER_SOLID = 1, 2, 4, 8, 16
_BLANK = _SPACE | _NEWLINE | _OTHER_SPACE
_SOLID = _SLASH | _OTHER_SOLID
_ANY = _BLANK | _SOLID
_CATEGORIES = (
    *("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"),
    *("Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cf"),
)
_STAND_IN = {category: chr(0xE000 + i) for i, category in enumerate(_CATEGORIES)}
_UNKNOWN = "\ue0ff"
_ASCII = [chr(code) for code in range(128)]
_ASCII_BLANK = "\t\n\x0b\x0c\r "
_BLANKS = re.escape(_ASCII_BLANK) + "".join(_STAND_IN[category] for category in ("Zs", "Zl", "Zp"))
_OF_ONE = {" ": _SPACE, "\n": _NEWLINE, "/": _SLASH}
_WHOLE = {r"\s": _BLANK, r"\S": _SOLID, " ": _SPACE, r"\n": _NEWLINE, "/": _SLASH, r"\/": _SLASH}
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_LINE_ENDS, _LAST_BLANK = r"\s*[\r\n]+", r"\s+(?!\S)"
_ALL_BLANK = (r"\s+", r"\s")


class Unreadable(Exception):
    """An expression of a kind that is not analysed."""


@dataclass(frozen=True)
class Pattern:
    """What is proven of an expression."""

    cut_before_space: bool
    """Text may be cut before a space that stands behind a character other than white space."""
    cut_before_newline: bool
    """The same of a newline."""
    cut_after_newlines: bool
    """Text may be cut behind newlines, if they stand between characters other than white space, no slash behind."""
    covers_blanks: bool
    """All white space is matched by something."""
    source: str | None
    """For Python's `re`, on shapes; None if it cannot be written so."""


def read(expression: str) -> Pattern:
    """Analyse an expression in Oniguruma's syntax. Raises Unreadable for one that uses more than pre-tokenizers do."""
    reader = _Reader(expression)
    reader.alternatives()
    if reader.at < len(expression):
        raise Unreadable(expression[reader.at :])
    return Pattern(
        cut_before_space=not reader.beside(_SOLID, _SPACE),
        cut_before_newline=not reader.beside(_SOLID, _NEWLINE),
        cut_after_newlines=not reader.beside(_NEWLINE, _OTHER_SOLID) and not reader.looks_past_newlines,
        covers_blanks=any(part in _ALL_BLANK for part in expression.rsplit("|", 2)[1:]),
        source="".join(reader.written) if reader.writable else None,
    )


def shape(text: str) -> str | None:
    """The text with stand-ins for what is not ASCII, character by character; None if one of them has none."""
    if text.isascii():
        return text
    shaped = text.translate(_SHAPES)
    return None if _UNKNOWN in shaped else shaped


class _Shapes(dict[int, str]):
    def __missing__(self, code: int) -> str:
        found = self[code] = _shape_of(chr(code))
        return found


def _shape_of(character: str) -> str:
    if character.isascii():
        return character
    category = unicodedata.category(character)
    folded = character.casefold() + character.upper() + character.lower()
    if category != unicodedata.ucd_3_2_0.category(character) or any(letter.isascii() for letter in folded):
        return _UNKNOWN
    return _STAND_IN.get(category, _UNKNOWN)


_SHAPES = _Shapes()


@dataclass(frozen=True)
class _Part:
    """A part of an expression: whether it may match nothing, and what its matches can begin and end with."""

    empty: bool
    first: int
    last: int


_NOTHING = _Part(True, 0, 0)


@dataclass
class _Reader:
    """Recursive descent; takes down what can stand side by side, and writes the expression again."""

    text: str
    at: int = 0
    written: list[str] = field(default_factory=list)
    writable: bool = True
    looks_past_newlines: bool = False
    """Whether it may depend on what follows, where newlines end."""
    _ends_lines: bool = False
    _beside: dict[int, int] = field(default_factory=lambda: dict.fromkeys((1, 2, 4, 8, 16), 0))

    def beside(self, left: int, right: int) -> bool:
        return any(kind & left and follows & right for kind, follows in self._beside.items())

    def _meet(self, left: int, right: int) -> None:
        for kind in self._beside:
            if kind & left:
                self._beside[kind] |= right

    def alternatives(self) -> _Part:
        found = self._sequence()
        while self._take("|"):
            self.written.append("|")
            other = self._sequence()
            found = _Part(found.empty or other.empty, found.first | other.first, found.last | other.last)
        return found

    def _sequence(self) -> _Part:
        self._ends_lines |= self._ends(_LINE_ENDS)
        if self._ends(_LAST_BLANK):
            # Where an alternative before this one takes every newline there is, this one is not tried on them.
            self.looks_past_newlines |= not self._ends_lines
            self.at += len(_LAST_BLANK)
            self.written.append(f"[{_BLANKS}]+(?![^{_BLANKS}])")
            self._meet(_BLANK, _BLANK)
            return _Part(False, _BLANK, _BLANK)
        found = _NOTHING
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            part = self._repeated()
            self._meet(found.last, part.first)
            found = _Part(
                found.empty and part.empty,
                found.first | (part.first if found.empty else 0),
                part.last | (found.last if part.empty else 0),
            )
        return found

    def _ends(self, alternative: str) -> bool:
        """Whether this alternative follows, whole, at the end of a group or before the next."""
        behind = self.at + len(alternative)
        return self.text.startswith(alternative, self.at) and self.text[behind : behind + 1] in ("", "|")

    def _repeated(self) -> _Part:
        part = self._atom()
        quantifier = re.compile(r"[?*+][?+]?|\{(\d+)(,?)(\d*)\}(?![?+])").match(self.text, self.at)
        if quantifier is None:
            if self.text[self.at : self.at + 1] in ("?", "*", "+", "{"):
                raise Unreadable(self.text[self.at :])
            return part
        self.at = quantifier.end()
        self.written.append(quantifier[0])
        if quantifier[0][0] != "?" and quantifier[0] != "{1}":
            self._meet(part.last, part.first)
        may_be_absent = quantifier[0][0] in "?*" or quantifier[1] == "0"
        return _Part(part.empty or may_be_absent, part.first, part.last)

    def _atom(self) -> _Part:
        for opening in ("(?i:", "(?:"):
            if self._take(opening):
                return self._group(opening)
        if self._take("(?"):
            raise Unreadable("a group of another kind")
        if self._take("("):
            return self._group("(?:")
        if self._take("["):
            return _one(self._class())
        if self.text[self.at] in ".^$?*+{}]":
            raise Unreadable(self.text[self.at :])
        kinds, members = self._character()
        self.written.append(f"[{members}]" if members is not None else "")
        return _one(kinds)

    def _group(self, opening: str) -> _Part:
        self.written.append(opening)
        found = self.alternatives()
        if not self._take(")"):
            raise Unreadable("a group that does not end")
        self.written.append(")")
        return found

    def _class(self) -> int:
        """A character class behind its bracket: the kinds of characters that it may match."""
        negated = self._take("^")
        kinds, whole, parts = 0, 0, []
        while not self._take("]"):
            if self.at >= len(self.text) or self.text.startswith(("[", "&&", "]"), self.at):
                raise Unreadable("a class within a class")
            begin = self.at
            some, members = self._character()
            if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
                low, high = self._range(begin)
                some, members = _kinds_between(low, high), f"{re.escape(low)}-{re.escape(high)}"
                self.writable &= high.isascii()
                whole |= _kinds_between(low, high) & (_SPACE | _NEWLINE | _SLASH)
            whole |= _WHOLE.get(self.text[begin : self.at], 0)
            kinds |= some
            self.writable &= members is not None and not members.startswith("^")
            parts.append(members or "")
        self.written.append(f"[{'^' if negated else ''}{''.join(parts)}]")
        return _ANY & ~whole if negated else kinds

    def _range(self, begin: int) -> tuple[str, str]:
        low = self._literal(self.text[begin : self.at])
        self.at += 1
        begin = self.at
        self._character()
        high = self._literal(self.text[begin : self.at])
        if low > high:
            raise Unreadable("a range that runs backwards")
        return low, high

    def _literal(self, written: str) -> str:
        literal = _ESCAPED.get(written[1:], written[1:]) if written.startswith("\\") else written
        if len(literal) != 1 or (written.startswith("\\") and literal.isalnum()):
            raise Unreadable(written)
        return literal

    def _character(self) -> tuple[int, str | None]:
        """One character or escape: the kinds that it may match, and how to write it within a class."""
        if not self._take("\\"):
            return self._plain(self.text[self.at])
        escape = self.text[self.at : self.at + 1]
        if escape in ("p", "P"):
            return self._property(escape == "P")
        if known := _SHORTHANDS.get(escape):
            self.at += 1
            return known()
        if (escape.isalnum() and escape not in _ESCAPED) or not escape:
            raise Unreadable(f"\\{escape}")
        return self._plain(_ESCAPED.get(escape, escape))

    def _plain(self, character: str) -> tuple[int, str]:
        self.at += 1
        self.writable &= character.isascii()
        return _kind_of(character), re.escape(character)

    def _property(self, negated: bool) -> tuple[int, str | None]:
        name = re.compile(r"[pP]\{([A-Z][a-z]?)\}").match(self.text, self.at)
        if name is None:
            raise Unreadable(self.text[self.at :])
        self.at = name.end()
        members = "".join(re.escape(c) for c in _ASCII if unicodedata.category(c).startswith(name[1]))
        members += "".join(sign for category, sign in _STAND_IN.items() if category.startswith(name[1]))
        if name[1][0] in "ZC" or negated:
            self.writable = False
            return _ANY, None
        return _SOLID if "/" in members else _OTHER_SOLID, members

    def _take(self, words: str) -> bool:
        found = self.text.startswith(words, self.at)
        self.at += len(words) if found else 0
        return found


def _one(kinds: int) -> _Part:
    return _Part(False, kinds, kinds)


def _kind_of(character: str) -> int:
    if kind := _OF_ONE.get(character):
        return kind
    return _OTHER_SPACE if character.isspace() else _OTHER_SOLID


def _kinds_between(low: str, high: str) -> int:
    inside = sum(kind for character, kind in _OF_ONE.items() if low <= character <= high)
    return inside | _OTHER_SPACE | _OTHER_SOLID


_DIGITS = "0-9" + _STAND_IN["Nd"]
_SHORTHANDS: dict[str, Callable[[], tuple[int, str | None]]] = {
    "s": lambda: (_BLANK, _BLANKS),
    "S": lambda: (_SOLID, f"^{_BLANKS}"),
    "d": lambda: (_OTHER_SOLID, _DIGITS),
}

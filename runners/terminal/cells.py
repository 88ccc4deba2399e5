"""How wide text is in a terminal, without rich, which takes longer to import than a list takes to print."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any


def cells(text: str) -> int:
    """Columns: two for a wide character, none for a mark that combines with the one before."""
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def padded(text: str, width: int, *, right: bool = False) -> str:
    """With blanks up to this width; at the right edge if `right`."""
    blanks = " " * (width - cells(text))
    return blanks + text if right else text + blanks


def cut(text: str, width: int) -> str:
    """At most so wide; … where something is left out."""
    if cells(text) <= width:
        return text
    kept, taken = "", 1
    for character in text:
        taken += _cells(character)
        if taken > width:
            break
        kept += character
    return kept.rstrip() + "…"


def plain(text: str) -> str:
    r"""On one line, with what a terminal would obey or not show written out, as in \\x1b."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def plain_in(value: Any) -> Any:
    """The same for every text in lists and mappings, their names too."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {plain_in(name): plain_in(inner) for name, inner in value.items()}
    return [plain_in(inner) for inner in value] if isinstance(value, list | tuple) else value


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1

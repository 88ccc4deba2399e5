"""Width in a terminal, reckoned without rich and as rich reckons it."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from runners.terminal.cells import cells, cut, padded, plain

TEXTS = ["", "plain", "日本語のタグ", "Köln", "e\u0301", "ﾊﾝｶｸ", "한국어", "zero\u200bwidth", "a\u0300b\u0301"]


@pytest.mark.parametrize("text", TEXTS)
def test_it_is_as_wide_as_rich_says(text: str) -> None:
    assert cells(text) == cell_len(text)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("width", [1, 3, 4, 20])
def test_what_is_cut_and_filled_up_has_its_width(text: str, width: int) -> None:
    assert cells(cut(text, width)) <= width
    for right in (False, True):
        assert cells(padded(cut(text, width), width, right=right)) == width


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert plain("a\x1b[31mb\nc\u200bd") == r"a\x1b[31mb\nc\u200bd"
    assert plain("日本 é") == "日本 é"

"""Which lines of a log are told of."""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.reporting.logs import MOST, excerpts_of, level_of


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("(APIServer pid=1) WARNING 11-21 20:09:39 [cpu.py:224] failed to find it", "warning"),
        ("INFO 11-21 20:09:39 [a.py:1] non-default args: {'on_error': 'x'}", ""),
        ("ERROR 11-21 20:09:39 [a.py:1] it broke", "error"),
        ("0.00.440.155 W slot   operator(): n_past was set to 3", "warning"),
        ("0.00.440.155 E srv: model not found", "error"),
        ("0.00.440.155 I srv: use --no-ui (or deprecated --no-webui)", ""),
        ("W1121 20:09:52.770000 23940 triton.py:53] Triton not available", "warning"),
        ("[W1121 20:09:50.505468152 utils.cpp:68] NUMA binding", "warning"),
        ("Traceback (most recent call last):", "error"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "error"),
        ("/a/b.py:24: DeprecationWarning: gone soon", "warning"),
        ("listening on http://127.0.0.1:50183", ""),
    ],
)
def test_a_line_is_as_grave_as_it_says_or_sounds(line: str, level: str) -> None:
    assert level_of(line) == level


def test_places_have_what_stands_around_them_and_very_many_are_bounded(tmp_path: Path) -> None:
    lines = [f"ERROR {i}" if i % 10 == 5 else f"line {i}" for i in range(1, 5001)]
    (tmp_path / "engine.log").write_text("\n".join(lines) + "\n" + "x" * 5000)
    (excerpts,) = excerpts_of(tmp_path, failed=False)
    assert [line.text for line in excerpts.places[0]] == ["line 3", "line 4", "ERROR 5", "line 6", "line 7"]
    assert excerpts.places[0][2].number == 5
    assert excerpts.places[-1][2].text == "ERROR 4995"
    assert len(excerpts.places) == MOST
    assert excerpts.left_out == 500 - MOST
    assert excerpts.tail == []


def test_the_end_of_the_log_of_a_failed_run(tmp_path: Path) -> None:
    (tmp_path / "engine.log").write_bytes(b"all is well\n" * 50 + b"\xff last words")
    (excerpts,) = excerpts_of(tmp_path, failed=True)
    assert excerpts.places == []
    assert excerpts.tail[-1].text == "\ufffd last words"
    assert excerpts_of(tmp_path, failed=False) == []

"""The experiment log as lines: aligned, and fitted to the terminal."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.cells import cell_len

from runners.ledger import Ledger, Row
from runners.terminal.moments import moment
from runners.terminal.runs_view import runs_lines, totals_lines
from tests.emulators.many_runs import synthetic

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    ledger = Ledger(tmp_path)
    ledger.insert_all(synthetic(12), origin="elsewhere")
    return ledger.rows()


def test_columns_stand_under_their_names_and_figures_to_the_right(rows: list[Row]) -> None:
    header, *lines = runs_lines(rows, so_far_usd={})
    end = header.index("cost") + len("cost")
    for row, line in zip(rows, lines, strict=True):
        assert line[:end].endswith(f"${row.total_usd:.2f}")
        assert line[header.index("status") :].startswith(row.status)
        assert line.endswith(row.engine or "?")


@pytest.mark.parametrize("short_of", [1, 8, 15])
def test_where_the_terminal_is_narrow_the_last_columns_are_cut(rows: list[Row], short_of: int) -> None:
    whole = list(runs_lines(rows, so_far_usd={}))
    width = max(map(len, whole)) - short_of
    lines = list(runs_lines(rows, so_far_usd={}, width=width))
    assert max(map(len, lines)) <= width
    assert any("…" in line for line in lines)
    for row, line in zip(rows, lines[1:], strict=True):
        assert line.startswith(row.run_id)


def test_wide_characters_keep_columns_in_line_and_nothing_is_obeyed(rows: list[Row]) -> None:
    odd = [replace(rows[0], tags=("日本語のタグ",)), replace(rows[1], tags=("x\x1b[31m\ny",))]
    odd = [replace(row, gpu="A40", gpu_count=2) for row in odd]
    header, first, second = runs_lines(odd, so_far_usd={})
    at = cell_len(header[: header.index("gpu")])
    assert {cell_len(line[: line.rindex(f"{row.gpu} ×")]) for line, row in zip((first, second), odd, strict=True)} == {
        at
    }
    assert r"x\x1b[31m\ny" in second


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 120])
def test_lines_are_never_wider_than_the_terminal_and_say_what_is_left_out(rows: list[Row], width: int) -> None:
    header, *lines = runs_lines(rows, so_far_usd={}, width=width)
    assert [line for line in (header, *lines) if cell_len(line) > width] == []
    assert header.startswith("run")
    assert lines[-1].startswith("too narrow for") == ("engine" not in header)


def test_small_dollars_that_stand_below_each_other_can_be_compared(rows: list[Row]) -> None:
    near = [replace(rows[0], usd_per_document=usd) for usd in (0.0129, 0.0178, 0.0038)]
    _, *lines = runs_lines(near, so_far_usd={}, sort="usd/document")
    assert [[w for w in line.split() if w.startswith("$")][1] for line in lines] == [
        "$0.0129",
        "$0.0178",
        "$0.00380",
    ]


def test_a_lost_run_has_its_dollars_and_no_time(rows: list[Row]) -> None:
    lost = replace(rows[0], status="lost", phase="drive", seconds=None, total_usd=None)
    going = replace(lost, status="running", started_at=(NOW - timedelta(minutes=2)).isoformat())
    _, first, second = runs_lines([lost, going], so_far_usd={lost.run_id: 1.25}, now=NOW)
    assert "lost in drive" in first
    assert "$1.25" in first
    assert "2:00" in second
    assert "2:00" not in first


def test_what_idled_is_at_least_so_much_where_some_runs_do_not_say(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    first, second = synthetic(2)
    del second["cost"]["idle_usd"]
    ledger.insert_all([first, second], origin="elsewhere")
    lines = list(totals_lines(*ledger.totals("provider"), "provider"))
    idle = sum(first["cost"]["idle_usd"].values())
    assert f"≥ ${idle:.3f}" in next(line for line in lines if line.startswith("total"))
    assert lines[-1] == "≥: of 1 run it is not known what was paid for idling"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:00", datetime(2026, 11, 1, 12, tzinfo=UTC)),
        ("2026-11-01T12:00+02:00", datetime(2026, 11, 1, 10, tzinfo=UTC)),
        ("2026-10", datetime(2026, 10, 1, tzinfo=UTC)),
        ("today", datetime(2026, 11, 21, tzinfo=UTC)),
        ("Yesterday", datetime(2026, 11, 20, tzinfo=UTC)),
        ("90m", datetime(2026, 11, 21, 11, tzinfo=UTC)),
        ("12h", datetime(2026, 11, 21, 0, 30, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 14, 12, 30, tzinfo=UTC)),
        ("2w ago", datetime(2026, 11, 7, 12, 30, tzinfo=UTC)),
        ("999999w", None),
        ("soon", None),
        ("", None),
        ("7", None),
    ],
)
def test_moments_are_read_as_people_write_them(text: str, meant: datetime | None) -> None:
    assert moment(text, NOW) == meant

"""The Markdown table, as a renderer shows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from runners.exporting.targets.markdown import code, markdown_lines, span
from tests.runners.exporting.made import keep, result_of, run_id, runs_in

HOSTILE = [
    "a | b",
    "a \\| b",
    "a \\\\| b \\",
    "| --- |",
    "`code`",
    "``a`b``",
    "`",
    "a\nb\r\n| c |",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "![a](http://x/y.png)",
    "@everyone #1 https://example.com www.example.com",
    "**bold** __bold__ ~~gone~~",
    "\x1b[31mred\u202egnihton",
    "&lt;b&gt;",
    "$\\sqrt{x}$ :tada:",
    " ",
]


def shown(home: Path) -> tuple[list[list[str]], str]:
    """The table's cells as HTML, and what is below it."""
    html = MarkdownIt("gfm-like", {"linkify": False}).render("\n".join(markdown_lines(runs_in(home))))
    table, _, below = html.partition("</table>")
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows], below


def column(rows: Sequence[Sequence[str]], name: str) -> list[str]:
    return [row[rows[0].index(name)] for row in rows[1:]]


def test_the_figures_are_the_results(tmp_path: Path) -> None:
    keep(tmp_path, result_of(run_id(1), throughput__output_tokens_per_s=2911.4))
    rows, below = shown(tmp_path)
    assert [row for row in rows if len(row) != len(rows[0])] == []
    assert dict(zip(rows[0], rows[1], strict=True)) == {
        "run": "<code>made</code>",
        "model": "<code>org/model</code>",
        "engine": "vllm 0.33.0",
        "hardware": "A40-48GB ×2",
        "output tok/s": "2,911",
        "TTFT p50": "0.20 s",
        "$/document": "$0.0200",
        "$/Mtok": "$54.55",
        "cost": "$0.06",
        "time": "0:52",
        "status": "completed",
    }
    assert below.strip() == ""


def test_runs_of_a_matrix_have_a_column_for_each_setting_in_which_they_differ(tmp_path: Path) -> None:
    for n in (1, 2):
        variant = {"workload.concurrency": n, "workload.max_tokens": 96}
        keep(tmp_path, result_of(run_id(n, f"grid.concurrency-{n}.max_tokens-96"), variant=variant))
    rows, _ = shown(tmp_path)
    assert column(rows, "concurrency") == ["1", "2"]
    assert "max_tokens" not in rows[0]
    assert column(rows, "run") == ["<code>grid</code>"] * 2


def test_settings_that_end_alike_are_told_apart(tmp_path: Path) -> None:
    for n in (1, 2):
        keep(tmp_path, result_of(run_id(n, f"grid.name-{n}"), variant={"engine.name": f"e{n}", "workload.name": n}))
    rows, _ = shown(tmp_path)
    assert column(rows, "engine.name") == ["e1", "e2"]
    assert column(rows, "workload.name") == ["1", "2"]


def test_repetitions_go_by_their_ids(tmp_path: Path) -> None:
    for n in (1, 2):
        keep(tmp_path, result_of(run_id(n)))
    keep(tmp_path, result_of(run_id(3, "other")))
    rows, _ = shown(tmp_path)
    assert column(rows, "run") == [f"<code>{run_id(1)}</code>", f"<code>{run_id(2)}</code>", "<code>other</code>"]


def test_a_failed_run_says_why_and_what_next(tmp_path: Path) -> None:
    outcome = {"status": "failed", "phase": "launch", "error": "no memory for | KV\nat all", "advice": "take `less`"}
    keep(tmp_path, result_of(run_id(1), outcome=outcome))
    rows, below = shown(tmp_path)
    assert column(rows, "status") == ["failed in launch"]
    assert "<code>no memory for | KV at all</code>" in below
    assert "<code>take `less`</code>" in below


def test_a_load_has_no_dollars_per_document(tmp_path: Path) -> None:
    keep(tmp_path, result_of(run_id(1), documents={"done": 2, "total": 4, "unit": "point"}))
    rows, _ = shown(tmp_path)
    assert "$/document" not in rows[0]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_breaks_nothing_and_does_nothing(tmp_path: Path, text: str) -> None:
    outcome = {"status": "failed", "phase": text, "error": text, "advice": text}
    engine = {"name": text, "version": text, "parallel": [1, 1, 1]}
    changes: dict[str, Any] = {
        "outcome": outcome,
        "engine": engine,
        "model__identifier": text,
        "offer__accelerator": text,
    }
    keep(tmp_path, result_of(run_id(1), variant={"a.b": text}, **changes))
    keep(tmp_path, result_of(run_id(2), variant={"a.b": 1}))
    rows, below = shown(tmp_path)
    assert [len(row) for row in rows] == [len(rows[0])] * 3
    html = " ".join(map(" ".join, rows)) + below
    assert set(re.findall(r"</?(\w+)", html)) <= {"code", "ul", "li"}
    outside = re.sub(r"<code>.*?</code>", "", html)
    assert not re.search(r"[`@#|]|https?:|www\.", outside)
    assert "\x1b" not in html
    assert "\u202e" not in html


@pytest.mark.parametrize("text", ["a | b", "`a`", "a``b", "x\\y", "x\\", "<b>"])
def test_code_shows_the_text_itself(text: str) -> None:
    html = MarkdownIt("gfm-like", {"linkify": False}).render(f"| a |\n| - |\n| {code(text)} |")
    (found,) = re.findall(r"<code>(.*?)</code>", html)
    assert unescape(found) == text


def test_a_long_error_is_shortened() -> None:
    assert len(span("x" * 1000)) == 402

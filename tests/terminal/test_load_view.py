"""The points of a load in a terminal."""

from __future__ import annotations

from typing import Any

from rich.cells import cell_len

from runners.terminal.load_view import is_load, load_lines

TIMES = {"mean": 0.2, "p50": 0.2, "p90": 0.3, "p95": 0.4, "p99": 1.5}


def point(name: str, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": name,
        "requests": {"ok": 100, "failed": 0, "retried": 0, "truncated": 100, "asked": 100},
        "requests_per_s": 3.14159,
        "prompt_tokens_per_s": 12345.6,
        "output_tokens_per_s": 400.4,
        "under_way": {"mean": 7.9, "most": 8},
        "latency": {"ttft_s": TIMES, "tpot_s": TIMES, "itl_s": TIMES, "e2e_s": TIMES},
        "goodput": {"requests": 90, "share": 0.9, "requests_per_s": 2.83},
        "saturated": None,
        "client_lags": None,
        "finished": True,
        "short_answers": 0,
        "error": None,
    }
    return {**made, **changes}


def result(*points: dict[str, Any], **changes: Any) -> dict[str, Any]:
    load: dict[str, Any] = {
        "kind": "load",
        "points": list(points),
        "knee": None,
        "saturated_at": None,
        "best_goodput": points[0]["name"],
        "last": {"point": points[-1]["name"], "why": "all points were measured", "skipped": 0},
        "prompts": {"source": "synthetic, 512 tokens", "distinct": None},
        "traffic": {"slo": {"ttft": "0.5s", "tpot": None, "itl": None, "e2e": "3s"}},
    }
    return {"workload": {**load, **changes}}


SATURATED = result(
    point("concurrency=8"),
    point("concurrency=64", saturated="64 at once instead of 8 change the requests/s by +1%", goodput=None),
    knee="concurrency=8",
    saturated_at="concurrency=64",
    last={"point": "concurrency=64", "why": "saturated: 64 at once …", "skipped": 2},
)


def lines(shown: dict[str, Any], width: int | None = None) -> list[str]:
    return list(load_lines(shown, width))


def test_only_a_load_is_one() -> None:
    assert is_load(SATURATED)
    assert not is_load({"workload": None})
    assert not is_load({})
    assert not is_load({"workload": {"kind": "tree"}})


def test_each_point_is_a_row_with_its_marks() -> None:
    head, first, second, *_ = lines(SATURATED)
    assert head.startswith("load         point")
    for figure in ("concurrency=8", "100", "3.14", "12,346", "400", "0.20 s", "1.50 s", "2.83/s 90%"):
        assert figure in first
    assert first.endswith("← knee, best goodput")
    assert second.endswith("saturated")


def test_the_marks_are_explained_and_so_is_the_end() -> None:
    text = "\n".join(lines(SATURATED))
    assert "saturated    at concurrency=64: 64 at once instead of 8 change the requests/s by +1%" in text
    assert "goodput      requests per second that kept to TTFT 0.5s, E2E 3s, and their share of all" in text
    assert "last         concurrency=64 was the last point (saturated); 2 points left out" in text


def test_a_narrow_terminal_shows_fewer_columns_and_no_broken_rows() -> None:
    for width in (80, 100, 140):
        shown = lines(SATURATED, width)
        assert max(map(cell_len, shown)) <= width, width
        assert "TTFT p50" in shown[0]
        assert shown[1].rstrip().endswith("best goodput")
    assert len(lines(SATURATED, 80)[0]) < len(lines(SATURATED, 140)[0])


def test_what_spoils_a_figure_is_told() -> None:
    failing = point(
        "rate=2",
        requests={"ok": 90, "failed": 10, "retried": 0, "truncated": 0, "asked": 100},
        error="HTTP 503: busy",
        client_lags="1 % of the requests were sent more than 300 ms after they were due",
        short_answers=7,
    )
    text = "\n".join(lines(result(failing, prompts={"source": "few.txt", "distinct": 5})))
    assert "10 requests of rate=2, the first: HTTP 503: busy" in text
    assert "client lags  rate=2: 1 % of the requests were sent more than 300 ms after they were due" in text
    assert "7 answers ended before the length that was asked for" in text
    assert "few.txt holds 5 prompts for 100 requests" in text


def test_a_point_that_was_broken_off_is_marked() -> None:
    assert lines(result(point("rate=2", finished=False)))[1].endswith("unfinished")


def test_a_quiet_load_has_only_its_table() -> None:
    shown = lines(result(point("rate=2", goodput=None), best_goodput=None, traffic={"slo": None}))
    assert len(shown) == 2
    assert "goodput" not in "\n".join(shown)

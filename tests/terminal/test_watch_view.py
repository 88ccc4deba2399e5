"""All that is going on, as people see it in a terminal, and as lines."""

from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len

from runners.ongoing.overview import overview
from runners.terminal.spark import gauge, progress, spark
from runners.terminal.watch_lines import left_behind, plain
from runners.terminal.watch_view import HINT, NOTHING, about, screen
from tests.runners.ongoing.states import NOW, RUN, at, ended, found, lease, live, state


def seen(document: dict[str, Any], width: int = 120, height: int = 50) -> list[str]:
    lines = [line.plain for line in screen(document, width, height)]
    assert len(lines) <= height
    assert all(cell_len(line) <= width for line in lines)
    return lines


def line_with(lines: list[str], word: str) -> str:
    (line,) = [line for line in lines if word in line]
    return line


def many(count: int) -> dict[str, Any]:
    runs = [f"2xA100-airoboros-70b.concurrency-{n:02d}-20261121-051200-{n:04x}" for n in range(count)]
    return overview(state(*(found(run_id=run) for run in runs), ended=[ended(run_id=f"e{n}") for n in range(8)]))


def test_a_run_has_its_phases_its_money_its_rates_and_its_gpus() -> None:
    lines = seen(overview(state(found())), 140)
    assert lines[0] == "1 run going on     $3.58/h now     $0.81 today     05:57:31 UTC"
    assert line_with(lines, RUN).startswith(
        f"{RUN}   $0.81 of $10.00   13:42   about 23 min left, $2.24 in all   lets itself go at 16:12 UTC"
    )
    assert line_with(lines, "✓ prepare").split()[2:4] == ["6:40", "$0.40"]
    assert "412/1,104 requests  level 1  3/12 documents" in line_with(lines, "▸ drive")
    assert line_with(lines, "▸ drive").split()[2:4] == ["4:00", "$0.23"]
    assert "2,911 tok/s  ▃▅██████  peak 3,221" in line_with(lines, "prompt  ")
    assert "151 tok/s" in line_with(lines, "output  ")
    assert "running 14 · waiting 0 · KV 93%" in line_with(lines, "waiting")
    assert "█████████░   92%  72.0/80.0 GiB  250/300 W  67 °C  A100 PCIe" in line_with(lines, "GPU 0")
    assert "sw_power_cap" in line_with(lines, "GPU 1")
    assert lines[-1] == HINT


def test_of_many_runs_there_is_less_of_each_and_never_more_than_fits() -> None:
    whole, brief, rows = (seen(many(count), 150, 40) for count in (2, 7, 20))
    assert len([line for line in whole if "✓ prepare" in line]) == 2
    assert len([line for line in brief if "▸ drive 4:00" in line]) == 7
    assert len([line for line in rows if line.startswith("▸ 2xA100")]) == 20
    assert all("37%" in line and "out 151 tok/s" in line for line in rows if line.startswith("▸"))


def test_more_runs_than_lines_are_counted() -> None:
    lines = seen(many(50), 100, 20)
    shown = [line for line in lines if line.startswith("▸")]
    assert len(shown) >= 10
    assert f"and {50 - len(shown)} more" in lines
    assert all(line.split()[1][-4:] == f"{n:04x}" for n, line in enumerate(shown)), "ids are told apart by their ends"


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("height", [1, 3, 6, 10, 24, 60])
@pytest.mark.parametrize("count", [0, 1, 3, 30])
def test_it_fits_every_terminal(width: int, height: int, count: int) -> None:
    seen(many(count), width, height)


def test_runs_that_ended_stand_below_with_what_became_of_them() -> None:
    failed = ended(run_id="bad", status="failed", exit_code=6, phase="launch", usd=1.5)
    billing = ended(run_id="worse", exit_code=9, report="/home/ana/.recipe/runs/worse/report.html")
    lines = seen(overview(state(found(), ended=[ended(), failed, billing])), 200)
    assert "✓ local-smoke-20261121-055000-aaaa   done in 0:52   $0.02   2 min ago" in lines
    assert line_with(lines, "bad").startswith("✗ bad   failed in 0:52 (launch)   $1.50")
    assert line_with(lines, "worse").startswith("✗ worse")
    assert "MAY STILL BE BILLING" in line_with(lines, "worse")
    assert line_with(lines, "worse").endswith("/runs/worse/report.html")


def test_a_run_whose_client_is_gone_says_what_it_may_cost_and_what_to_do() -> None:
    gone = overview(state(found(lives=False, machine=lease(), live=live(at=at(40)))))
    lines = seen(gone)
    assert "CLIENT GONE" in line_with(lines, f"{RUN}   $0.60")
    assert "last heard of 0:40 ago in drive; its machine may be billing $3.60/h" in line_with(lines, "its client")
    assert f"next: recipe attach {RUN} goes on there" in lines
    assert f"  or: recipe down {RUN} ends it" in lines
    here = seen(overview(state(found(lives=False, machine=lease("local")))))
    assert f"next: recipe down {RUN} ends it" in here
    assert not any("attach" in line for line in here), "what ran here died with its client"


def test_a_machine_that_belongs_to_no_run_is_told_of() -> None:
    lines = seen(overview(state(alone=[lease(run_id="other-20261121-000000-aaaa")])))
    assert "may be billing $3.60/h, $0.60 so far; nobody minds it" in line_with(lines, "recipe-ana-other")
    assert NOTHING not in lines


def test_a_lost_gpu_a_wish_to_stop_and_a_silent_client_are_seen() -> None:
    samples = live()["samples"]
    samples["host"]["gpus"].pop()
    lost = seen(overview(state(found(live=live(samples=samples, lost_gpus=[{"index": 1, "why": "fell off"}])))))
    assert "LOST  fell off" in line_with(lost, "GPU 1")
    stopping = seen(overview(state(found(live=live(stopping={"now": False})))))
    assert "stopping, collecting, letting go" in line_with(stopping, RUN)
    silent = seen(overview(state(found(live=live(at=at(12))))))
    assert "no sign of its client for 0:12" in line_with(silent, RUN)


def test_without_a_gpu_there_is_the_machine() -> None:
    samples = live()["samples"]
    samples["host"]["gpus"] = samples["machine"]["gpus"] = []
    lines = seen(overview(state(found(live=live(samples=samples)))))
    assert "CPU   ██░░░░░░░░ 25%  RAM 64.0/128.0 GiB" in line_with(lines, "CPU")


def test_nothing_is_going_on() -> None:
    assert NOTHING in seen(overview(state()))


def test_what_looks_like_markup_is_text() -> None:
    lines = seen(overview(state(found(live=live(warnings=["[red]x[/red]\x1b[31m evil"])))), 200)
    assert "[red]x[/red]" in line_with(lines, "warning:")
    assert "\x1b" not in "".join(lines)


def test_lines_tell_what_has_changed_and_now_and_then_how_far_it_is() -> None:
    first, later = (overview(state(found(live=one))) for one in (live(phase=None, phases=[]), live()))
    begun = list(plain(None, first, progress_due=True))
    assert begun == [f"{RUN}   $0.81 of $10.00  13:42  about 23 min left, $2.24 in all  lets itself go at 16:12 UTC"]
    turned = list(plain(first, later, progress_due=False))
    assert [line.split()[1] for line in turned] == ["plan", "provision", "prepare", "launch", "drive"]
    assert "412/1,104 requests  prompt 2,911 tok/s  output 151 tok/s" in turned[-1]
    assert list(plain(later, later, progress_due=False)) == []
    assert list(plain(later, later, progress_due=True)) == turned[-1:]
    warned = overview(state(found(live=live(warnings=["the disk is nearly full"]))))
    assert list(plain(later, warned, progress_due=False)) == [f"{RUN}   warning: the disk is nearly full"]
    over = list(plain(warned, overview(state(ended=[ended(run_id=RUN, ended_at=NOW)])), progress_due=False))
    assert over == [NOTHING, f"{RUN}   done in 0:52   $0.02   0 s ago"]


def test_lines_tell_of_a_client_that_dies_and_of_a_machine_alone_once() -> None:
    lives, gone = overview(state(found())), overview(state(found(lives=False, machine=lease()), alone=[lease("ssh")]))
    told = list(plain(lives, gone, progress_due=False))
    assert any("its client is gone" in line for line in told)
    assert any("nobody minds it" in line for line in told)
    assert list(plain(gone, gone, progress_due=False)) == []


def test_what_ended_before_somebody_looked_is_no_news() -> None:
    document = overview(state(ended=[ended()]))
    assert list(plain(None, document, progress_due=True)) == [NOTHING]
    assert list(plain(None, document, progress_due=True, waits=True)) == [f"{NOTHING}; this waits for what comes"]


def test_what_is_left_behind_is_how_each_stands() -> None:
    document = overview(state(found(), ended=[ended(report="/r.html")]))
    lines = list(left_behind(document, document["ended"]))
    assert lines[0].startswith(f"{RUN}   drive")
    assert lines[1:] == ["local-smoke-20261121-055000-aaaa   done in 0:52   $0.02   2 min ago", "report   /r.html"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a few seconds"),
        (41, "about 40 s"),
        (95, "about 2 min"),
        (1380, "about 23 min"),
        (7800, "about 2 h 10 min"),
        (86_400, "about 24 h"),
    ],
)
def test_a_time_that_nobody_knows_exactly(seconds: float, words: str) -> None:
    assert about(seconds) == words


def test_a_curve_is_as_wide_as_its_values_and_never_wider_than_its_place() -> None:
    assert spark([0, 1, 2, 4], 10) == "▁▃▅█"
    assert spark([1] * 30 + [3] * 30, 4) == "▃▃██"
    assert spark([0, 0], 5) == "▁▁"
    assert spark([], 5) == ""
    assert len(spark(list(range(300)), 60)) == 60


def test_bars_are_as_full_as_they_should_be() -> None:
    assert progress(0.5, 4) == "━━──"
    assert progress(0.625, 4) == "━━╸─"
    assert progress(2.0, 3) == "━━━"
    assert gauge(0.92, 10) == "█████████░"

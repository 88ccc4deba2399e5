"""The pages in a real browser: every number is the result's, charts show the data, nothing foreign runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest

from runners.measurement import request_rates
from runners.reporting import write_report
from runners.run_folder import RunFolder
from tests.browser import Chromium, Opened, chromium
from tests.runners.reporting.reading import figures, unmarked, wrong
from tests.runners.reporting.runs import BEGAN, PHASES, made_output, made_records, made_run

__all__ = ["chromium"]
pytestmark = pytest.mark.real


def opened_report(chromium: Chromium, tmp_path: Path, *folders: RunFolder, **how: Any) -> Opened:
    page = write_report(folders, tmp_path / "page" / "report.html")
    opened = chromium.open(page, **how)
    if how.get("script", True):
        drawn(opened)
    return opened


def drawn(opened: Opened) -> None:
    opened.until(
        "document.documentElement.dataset.charts || !document.getElementById('charts') || "
        "document.readyState === 'complete' && !document.getElementById('plotly')"
    )


def results_of(*folders: RunFolder) -> dict[str, Mapping[str, Any]]:
    return {folder.run_id: folder.read_result() for folder in folders}


def nothing_went_wrong(opened: Opened) -> None:
    assert opened.problems == []
    assert opened.requests == []
    assert opened.evaluate("violations") == []


def traces(opened: Opened, chart: str) -> list[dict[str, Any]]:
    script = """(id) => document.getElementById(id).data.map((t) => ({
        name: t.name, x: Array.from(t.x), y: Array.from(t.y), axis: t.yaxis || "y" }))"""
    found: list[dict[str, Any]] = opened.evaluate(script, chart)
    return found


def test_every_number_is_that_of_result_json_and_shows_it(chromium: Chromium, tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    opened = opened_report(chromium, tmp_path, folder)
    assert list(wrong(opened, results_of(folder))) == []
    assert unmarked(opened) == []
    shown = {figure["path"] for figure in figures(opened)}
    assert {"cost.total_usd", "cost.usd_per_document", "throughput.output_tokens_per_s", "latency.ttft_s.p99"} <= shown
    assert {f"phases.{i}.seconds" for i in range(len(PHASES))} <= shown
    assert {"cost.idle_usd.download", "cost.useful_usd", "forecast.phases.0.seconds.likely"} <= shown
    nothing_went_wrong(opened)


def test_the_phases_make_up_the_run(chromium: Chromium, tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    opened = opened_report(chromium, tmp_path, folder)
    values = [
        float(figure["value"])
        for figure in figures(opened)
        if (figure["path"] or "").startswith("phases.") and figure["path"].endswith(".seconds")
    ]
    run_s = sum(seconds for _, seconds, _ in PHASES)
    assert sum(values) == pytest.approx(run_s)
    totals = [float(figure["value"]) for figure in figures(opened) if figure["sum"]]
    assert totals == [run_s, run_s]
    widths = opened.evaluate(
        "[...document.querySelector('#phases .bar').children].map((e) => e.getBoundingClientRect().width)"
    )
    assert [w / sum(widths) for w in widths] == pytest.approx([s / sum(values) for s in values], abs=0.01)


def test_the_chart_over_time_shows_requests_metrics_and_the_machine(chromium: Chromium, tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    opened = opened_report(chromium, tmp_path, folder)
    found = traces(opened, "time-chart")
    by_name: dict[str, list[dict[str, Any]]] = {}
    for trace in found:
        by_name.setdefault(trace["name"], []).append(trace)

    rates = request_rates(made_records(60))
    assert rates is not None
    prompt, output = by_name["from requests"]
    assert prompt["y"][:-1] == pytest.approx(rates.per_s["prompt"], abs=1e-3)
    assert output["y"][:-1] == pytest.approx(rates.per_s["output"], abs=1e-3)
    assert prompt["x"][0] == pytest.approx(rates.origin.timestamp() * 1000, abs=1)
    assert set(by_name["from metrics"][0]["y"]) == {1000.0}
    assert max(by_name["waiting in the engine"][0]["y"]) == 1
    assert max(by_name["KV cache in use"][0]["y"]) == pytest.approx(93)
    utilisation, memory, power, _ = by_name["GPU 1"]
    assert (max(v for v in utilisation["y"] if v is not None), memory["y"][0]) == (
        90,
        pytest.approx(60001 / 1024, abs=1e-3),
    )
    assert power["y"][0] == 251
    lost_from = (BEGAN + timedelta(seconds=181)).timestamp() * 1000
    assert {y for x, y in zip(power["x"], power["y"], strict=True) if x >= lost_from} == {None}
    peaks = {(t["name"], t["x"][0], t["y"][0]) for t in found if t["name"].startswith("peak")}
    stands = {(f"peak, {p['source']}", p["tokens_per_s"]) for p in folder.read_result()["throughput"]["peak_at"]}
    assert {(name, y) for name, _, y in peaks} == stands
    # Not only in the data: there are lines on the screen.
    assert opened.evaluate("document.querySelectorAll('#time-chart .scatterlayer .trace').length") == len(found)
    assert opened.evaluate("document.querySelectorAll('#time-chart path.js-line').length") > 8
    bands = opened.evaluate("document.getElementById('time-chart').layout.shapes.length")
    assert bands == len(PHASES) + 1  # and a gap
    nothing_went_wrong(opened)


def test_latency_distributions_have_the_percentiles_of_the_result(chromium: Chromium, tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    opened = opened_report(chromium, tmp_path, folder)
    (trace,) = traces(opened, "latency-ttft_s")
    good = sorted(r.ttft_s for r in made_records(60) if r.status == "ok" and r.ttft_s is not None)
    assert trace["x"] == pytest.approx([value * 1000 for value in good], abs=1e-2)
    assert trace["y"][-1] == 1
    marked = opened.evaluate("document.getElementById('latency-ttft_s').layout.shapes.map((s) => s.x0 / 1000)")
    told = folder.read_result()["latency"]["ttft_s"]
    assert marked == pytest.approx([told["p50"], told["p90"], told["p99"]])


HOSTILE = (
    "</script><script>window.ran=1</script><img src=x onerror=window.ran=2>"
    "<a href='javascript:window.ran=3'>x</a>{{ 7*7 }}<!--\u2028\u202egnp.\x00\x1b[31m"
)


def test_hostile_texts_are_shown_and_do_not_run(chromium: Chromium, tmp_path: Path) -> None:
    changes = {
        "recipe": HOSTILE,
        "warnings": [HOSTILE],
        "outcome": {"status": "failed", "phase": "drive", "error": HOSTILE, "advice": HOSTILE},
        "release": {"state": "may-still-bill", "name": HOSTILE, "reason": HOSTILE, "command": HOSTILE},
        "engine": {"name": HOSTILE, "version": HOSTILE},
        "artifacts": [{"path": HOSTILE, "sha256": HOSTILE, "bytes": 1}],
        "tags": [HOSTILE],
        "versions": {HOSTILE: HOSTILE},
        "variant": {HOSTILE: HOSTILE},
        "throughput.peaks_note": [HOSTILE],
    }
    folder = made_run(tmp_path, changes=changes)
    (folder.path / "engine.log").write_text(f"ERROR {HOSTILE}\n", encoding="utf-8")
    (folder.path / "recipe.yaml").write_text(HOSTILE, encoding="utf-8")
    output = next(folder.outputs.iterdir())
    document = Path(json.loads(output.read_text())["buck_slip"]["document"])
    output.write_text(json.dumps(made_output(document, (HOSTILE + ".", HOSTILE + " again."))))
    with (folder.path / "requests.jsonl").open("a") as file:
        row = json.loads((folder.path / "requests.jsonl").read_text().splitlines()[0])
        file.write(json.dumps({**row, "id": HOSTILE, "error": HOSTILE, "status": "failed"}) + "\n")
    other = made_run(tmp_path, "other-20261121-051300-9f3b", changes=changes)
    for folders in ((folder,), (folder, other)):
        opened = opened_report(chromium, tmp_path, *folders)
        for details in opened.page.query_selector_all("details"):
            details.evaluate("(e) => { e.open = true; }")
        nothing_went_wrong(opened)
        assert opened.evaluate("window.ran") is None
        assert opened.evaluate("document.querySelectorAll('img').length") == 0
        assert opened.evaluate("[...document.links].filter((a) => a.protocol === 'javascript:').length") == 0
        text = opened.page.inner_text("main")
        assert "onerror=window.ran=2" in text
        assert "{{ 7*7 }}" in text
        assert "\u202e" not in text
        assert "\x00" not in text


def test_light_dark_phone_and_paper(chromium: Chromium, tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    other = made_run(tmp_path, "other-20261121-051300-9f3b", speed=2)
    for folders in ((folder,), (folder, other)):
        for width in (360, 768, 1280):
            opened = opened_report(chromium, tmp_path, *folders, width=width)
            assert opened.overflow() <= 0, width
            for details in opened.page.query_selector_all("details"):
                details.evaluate("(e) => { e.open = true; }")
            assert opened.overflow() <= 0, width
        dark = opened_report(chromium, tmp_path, *folders, dark=True)
        assert dark.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
        dark.page.emulate_media(media="print", color_scheme="dark")
        assert dark.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert dark.evaluate("getComputedStyle(document.querySelector('button')).display") == "none"
        nothing_went_wrong(dark)


def test_charts_follow_the_button_for_the_colours(chromium: Chromium, tmp_path: Path) -> None:
    opened = opened_report(chromium, tmp_path, made_run(tmp_path))
    colour = "getComputedStyle(document.querySelector('#time-chart .ytick text')).fill"
    light = opened.evaluate(colour)
    opened.page.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.textContent") == "Skip to the content"
    opened.page.get_by_role("button", name="Switch to dark colours").click()
    opened.until(colour + " !== argument", light)
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    opened.page.reload()
    drawn(opened)
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    nothing_went_wrong(opened)


def test_from_a_sentence_to_its_passage(chromium: Chromium, tmp_path: Path) -> None:
    opened = opened_report(chromium, tmp_path, made_run(tmp_path))
    opened.page.get_by_role("link", name="A train is late.").click()
    passage = opened.page.get_by_text("The second part tells of a train. It is late.")
    passage.wait_for(state="visible")
    assert "The first part" not in passage.inner_text()
    nothing_went_wrong(opened)


def test_without_javascript_all_texts_and_tables_are_there(chromium: Chromium, tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    opened = opened_report(chromium, tmp_path, folder, script=False)
    text = opened.page.inner_text("main")
    for expected in ("A lighthouse is told of.", "deleted 05:15:18", "drive", "WARNING KV cache is small"):
        assert expected in opened.page.content()
    assert "Charts need JavaScript" in text
    assert opened.requests == []


def test_several_runs_are_held_against_each_other(chromium: Chromium, tmp_path: Path) -> None:
    folders = [
        made_run(tmp_path, "slow-20261121-051200-0001", changes={"recipe_digest": "aa"}),
        made_run(tmp_path, "fast-20261121-052200-0002", speed=2, changes={"recipe_digest": "bb"}),
        made_run(tmp_path, "fast-20261121-053200-0003", speed=2.1, changes={"recipe_digest": "bb"}),
        made_run(
            tmp_path,
            "lame-20261121-054200-0004",
            changes={"outcome": {"status": "failed", "phase": "drive", "error": "it broke"}, "recipe_digest": "cc"},
        ),
    ]
    opened = opened_report(chromium, tmp_path, *folders)
    results = results_of(*folders)
    assert list(wrong(opened, results)) == []
    assert unmarked(opened) == []
    shown = {(figure["run"], figure["path"]) for figure in figures(opened)}
    assert {(run, "throughput.output_tokens_per_s") for run in results} <= shown
    (bars,) = traces(opened, "bars-throughput")
    assert bars["x"] == [result["throughput"]["output_tokens_per_s"] for result in results.values()]
    (costs,) = traces(opened, "bars-cost")
    assert costs["x"] == [result["cost"]["usd_per_document"] for result in results.values()]
    assert opened.evaluate("document.querySelectorAll('#bars-cost .point path').length") == 4
    best = opened.evaluate("[...document.querySelectorAll('table.runs tbody tr')].map((r) => r.cells[2].className)")
    assert ["best" in name for name in best] == [False, False, True, False]
    assert "it broke" in opened.page.inner_text("#each")
    assert opened.page.inner_text("#differences").count("workload.speed") == 1
    lengths = opened.evaluate(
        "[...document.querySelectorAll('#phases .bar')].map((bar) => "
        "[...bar.children].reduce((sum, e) => sum + e.getBoundingClientRect().width, 0))"
    )
    assert lengths == pytest.approx([lengths[0]] * 4, rel=0.01)  # all took the same time
    nothing_went_wrong(opened)


def test_the_speed_of_one_request_takes_no_room_from_the_throughput_of_all(chromium: Chromium, tmp_path: Path) -> None:
    """An engine's log may tell how fast each request was by itself: a hundred times what all have together."""
    folder = made_run(tmp_path)
    result = dict(folder.read_result())
    of_all = max(p["tokens_per_s"] for p in result["throughput"]["peak_at"] if p["kind"] == "prompt")
    at = (BEGAN + timedelta(seconds=150)).isoformat()
    alone = {"kind": "prompt", "source": "log of one request", "tokens_per_s": 100 * of_all, "at": at}
    result["throughput"]["peak_at"].append(alone)
    folder.write_json("result.json", result)
    opened = opened_report(chromium, tmp_path, folder)
    axis, texts = opened.evaluate(
        "() => { const { layout } = document.getElementById('time-chart');"
        " return [layout.yaxis.range[1], layout.annotations.map((a) => a.text)]; }"
    )
    (line, *_) = (t for t in traces(opened, "time-chart") if t["name"] == "from requests")
    assert axis < 2 * max(of_all, *line["y"])
    (marker,) = (t for t in traces(opened, "time-chart") if t["name"] == "peak, log of one request")
    assert 0.8 * axis < marker["y"][0] < axis, "at the edge"
    assert f"↑ {round(100 * of_all):,}, one request" in texts
    nothing_went_wrong(opened)


def test_samples_of_a_machine_whose_clock_was_set_leave_the_run_its_room(chromium: Chromium, tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    with (folder.path / "telemetry.jsonl").open("a") as file:
        for hours in (-2, 3):
            row = {"at": (BEGAN + timedelta(hours=hours)).isoformat(), "source": "host", "n": 1, "cpu": 0.5}
            file.write(json.dumps(row) + "\n")
    opened = opened_report(chromium, tmp_path, folder)
    if opened.page.is_visible("#ranges"):
        opened.page.click("[data-range=run]")
    left, right = opened.evaluate("document.getElementById('time-chart').layout.xaxis.range.map((x) => +new Date(x))")
    run_ms = sum(seconds for _, seconds, _ in PHASES) * 1000
    assert left == BEGAN.timestamp() * 1000
    assert run_ms <= right - left <= run_ms + 10_000


def test_points_that_are_close_have_letters_that_can_be_read(chromium: Chromium, tmp_path: Path) -> None:
    folders = [
        made_run(
            tmp_path, f"long-named-variant-20261121-05{i}200-000{i}", speed=speed, changes={"recipe_digest": f"d{i}"}
        )
        for i, speed in enumerate((1, 1.002, 1.004, 2))
    ]
    opened = opened_report(chromium, tmp_path, *folders)
    (_, points) = opened.evaluate("document.getElementById('pareto-chart').data.map((t) => [t.text, t.customdata])")
    assert sorted(points[0]) == ["A", "B", "C", "D"]
    assert all("long-named" in name for name in points[1]), "the whole name stands by the pointer"
    boxes = opened.evaluate(
        "[...document.querySelectorAll('#pareto-chart .textpoint text')].map((e) => e.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) == 4
    for a, b in combinations(boxes, 2):
        apart = a["right"] <= b["left"] or b["right"] <= a["left"] or a["bottom"] <= b["top"] or b["bottom"] <= a["top"]
        assert apart, (a, b)


def test_a_link_that_was_cut_off_shows_the_page_all_the_same(chromium: Chromium, tmp_path: Path) -> None:
    opened = opened_report(chromium, tmp_path, made_run(tmp_path), fragment="#%E0")
    assert opened.evaluate("document.documentElement.dataset.charts") == "drawn"
    nothing_went_wrong(opened)


def test_headings_landmarks_and_names_for_who_cannot_see_it(chromium: Chromium, tmp_path: Path) -> None:
    opened = opened_report(chromium, tmp_path, made_run(tmp_path))
    levels = opened.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert opened.evaluate(
        "['header', 'nav', 'main', 'footer'].every((n) => document.querySelectorAll(n).length === 1)"
    )
    assert opened.evaluate("document.documentElement.lang") == "en"
    assert opened.evaluate("[...document.querySelectorAll('table')].filter((t) => !t.caption).length") == 0
    assert opened.evaluate("[...document.querySelectorAll('th')].filter((t) => !t.scope).length") == 0
    assert opened.evaluate("[...document.querySelectorAll('.chart')].filter((c) => !c.ariaLabel).length") == 0
    assert opened.evaluate("[...document.querySelectorAll('th')].filter((t) => !t.textContent.trim()).length") == 0
    landmarks = opened.evaluate(LANDMARKS)
    assert len(landmarks) == len(set(landmarks))
    ids = opened.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    targets = opened.evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].map((a) => a.hash.slice(1))")
    assert set(targets) <= set(ids)
    assert opened.evaluate(CONTRASTS) == []
    opened.page.emulate_media(color_scheme="dark")
    assert opened.evaluate(CONTRASTS) == []


LANDMARKS = """[...document.querySelectorAll("section, nav, [role=region]")].map((e) =>
    e.ariaLabel || document.getElementById(e.getAttribute("aria-labelledby")).innerText)"""
"""What those are called that some programs list for whoever cannot see the page."""

CONTRASTS = r"""() => {
    const parts = (c) => c.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (e) => {
        for (; e; e = e.parentElement) {
            const c = parts(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] > 0) return c;
        }
        return [255, 255, 255];
    };
    const low = [];
    for (const e of document.querySelectorAll("main *, header *, nav *, footer *")) {
        if (e.closest("svg, .chart") || !e.innerText) continue;
        if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
        const [a, b] = [light(parts(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) low.push(e.outerHTML.slice(0, 120));
    }
    return low; }"""
"""WCAG 2.1, 1.4.3: texts whose contrast with what is behind them is below 4.5."""

"""What pages hold of runs that ended otherwise, are older, or left little."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from recipes.errors import UsageError
from runners.reporting import report_page, write_report
from runners.reporting.figures import FORMS, Figures
from runners.reporting.page import script_json, visible
from runners.run_folder import RunFolder
from tests.runners.reporting.runs import PHASES, made_output, made_result, made_run

FILES = ("telemetry.jsonl", "requests.jsonl", "documents.jsonl", "events.jsonl", "plan.json", "resolved.json")


def report_html(folders: list[RunFolder]) -> str:
    return report_page(folders).decode()


def text_of(html: str) -> str:
    """What of a page stands outside scripts, styles and tags."""
    body = re.sub(r"<(script|style).*?</\1>", "", html.partition("<body>")[2], flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


@pytest.mark.parametrize("missing", FILES)
def test_a_file_that_is_not_there_leaves_out_what_it_held(tmp_path: Path, missing: str) -> None:
    folder = made_run(tmp_path)
    (folder.path / missing).unlink()
    assert "deleted 05:15:18, absent twice" in report_html([folder])


@pytest.mark.parametrize("torn", FILES)
def test_a_torn_file_is_read_as_far_as_it_can_be(tmp_path: Path, torn: str) -> None:
    folder = made_run(tmp_path)
    path = folder.path / torn
    path.write_bytes(path.read_bytes()[:-20] + b'\xff\x00{"at": ')
    assert "deleted 05:15:18, absent twice" in report_html([folder])


def test_the_result_of_an_older_recipe_makes_a_page(tmp_path: Path) -> None:
    """As schema 1 began: no idle dollars, no tags, no telemetry, no notes on peaks."""
    taken = (
        "tags",
        "forecast",
        "workload",
        "documents",
        "lease",
        "variant",
        "versions",
        "requests",
        "throughput.peaks_note",
    )
    costs = [
        f"cost.{n}" for n in ("useful_seconds", "useful_usd", "idle_seconds", "idle_usd", "usd_per_million_tokens")
    ]
    folder = made_run(tmp_path, changes=dict.fromkeys([*taken, *costs]), telemetry=False)
    text = text_of(report_html([folder]))
    assert "Per million prompt tokens" in text
    assert "What was paid for" not in text
    everything = dict.fromkeys(name for name in made_result("x-20261121-051200-9f3a", []) if name != "run_id")
    bare = made_run(tmp_path, "bare-20261121-051300-0000", changes=everything, telemetry=False, requests=0)
    assert "No phase was measured" in text_of(report_html([bare]))
    assert "2 runs compared" in text_of(report_html([folder, bare]))


@pytest.mark.parametrize("phase", [name for name, _, _ in PHASES])
def test_a_run_that_failed_says_why_and_what_next_first(tmp_path: Path, phase: str) -> None:
    came = [name for name, _, _ in PHASES].index(phase)
    outcome = {"status": "failed", "phase": phase, "error": "CUDA out of memory", "advice": "use a smaller model"}
    folder = made_run(tmp_path, changes={"outcome": outcome, "exit_code": 5}, requests=0, telemetry=False)
    result = folder.read_result()
    result["phases"] = result["phases"][: came + 1]
    folder.write_json("result.json", result)
    text = text_of(report_html([folder]))
    assert text.index("CUDA out of memory") < text.index("use a smaller model") < text.index("Where the time")
    assert f"failed in {phase} after" in text
    assert "lost a worker" in text  # the end of the log
    assert "No request was sent" in text


def test_an_interrupted_run_and_a_machine_that_may_still_bill(tmp_path: Path) -> None:
    release = {
        "state": "may-still-bill",
        "name": "pod",
        "proof": "",
        "reason": "no answer",
        "command": "recipe reap --yes",
    }
    folder = made_run(
        tmp_path,
        changes={"outcome": {"status": "interrupted", "phase": "drive", "error": "SIGINT"}, "release": release},
    )
    text = text_of(report_html([folder]))
    assert text.index("NOT PROVEN GONE") < text.index("recipe reap --yes") < text.index("Where the time")
    assert "Interrupted in drive" in text
    assert "gone, proven" not in text


def test_a_run_without_a_result_is_a_clear_error(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    (folder.path / "result.json").unlink()
    with pytest.raises(UsageError, match="has left no result yet"):
        report_html([folder])


def test_ten_thousand_documents_keep_the_page_small_and_it_says_what_is_left_out(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    document = tmp_path / "inputs" / "document.txt"
    with (folder.path / "documents.jsonl").open("a") as file:
        for i in range(10_000):
            name = f"d{i}-analysis-model-0000.json"
            if i < 4_000:
                (folder.outputs / name).write_text(
                    json.dumps(made_output(document, (f"Summary {i}. " + "& " * 300, "B")))
                )
            file.write(json.dumps({"document": f"d{i}.txt", "output": name}) + "\n")
    html = report_html([folder])
    assert len(html.encode()) < 6_000_000
    text = text_of(html)
    assert re.search(r"[\d,]+ more documents in the folder outputs", text)
    assert re.search(r"\d documents without a tree here", text)


def test_a_long_passage_is_cut_and_says_so(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    output = next(folder.outputs.iterdir())
    data = json.loads(output.read_text())
    long = tmp_path / "inputs" / "long.txt"
    long.write_text("word " * 4_000)
    data["buck_slip"] |= {"document": str(long), "length_of_sample_text_in_characters": 20_000}
    data["tree"]["nodes"][0]["chunk"] = {"start": 0, "end": 20_000}
    output.write_text(json.dumps(data))
    _set_old(long)
    assert "14,000 more characters" in text_of(report_html([folder]))


def test_passages_of_a_document_that_changed_are_not_shown(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    assert "The second part tells of a train." in report_html([folder])
    document = tmp_path / "inputs" / "document.txt"
    document.write_text(document.read_text().replace("train", "plane"))  # as long as before, and written just now
    html = report_html([folder])
    assert "the document was changed after the run: no passages" in html
    assert "plane" not in html
    document.unlink()
    assert "the document is not on this machine: no passages" in report_html([folder])


def test_a_tree_whose_parts_go_round_in_a_circle_ends(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    output = next(folder.outputs.iterdir())
    data = json.loads(output.read_text())
    data["tree"]["nodes"][0]["children"] = ["2/0", "1/1", "9/9"]
    output.write_text(json.dumps(data))
    assert text_of(report_html([folder])).count("A lighthouse is told of.") >= 1


def test_load_points_are_shown_as_they_were_measured(tmp_path: Path) -> None:
    times = {name: {"p50": 0.1, "p99": 0.3} for name in ("ttft_s", "tpot_s", "e2e_s")}
    points = [
        {
            "name": f"concurrency={n}",
            "requests": {"ok": 40, "failed": 0},
            "requests_per_s": 35.25 * n,
            "prompt_tokens_per_s": 9000.0,
            "output_tokens_per_s": 2250.0 * n,
            "under_way": {"mean": 0.97 * n},
            "latency": times,
            "goodput": {"requests_per_s": 30.0, "share": 0.9},
            "saturated": "no gain" if n == 2 else None,
            "client_lags": None,
            "finished": True,
        }
        for n in (1, 2)
    ]
    load = {"kind": "load", "points": points, "knee": "concurrency=1", "best_goodput": "concurrency=1", "last": None}
    load |= {"traffic": {"slo": {"ttft": "2s"}}}
    text = text_of(report_html([made_run(tmp_path, changes={"workload": load})]))
    assert "Saturated at concurrency=2: no gain" in text
    assert "knee, best goodput" in text
    assert "70.5" in text
    assert "kept to TTFT 2s" in text


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    path = tmp_path / "deep" / "report.html"
    write_report([folder], path)
    before = path.read_text()
    (folder.path / "result.json").unlink()
    with pytest.raises(UsageError):
        write_report([folder], path)
    assert path.read_text() == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_data_for_a_script_cannot_end_it_and_stays_what_it_was() -> None:
    data = {"name": "</script><!--<script>&\u2028\u2029", "x": [1.5, None]}
    text = str(script_json(data))
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == data


def test_signs_that_nobody_sees_are_shown_by_number() -> None:
    assert visible("a\x00b\u202ec\r\nd\te") == "a‹0000›b‹202E›c\nd\te"
    assert visible("עברית עברית") == "עברית עברית"


@pytest.mark.parametrize(
    ("form", "value", "shown"),
    [
        ("took", 0.0073, "7.3 ms"),
        ("took", 0.5, "0.50 s"),
        ("took", 2211.2, "36:51"),
        ("usd", 2.2, "$2.20"),
        ("share", 0.74, "74 %"),
        ("share", 0.0042, "0.4 %"),
        ("off", -0.851, "−85 %"),
        ("rate", 2870.4, "2,870 tok/s"),
        ("rate", 66.42, "66.4 tok/s"),
        ("figure", 0.00012, "1.20e-04"),
        ("mib", 81158.0, "79.3 GiB"),
        ("bytes", 4_815_814, "4.8 MB"),
        ("time", "2026-11-21T05:57:31.250+00:00", "05:57:31"),
    ],
)
def test_figures_are_written_as_people_read_them(form: str, value: Any, shown: str) -> None:
    assert FORMS[form](value) == shown


def test_what_is_not_known_is_a_dash_and_no_figure() -> None:
    n = Figures({"run_id": "a", "cost": {"total_usd": None}})
    assert "<data" not in n("cost.total_usd", "usd") + n("no.such.3.path", "usd") + n.total("phases", "seconds", "took")


def _set_old(path: Path) -> None:
    import os

    os.utime(path, (0, 0))

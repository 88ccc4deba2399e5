"""recipe report as a user calls it, and the page that each run ends with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runners.cli.reports import comparison_path, write_run_report
from tests.conftest import Command
from tests.runners.reporting.runs import made_run

CSP = "default-src 'none'; script-src 'sha256-"


def test_the_page_is_written_anew_and_its_place_is_said(recipe: Command) -> None:
    folder = made_run(recipe.home)
    page = folder.path / "report.html"
    page.write_text("an older one")
    ended = recipe("report", "made")
    assert ended.returncode == 0, ended.stderr
    assert f"report       {page}" in ended.stdout
    assert "TTFT p50" in ended.stdout
    assert CSP in page.read_text()


def test_the_page_goes_where_it_is_wanted(recipe: Command, tmp_path: Path) -> None:
    folder = made_run(recipe.home)
    ended = recipe("report", folder.run_id, "--html", "deep/page.html")
    assert ended.returncode == 0, ended.stderr
    assert CSP in (tmp_path / "deep" / "page.html").read_text()
    assert not (folder.path / "report.html").exists()
    printed = recipe("report", folder.run_id, "--html", "-")
    assert printed.stdout.startswith("<!doctype html>")
    assert printed.stdout.rstrip().endswith("</html>")


def test_a_place_that_cannot_be_written_is_a_wrong_command(recipe: Command, tmp_path: Path) -> None:
    folder = made_run(recipe.home)
    (tmp_path / "file").write_text("")
    ended = recipe("report", folder.run_id, "--html", "file/page.html")
    assert ended.returncode == 2
    assert "cannot be written" in ended.stderr
    assert recipe("report", folder.run_id, "--html", "-", "--json").returncode == 2


def test_json_is_the_result_alone(recipe: Command) -> None:
    folder = made_run(recipe.home)
    ended = recipe("report", folder.run_id, "--json")
    assert json.loads(ended.stdout) == {"runs": [json.loads((folder.path / "result.json").read_text())]}
    assert not (folder.path / "report.html").exists()


def test_several_runs_have_one_page_and_each_its_own(recipe: Command) -> None:
    folders = [made_run(recipe.home, f"made-20261121-05120{i}-000{i}", speed=1 + i) for i in range(2)]
    ended = recipe("report", *(folder.run_id for folder in folders))
    assert ended.returncode == 0, ended.stderr
    page = comparison_path(recipe.home, [folder.read_result() for folder in folders])
    assert f"report       2 runs compared: {page}" in ended.stdout
    assert "Which is faster" in page.read_text()
    assert all((folder.path / "report.html").is_file() for folder in folders)


def test_a_run_that_nobody_knows_or_that_goes_on(recipe: Command) -> None:
    folder = made_run(recipe.home)
    (folder.path / "result.json").unlink()
    ended = recipe("report", folder.run_id)
    assert ended.returncode == 2
    assert "has left no result yet" in ended.stderr
    assert "no such run" in recipe("report", "nobody").stderr


def test_a_report_that_fails_is_nobodys_loss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = {"run_id": "made-20261121-051200-9f3a", "phases": 7}
    assert write_run_report(tmp_path, result) is None
    assert "was not written" in caplog.text


def test_neither_help_nor_the_terminal_needs_what_pages_need() -> None:
    code = (
        "import sys; from runners.cli import main\n"
        "try: main(['report', '--help'])\nexcept SystemExit: pass\n"
        "sys.exit(bool({'jinja2', 'plotly', 'runners.reporting.page'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.real
def test_every_run_ends_with_its_page_and_runs_of_a_matrix_with_one_over_all(recipe: Command, tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text("extends: local-smoke\nname: two\nmatrix: {workload.concurrency: [1, 2]}\n")
    ended = recipe("up", str(file))
    assert ended.returncode == 0, ended.stderr
    (page,) = (recipe.home / "reports").iterdir()
    assert f"report       2 runs compared: {page}" in ended.stdout
    for folder in recipe.run_folders():
        assert f"report       {folder}/report.html" in ended.stdout
        text = (folder / "report.html").read_text()
        assert CSP in text
        assert folder.name in text
        assert not any(artifact["path"] == "report.html" for artifact in artifacts(folder))


@pytest.mark.real
def test_a_run_that_failed_has_a_page_too(recipe: Command) -> None:
    ended = recipe("up", "local-smoke", "--set", "limits.deadlines.launch=0.2s")
    assert ended.returncode == 6
    text = (recipe.run_folder() / "report.html").read_text()
    assert "failed in launch" in text
    assert "raise limits.deadlines.launch" in text


def artifacts(folder: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((folder / "result.json").read_text())["artifacts"]
    return found


MINIMAL = {"run_id": "old-20260102-030405-abcd", "recipe": "old", "outcome": {"status": "completed"}, "exit_code": 0}


@pytest.mark.parametrize(
    "result",
    [
        {},
        MINIMAL,
        {**MINIMAL, "outcome": {"status": "failed"}, "exit_code": 99},
        {**MINIMAL, "requests": {"ok": 3}, "throughput": {"prompt_tokens": 5}, "latency": {}},
        {**MINIMAL, "release": {"state": "may-still-bill"}, "cost": {"total_usd": 0.5}},
    ],
)
def test_a_result_that_says_little_is_told_as_far_as_it_goes(recipe: Command, result: dict[str, object]) -> None:
    folder = recipe.home / "runs" / str(MINIMAL["run_id"])
    (folder / "outputs").mkdir(parents=True)
    (folder / "outputs" / "a-analysis-0000.json").write_text('{"summ')
    (folder / "result.json").write_text(json.dumps(result))
    ended = recipe("report", folder.name)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"files        {folder}" in ended.stdout


@pytest.mark.parametrize("text", ["", '{"run_id": "o', "[]"])
def test_a_torn_result_is_no_bug(recipe: Command, text: str) -> None:
    folder = recipe.home / "runs" / str(MINIMAL["run_id"])
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(text)
    ended = recipe("report", folder.name)
    assert ended.returncode == 2
    assert "result.json is no result" in ended.stderr


@pytest.mark.parametrize(
    "result",
    [
        {**MINIMAL, "outcome": {"status": "dreamt"}, "documents": None, "cost": {"total_usd": "dear"}},
        {**MINIMAL, "release": {"state": "may-still-bill"}, "phases": [{"name": "drive"}, 5], "warnings": [None]},
        {**MINIMAL, "requests": {"ok": 3}, "throughput": {"peak_at": [{"kind": "prompt"}], "engine_counters": {}}},
        {**MINIMAL, "workload": {"kind": "load"}, "artifacts": [{"path": "a", "bytes": "many"}, "b"]},
        {**MINIMAL, "requests": {"ok": 3}, "workload": {"kind": "load", "points": [{"name": "c1"}]}},
    ],
)
def test_a_result_of_another_shape_is_no_bug(recipe: Command, result: dict[str, object]) -> None:
    folder = recipe.home / "runs" / str(MINIMAL["run_id"])
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    ended = recipe("report", folder.name)
    assert ended.returncode in (0, 2)
    assert "bug" not in ended.stderr

"""recipe runs as a user calls it; tags and a month's budget from `recipe up` to the log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Lease
from provisioners.journal import Journal
from runners.cli import main
from runners.events import PhaseStarted
from runners.ledger import Known, Ledger
from tests.conftest import Command
from tests.emulators.many_runs import synthetic

ROOT = Path(__file__).parents[2]
COUNT = 60


class Here:
    """The command in this process, on a log of some runs."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = main(["runs", *arguments])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def lines(self, *arguments: str) -> list[str]:
        code, out, _ = self(*arguments)
        assert code == 0
        return [line.rstrip() for line in out.splitlines()]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    monkeypatch.setenv("RECIPE_HOME", str(tmp_path))
    Ledger(tmp_path).insert_all(synthetic(COUNT), origin="elsewhere")
    return Here(capsys)


def test_twenty_of_the_newest_are_shown_with_tags_and_hardware(runs: Here) -> None:
    header, *lines = runs.lines()
    columns = "run  status  time  cost  prompt tok/s  output tok/s  docs  tags  gpu  from  model  engine"
    assert header.split() == columns.split()
    newest = list(synthetic(COUNT))[-1]
    assert len(lines) == 20
    assert lines[0].startswith(newest["run_id"])
    assert f"{newest['documents']['done']}/12" in lines[0]


def test_filters_and_sorting_work_together(runs: Here) -> None:
    expected = sorted(
        (r for r in synthetic(COUNT) if r["engine"]["name"] == "vllm" and "lead" in r["model"]["identifier"]),
        key=lambda r: -r["cost"]["total_usd"],
    )
    _, *lines = runs.lines("--engine", "vllm", "--model", "LEAD", "--sort", "-cost")
    assert [line.split()[0] for line in lines] == [r["run_id"] for r in expected]
    assert runs.lines("--engine", "vllm", "--model", "lead", "--sort=-cost")[1:] == lines


def test_a_list_shows_what_it_is_sorted_by(runs: Here) -> None:
    header, first, *_ = runs.lines("--sort", "usd/document")
    assert "$/doc" in header
    assert "$" in first


def test_many_lines_are_the_same_as_few(runs: Here, tmp_path: Path) -> None:
    few = [line.split() for line in runs.lines("--limit", "20")]
    Ledger(tmp_path).insert_all(synthetic(400, seed=8), origin="more")
    many = [line.split() for line in runs.lines("--limit", "1000")]
    assert len(many) > 400
    assert many[0] == few[0]
    assert [line for line in many if line in few] == few


def test_json_is_every_result_as_it_is_and_what_is_known_of_the_others(runs: Here, tmp_path: Path) -> None:
    Ledger(tmp_path).begin("going-1", "going", "d", datetime.now(UTC).isoformat(), os.getpid(), Known(model="lead"))
    _, out, _ = runs("--json", "--limit", "1000")
    found = {run["run_id"]: run for run in json.loads(out)["runs"]}
    going = found.pop("going-1")
    assert (going["outcome"]["status"], going["model"]["identifier"], going["tags"]) == ("running", "lead", [])
    assert going["cost"] == {"price_usd_per_h": None, "total_usd": None}
    assert found == {r["run_id"]: r for r in synthetic(COUNT)}
    assert json.loads(runs("--json", "--recipe", "nobody")[1]) == {"runs": []}


def test_a_run_that_goes_on_shows_its_phase_its_time_and_its_dollars(runs: Here, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin("going-1", "going", "d", datetime.now(UTC).isoformat(), os.getpid())
    Journal(ledger.path).intend(Lease(provider="x", name="m", run_id="going-1", price_usd_per_h=360_000.0))
    ledger.record("going-1", PhaseStarted("launch"))
    (_, line) = runs.lines("--status", "running")
    assert line.startswith("going-1")
    assert "running in launch" in line
    assert "$" in line


def test_json_tells_of_every_run_in_the_same_places(runs: Here, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin("going-1", "going", "d", datetime.now(UTC).isoformat(), os.getpid())
    ledger.begin("lost-1", "going", "d", datetime.now(UTC).isoformat(), 2**22 + 1)
    for run_id in ("going-1", "lost-1"):
        Journal(ledger.path).intend(Lease(provider="x", name=run_id, run_id=run_id, price_usd_per_h=360_000.0))
    told = json.loads(runs("--json", "--limit", "100")[1])["runs"]
    assert {run["outcome"]["status"] for run in told} >= {"completed", "running", "lost"}
    assert all(run["cost"]["total_usd"] > 0 for run in told)
    names = ("run_id", "recipe", "recipe_digest", "variant", "tags", "started_at", "offer", "model", "engine")
    assert [name for run in told for name in names if name not in run] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--status", "fialed"], "did you mean failed?"),
        (["--sort", "-csot"], "did you mean cost?"),
        (["--by", "moth"], "did you mean month?"),
        (["--since", "soon"], "write 2026-11-01"),
        (["--min-cost", "3", "--max-cost", "2"], "no run is both"),
        (["--min-cost", "nan"], "--min-cost nan: not a sum of money"),
        (["--max-cost", "inf"], "--max-cost inf: not a sum of money"),
        (["--min-cost", "-1"], "write --min-cost 0.5"),
        (["--since", "0d"], "--since 0d: not a time"),
        (["--since", "2026-11-02", "--until", "2026-11-01"], "is not after --since 2026-11-02"),
        (["--since", "2026-11-02", "--until", "2026-11-02"], "no run began between"),
        (["--tag", ""], "--tag is empty"),
        (["--recipe", " "], "name a recipe"),
        (["--limit", "0"], "must be at least 1"),
        (["--limit", "99999999999999999999"], "at most 1,000,000,000"),
        (["--by", "day", "--sort", "provider"], "totals by day are not sorted so"),
        (["--by", "day", "--limit", "99999999999999999999"], "at most"),
    ],
)
def test_what_is_misspelt_is_refused_with_what_was_meant(runs: Here, arguments: list[str], said: str) -> None:
    code, out, err = runs(*arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_an_empty_answer_says_what_was_asked_for_and_what_may_have_been_meant(runs: Here) -> None:
    lines = runs.lines("--engine", "vlm2", "--status", "failed", "--since", "2w")
    assert lines == [
        "no runs with --engine vlm2 --status failed --since 2w",
        "no run has engine vlm2; did you mean vllm?",
    ]
    assert runs.lines("--status", "lost") == ["no runs with --status lost"]


def test_totals_have_a_line_each_and_one_for_all(runs: Here) -> None:
    header, *lines = runs.lines("--by", "tag")
    assert header.split()[:5] == ["tag", "runs", "failed", "hours", "cost"]
    assert any(line.startswith("(no tag)") for line in lines)
    (total,) = [line for line in lines if line.startswith("total")]
    assert total.split()[1] == str(COUNT)
    assert lines[-1] == "a run with several tags counts under each of them, and once in the total"
    months = runs.lines("--by", "month", "--limit", "3")
    assert [line.split()[0] for line in months[1:5]] == ["2026-10", "2026-11", "2026-12", "total"]
    assert "in UTC" in months[-1]


def test_of_totals_the_last_times_or_the_most_dollars_are_shown_and_the_others_named(runs: Here) -> None:
    def told(*arguments: str) -> tuple[list[str], str]:
        _, *lines = runs.lines(*arguments)
        end = next(i for i, line in enumerate(lines) if line.startswith("total"))
        return [line.split()[0] for line in lines[:end]], " ".join(lines[end + 1 :])

    days, _ = told("--by", "day")
    assert told("--by", "day", "--limit", "2")[0] == days[-2:]
    assert f"{len(days) - 2} more are not shown, and counted in the total" in told("--by", "day", "--limit", "2")[1]
    recipes, notes = told("--by", "recipe")
    assert "not shown" not in notes
    assert told("--by", "recipe", "--limit", "1")[0] == recipes[:1]
    assert json.loads(runs("--by", "recipe", "--limit", "1", "--json")[1])["left_out"] == len(recipes) - 1


@pytest.mark.parametrize(("sort", "figure"), [("cost", "usd"), ("prompt-tokens", "prompt_tokens"), ("recipe", "key")])
def test_totals_are_sorted_by_a_figure_either_way(runs: Here, sort: str, figure: str) -> None:
    def told(*arguments: str) -> list[Any]:
        return [t[figure] for t in json.loads(runs("--by", "recipe", "--json", *arguments)[1])["totals"]]

    known = sorted(value for value in told() if value is not None)
    assert len(known) > 1
    assert [v for v in told("--sort", sort) if v is not None] == known
    assert [v for v in told(f"--sort=-{sort}") if v is not None] == known[::-1]
    assert told(f"--sort=-{sort}", "--limit", "1") == known[-1:]


def test_totals_as_json_are_their_figures(runs: Here) -> None:
    said = json.loads(runs("--by", "engine", "--json")[1])
    assert said["by"] == "engine"
    assert sum(total["runs"] for total in said["totals"]) == said["total"]["runs"] == COUNT
    assert said["total"]["usd"] == pytest.approx(sum(r["cost"]["total_usd"] for r in synthetic(COUNT)))


@pytest.mark.parametrize("arguments", [[], ["--model", "lead", "--sort", "-cost"], ["--by", "day"], ["--json"]])
def test_a_list_imports_nothing_heavy(runs: Here, arguments: list[str]) -> None:
    """Each of these takes as long as finding the runs among a hundred thousand."""
    heavy = ("pydantic", "rich", "psutil", "yaml", "aiohttp", "orjson", "runners.plan", "provisioners.contract")
    code = f"import sys; from runners.cli import main; main(['runs', *{arguments!r}])\n"
    code += f"sys.exit(', '.join(set({heavy!r}) & set(sys.modules)) or 0)"
    assert runs.lines()
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout


def test_a_log_that_is_empty_says_how_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECIPE_HOME", str(tmp_path / "new"))
    assert Here(capsys).lines() == ["no runs yet; try recipe up local-smoke"]
    assert Here(capsys).lines("--by", "day") == ["no runs yet; try recipe up local-smoke"]


@pytest.mark.real
def test_tags_go_from_the_command_line_to_the_log(recipe: Command) -> None:
    ended = recipe("up", "local-smoke", "--tag", "nightly", "--tag", "team:search", "--tag", "nightly", "--json")
    (result,) = json.loads(ended.stdout)["runs"]
    assert result["tags"] == ["nightly", "team:search"]
    assert json.loads((recipe.run_folder() / "resolved.json").read_text())["tags"] == result["tags"]
    plain = json.loads(recipe("up", "local-smoke", "--json").stdout)["runs"][0]
    assert (plain["tags"], plain["recipe_digest"]) == ([], result["recipe_digest"])
    found = json.loads(recipe("runs", "--tag", "team:search", "--json").stdout)["runs"]
    assert [run["run_id"] for run in found] == [result["run_id"]]


def test_what_is_no_tag_is_refused(recipe: Command) -> None:
    ended = recipe("up", "local-smoke", "--tag", "two words")
    assert (ended.returncode, recipe.run_folders()) == (2, [])
    assert "--tag two words: not a tag" in ended.stderr


@pytest.mark.real
def test_a_month_that_would_cost_too_much_is_refused_before_anything_begins(recipe: Command) -> None:
    assert recipe("up", "local-smoke").returncode == 0
    refused = recipe("up", "local-smoke", "--budget-month", "0.000001")
    assert refused.returncode == 3
    assert "would be above the budget of" in refused.stderr
    assert "raise --budget-month to at least $0.01" in refused.stderr
    assert len(recipe.run_folders()) == 1
    team = {"RECIPE_BUDGET_MONTH": "0.000001"}
    planned = recipe("plan", "local-smoke", "--json", env=team)
    assert planned.returncode == 3
    (plan,) = json.loads(planned.stdout)["plans"]
    (finding,) = [f for f in plan["findings"] if f["code"] == "budget-month"]
    assert finding["numbers"]["spent_usd"] > 0
    assert recipe("plan", "local-smoke", "--budget-month", "50", env=team).returncode == 0
    forced = recipe("up", "local-smoke", "--force", "budget-month", "--json", env=team)
    assert forced.returncode == 0
    assert json.loads(forced.stdout)["runs"][0]["forced"][0]["code"] == "budget-month"


@pytest.mark.real
def test_a_month_that_is_nearly_spent_is_warned_of_where_people_and_programs_see_it(recipe: Command) -> None:
    paid = ("local-smoke", "--set", "resources.price_per_hour=36")
    usd = json.loads(recipe("plan", *paid, "--json").stdout)["plans"][0]["forecast"]["total_usd"]["likely"]
    ended = recipe("up", *paid, "--budget-month", f"{usd / 0.9:.9f}", "--json")
    assert ended.returncode == 0
    (result,) = json.loads(ended.stdout)["runs"]
    (warning,) = [text for text in result["warnings"] if "the budget of" in text]
    assert f"warning {warning}" in " ".join(ended.stderr.split())


def test_the_table_of_a_matrix_tells_of_warnings_and_commands_stay_within_the_budget(recipe: Command) -> None:
    usd = json.loads(recipe("plan", "local-smoke", "--json").stdout)["plans"][0]["forecast"]["total_usd"]["likely"]
    grid = ("local-smoke", "--set", "matrix={workload.seed: [1, 2]}", "--repeat", "3")
    nearly = recipe("plan", *grid, "--budget-month", f"{6 * usd / 0.9:.9f}")
    assert nearly.returncode == 0
    assert "go, 1 warning" in nearly.stdout
    assert "is 90% of the budget of" in nearly.stdout or "might be above the budget of" in nearly.stdout
    assert "2 of 2 runs go, each 3 times" in nearly.stdout
    above = recipe("up", *grid, "--dry-run", "--budget-month", f"{4 * usd:.9f}")
    assert above.returncode == 3
    assert "refused: budget month, see below" in above.stdout
    assert "would be above the budget of" in above.stdout
    assert "why:" not in above.stdout
    one = recipe("plan", "local-smoke", "--repeat", "3", "--budget-month", "50")
    assert one.stdout.splitlines()[-1] == "go: recipe up local-smoke --repeat 3 --budget-month 50"
    assert "repeat    3 runs of it, in turn: likely" in one.stdout


def test_a_matrix_is_held_against_the_budget_as_a_whole(recipe: Command) -> None:
    usd = json.loads(recipe("plan", "local-smoke", "--json").stdout)["plans"][0]["forecast"]["total_usd"]["likely"]
    grid = ("local-smoke", "--set", "matrix={workload.seed: [1, 2, 3]}", "--budget-month", f"{2.5 * usd:.9f}", "--json")
    plans = json.loads(recipe("plan", *grid).stdout)["plans"]
    assert [plan["verdict"] for plan in plans] == ["go", "go", "refuse"]


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_budget_that_is_no_sum_is_refused(recipe: Command, text: str) -> None:
    ended = recipe("plan", "local-smoke", env={"RECIPE_BUDGET_MONTH": text})
    assert ended.returncode == 2
    assert f"RECIPE_BUDGET_MONTH {text}: not a sum of money" in ended.stderr
    assert "write RECIPE_BUDGET_MONTH=400" in ended.stderr

"""recipe check, on a real run: 0 if all is met, 8 with each reason if not, 2 for nonsense."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import Command, processes_of

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one real run, which every test has a copy of."""
    folder = tmp_path_factory.mktemp("ran")
    assert Command(folder / "home", folder)("up", "local-smoke").returncode == 0
    assert processes_of(folder / "home") == []
    return folder / "home"


@pytest.fixture
def ran(run_once: Path, recipe: Command) -> Command:
    shutil.copytree(run_once, recipe.home)
    return recipe


def test_a_run_is_held_against_what_is_asked_of_it(ran: Command) -> None:
    result = json.loads((ran.run_folder() / "result.json").read_text())
    plain = ran("check", "local-smoke")
    assert (plain.returncode, plain.stderr) == (0, "")
    assert plain.stdout.splitlines()[0] == f"{result['run_id']}   met"
    met = ran("check", result["run_id"], "--min-output-tokens-per-s", "1", "--max-cost", "1", "--max-duration", "5m")
    assert met.returncode == 0, met.stderr
    broken = ran("check", "local-smoke", "--max-cost", "0", "--max-e2e-p99", "0s", "--require", "documents.done>3")
    assert broken.returncode == 8
    assert "NOT MET: 3 of 6 conditions" in broken.stdout
    for reason in ("max-cost", "max-e2e-p99", "documents.done 3, not > 3"):
        assert reason in broken.stderr
    assert f"next:  recipe report {result['run_id']}" in broken.stderr


def test_one_json_document_says_it_all(ran: Command) -> None:
    ended = ran("check", "local-smoke", "--max-cost", "0", "--json")
    said = json.loads(ended.stdout)
    assert (ended.returncode, said["met"], said["baseline"]) == (8, False, None)
    checks = {check["name"]: check for check in said["runs"][0]["checks"]}
    assert [name for name, check in checks.items() if not check["met"]] == ["max-cost"]
    result = json.loads((ran.run_folder() / "result.json").read_text())
    assert checks["max-cost"]["value"] == result["cost"]["total_usd"]


def test_a_junit_file_has_a_case_for_each_condition(ran: Command) -> None:
    file = ran.cwd / "recipe.xml"
    ended = ran("check", "local-smoke", "--max-cost", "0", "--require", "engine.name==<&>\x07", "--junit", str(file))
    assert ended.returncode == 8
    (suite,) = ElementTree.parse(file).getroot()
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == (ran.run_folder().name, "5", "2")
    failures = {case.get("name"): case.findtext("failure") for case in suite if case.find("failure") is not None}
    assert set(failures) == {"max-cost", "engine.name"}
    assert failures["engine.name"] == "llamacpp, not == <&>\ufffd"
    nowhere = ran("check", "local-smoke", "--junit", "no/such/folder.xml")
    assert (nowhere.returncode, "--junit no/such/folder.xml" in nowhere.stderr) == (2, True)


def test_a_baseline_is_a_run_or_its_file_from_wherever_it_was_kept(ran: Command, tmp_path: Path) -> None:
    folder = ran.run_folder()
    kept = tmp_path / "baseline.json"
    shutil.copy(folder / "result.json", kept)
    for baseline in (folder.name, str(folder), str(kept)):
        ended = ran("check", "local-smoke", "--baseline", baseline, "--tolerance", "0%")
        assert ended.returncode == 0, ended.stderr
        assert f"beside {folder.name}" in ended.stdout
    faster = json.loads(kept.read_text())
    faster["throughput"]["output_tokens_per_s"] *= 2
    kept.write_text(json.dumps(faster))
    worse = ran("check", "local-smoke", "--baseline", str(kept))
    assert worse.returncode == 8
    assert "baseline output_tokens_per_s" in worse.stderr
    assert "worse by 50.0%" in worse.stderr
    assert ran("check", "local-smoke", "--baseline", str(kept), "--metric", "prompt_tokens_per_s").returncode == 0


def test_a_run_that_was_not_completed_never_passes(recipe: Command) -> None:
    assert recipe("up", "local-smoke", "--set", "limits.deadlines.launch=1ms").returncode == 6
    ended = recipe("check", "local-smoke", "--max-failed", "100")
    assert ended.returncode == 8
    assert "failed in launch" in ended.stderr
    nothing = recipe("check", "local-smoke", "--baseline", "local-smoke")
    assert (nothing.returncode, "that run was failed" in nothing.stderr) == (2, True)
    (recipe.run_folder() / "result.json").unlink()
    lost = recipe("check", "local-smoke")
    assert (lost.returncode, "there is no result" in lost.stderr) == (8, True)


NONSENSE = (
    ["no-such-run"],
    ["local-smoke", "--max-cost", "nan"],
    ["local-smoke", "--max-ttft-p99", "12"],
    ["local-smoke", "--tolerance", "10%"],
    ["local-smoke", "--baseline", "no-such-run"],
    ["local-smoke", "--baseline", "pyproject.toml"],
    ["local-smoke", "--baseline", "local-smoke", "--tolerance", "200%"],
    ["local-smoke", "--baseline", "local-smoke", "--metric", "beauty"],
    ["local-smoke", "--require", "cost.beauty>1"],
    ["local-smoke", "--require", "cost"],
)


def test_nonsense_is_a_wrong_command_line(ran: Command) -> None:
    (ran.cwd / "pyproject.toml").write_text("[project]\n")
    for arguments in NONSENSE:
        ended = ran("check", *arguments)
        assert (ended.returncode, ended.stdout) == (2, ""), arguments
        assert ended.stderr.startswith("error: ")


def test_reasons_say_of_which_run_they_are_and_where_all_of_them_are_told(ran: Command) -> None:
    assert ran("up", "local-smoke").returncode == 0
    runs = [folder.name for folder in ran.run_folders()]
    ended = ran("check", *runs, "--max-cost", "0")
    assert ended.returncode == 8
    for run in runs:
        assert f"{run}: max-cost" in ended.stderr
    assert f"next:  recipe report {runs[0]} {runs[1]}" in ended.stderr


def test_a_baseline_that_was_another_thing_is_told_and_a_newer_ones_is_refused(ran: Command) -> None:
    kept = json.loads((ran.run_folder() / "result.json").read_text())
    file = ran.cwd / "baseline.json"
    other = {**kept, "recipe": "other", "offer": {**kept["offer"], "accelerator": "A40", "count": 1}}
    file.write_text(json.dumps(other))
    ended = ran("check", "local-smoke", "--baseline", "baseline.json")
    assert ended.returncode == 0
    assert f"warning: {kept['run_id']} is held against a run that is not like it" in ended.stderr
    assert "recipe is local-smoke, was other; machine is" in ended.stderr
    said = json.loads(ran("check", "local-smoke", "--baseline", "baseline.json", "--json").stdout)
    assert "recipe is local-smoke, was other" in said["warnings"][0]
    assert "warning" not in ran("check", "local-smoke", "--baseline", "local-smoke").stderr
    file.write_text(json.dumps({**kept, "schema_version": 7}))
    newer = ran("check", "local-smoke", "--baseline", "baseline.json")
    assert (newer.returncode, "a newer recipe wrote it: schema 7" in newer.stderr) == (2, True)
    missing = ran("check", "local-smoke", "--baseline", "nothere.json")
    assert (missing.returncode, "there is no such file" in missing.stderr) == (2, True)


def test_a_matrix_is_checked_whole_also_where_a_variant_failed(recipe: Command) -> None:
    (recipe.cwd / "many.yaml").write_text("extends: local-smoke\nmatrix: {workload.max_tokens: [8, 9]}\n")
    assert recipe("up", "many.yaml").returncode == 0
    assert recipe("check", "many.yaml").stdout.count("   met") == 2
    assert recipe("export", "many.yaml").stdout.count("\n") == 2
    assert recipe("up", "many.yaml", "--set", "limits.deadlines.launch=1ms").returncode == 6
    ended = recipe("check", "many.yaml")
    assert (ended.returncode, ended.stderr.count("failed in launch")) == (8, 2)

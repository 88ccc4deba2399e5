"""The GitHub action and the GitLab job, run for real: their own scripts, in the shell that they would have."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import RECIPE, Command

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
DOCS = (ROOT / "docs" / "ci.md").read_text()
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


def documented(name: str) -> str:
    """The YAML block of docs/ci.md below this mark."""
    match = re.search(rf"<!-- {name} -->\n```yaml\n(.*?)```", DOCS, re.DOTALL)
    assert match is not None, name
    return match[1]


def scripts() -> list[str]:
    return [step["run"] for step in ACTION["runs"]["steps"] if "run" in step]


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ("github-actions", (ROOT / "action.yml").read_text()),
        ("github-workflows", documented("github")),
        ("github-workflows", documented("github rented")),
        ("gitlab-ci", documented("gitlab")),
    ],
)
def test_it_is_what_its_schema_asks_for(schema: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "it.yml"
    file.write_text(text)
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_nothing_that_a_user_writes_is_a_part_of_a_script() -> None:
    assert len(scripts()) == 5
    for script in scripts():
        assert EXPRESSION.search(script) is None


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say() -> None:
    for script in scripts():
        checked = subprocess.run(["shellcheck", "-s", "bash", "-"], input=script, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


def test_the_documented_inputs_are_the_actions() -> None:
    for name in ("github", "github rented"):
        for job in yaml.safe_load(documented(name))["jobs"].values():
            for step in job["steps"]:
                if "gpu-recipe@" in step.get("uses", ""):
                    assert set(step["with"]) <= set(ACTION["inputs"])


@dataclass
class Job:
    """A runner that does what GitHub's does with the scripts of a composite action."""

    recipe: Command
    temp: Path
    inputs: dict[str, str]
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    said: str = ""

    def __post_init__(self) -> None:
        known = {name: str(one.get("default", "")) for name, one in ACTION["inputs"].items()}
        self.inputs = {**known, **self.inputs}
        self.summary = self.temp / "summary.md"
        self.summary.touch()

    def run(self) -> int:
        """Every step; returns the exit code of the first that failed, or 0."""
        for step in ACTION["runs"]["steps"]:
            failed = any(self.codes.values())
            if "run" in step and self._wanted(step.get("if", "success()"), failed):
                self.codes[step["name"]] = self._step(step)
        return next((code for code in self.codes.values() if code), 0)

    def value(self, text: str) -> str:
        """A text with its expressions replaced."""
        return EXPRESSION.sub(lambda match: self._expression(match[1]), text)

    def _expression(self, path: str) -> str:
        match path.split("."):
            case ["inputs", name]:
                return self.inputs[name]
            case ["steps", step, "outputs", name]:
                return self.outputs.get(step, {}).get(name, "")
            case ["github", "action_path"]:
                return str(ROOT)
        raise AssertionError(path)

    def _wanted(self, condition: str, failed: bool) -> bool:
        parts = [part.strip() for part in condition.split("&&")]
        if "always()" not in parts and failed:
            return False
        for part in parts:
            if part in ("always()", "success()"):
                continue
            left, sign, right = part.split(" ")
            if (self._expression(left) == right.strip("'")) is not (sign == "=="):
                return False
        return True

    def _step(self, step: dict[str, Any]) -> int:
        output, env_file = self.temp / "output", self.temp / "env"
        output.write_text("")
        script = self.temp / "script.sh"
        script.write_text(step["run"])
        env = self.recipe.environment(
            RUNNER_TEMP=str(self.temp),
            GITHUB_OUTPUT=str(output),
            GITHUB_ENV=str(env_file),
            GITHUB_STEP_SUMMARY=str(self.summary),
            PATH=f"{RECIPE.parent}{os.pathsep}{os.environ['PATH']}",
            **{name: self.value(value) for name, value in step.get("env", {}).items()},
        )
        # As GitHub starts `shell: bash`.
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        ended = subprocess.run(command, cwd=self.recipe.cwd, env=env, capture_output=True, text=True, timeout=240)
        self.said += ended.stdout + ended.stderr
        self.outputs[step.get("id", step["name"])] = _outputs(output.read_text())
        return ended.returncode


def _outputs(text: str) -> dict[str, str]:
    """As GitHub reads them: name=value, or name<<END, lines, END."""
    found, lines = {}, iter(text.splitlines())
    for line in lines:
        name, sign, value = re.fullmatch(r"([\w-]+)(=|<<)(.*)", line).groups()  # type: ignore[union-attr]
        if sign == "<<":
            block = iter(lambda: next(lines), value)
            value = "\n".join(block)
        found[name] = value
    return found


@pytest.mark.real
def test_a_run_that_is_what_was_asked_of_it(recipe: Command, tmp_path: Path) -> None:
    asked = "--min-output-tokens-per-s 1\n--max-cost 1"
    job = Job(
        recipe, tmp_path, {"recipe": "local-smoke", "version": "installed", "check": asked, "args": "--max-cost 1"}
    )
    assert job.run() == 0, job.said
    result = json.loads((recipe.run_folder() / "result.json").read_text())
    outputs = {name: job.value(one["value"]) for name, one in ACTION["outputs"].items()}
    assert (outputs["run_id"], outputs["met"]) == (result["run_id"], "true")
    assert float(outputs["cost"]) == result["cost"]["total_usd"]
    assert job.outputs["up"]["folders"] == str(recipe.run_folder())
    summary = job.summary.read_text()
    assert "| `local-smoke` |" in summary
    assert f"{result['run_id']}   met" in summary
    assert result["run_id"] in Path(outputs["report"]).read_text()


@pytest.mark.real
def test_a_run_that_is_not_fails_the_job_and_says_why(recipe: Command, tmp_path: Path) -> None:
    job = Job(
        recipe, tmp_path, {"recipe": "local-smoke", "version": "installed", "check": "--min-output-tokens-per-s 1e9"}
    )
    assert job.run() == 8
    assert job.outputs["verdict"]["met"] == "false"
    summary = job.summary.read_text()
    assert "NOT MET" in summary
    assert "below 1,000,000,000 tok/s" in summary
    assert "| `local-smoke` |" in summary
    assert "::error::recipe ended with 8" in job.said


@pytest.mark.real
def test_a_recipe_that_is_refused_and_inputs_that_would_do_harm(recipe: Command, tmp_path: Path) -> None:
    """What would run in a script that it were a part of is a wrong argument, and nothing else."""
    harm = tmp_path / "harm"
    evil = f'local-smoke$(touch${{IFS}}{harm}) ; touch {harm} `touch {harm}` "&&" touch {harm}'
    job = Job(recipe, tmp_path, {"recipe": evil, "version": "installed", "check": evil, "args": "--json --max-cost *"})
    assert job.run() == 2, job.said
    assert not harm.exists()
    assert job.outputs["up"]["run_id"] == ""
    summary = job.summary.read_text()
    assert "`recipe up` ended with 2" in summary
    assert "argument --max-cost: invalid float value: '*'" in summary


@pytest.mark.real
@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        ("--set resources.price_per_hour=36 --max-cost 0.0001", 3, "the run is likely to cost"),
        ("--budget-month 0.0000001", 3, "raise --budget-month"),
        ("--max-cost nothing", 2, "--max-cost"),
        ("--detach", 2, "--detach: a job ends what it has started"),
        ("--dry-run", 0, "go: recipe up local-smoke"),
        ("--dry-run --budget-month 0.0000001", 3, "raise --budget-month"),
    ],
)
def test_why_nothing_ran_stands_in_the_summary(
    recipe: Command, tmp_path: Path, args: str, code: int, reason: str
) -> None:
    job = Job(recipe, tmp_path, {"recipe": "local-smoke", "version": "installed", "args": args})
    assert job.run() == code, job.said
    assert job.outputs["verdict"]["met"] == "false"
    assert job.outputs["up"].get("run_id", "") == ""
    assert recipe.run_folders() == []
    summary = job.summary.read_text()
    assert f"No run was begun: `recipe up` ended with {code}." in summary
    assert reason in summary
    assert reason in job.said
    assert "Traceback" not in job.said


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (None, "`recipe up` was not begun: a step before it failed."),
        (
            "release    done",
            "`recipe up` was stopped from outside. What it had said by then:\n\n````text\nrelease    done",
        ),
    ],
)
def test_a_job_that_is_stopped_claims_nothing_of_its_run(
    recipe: Command, tmp_path: Path, said: str | None, told: str
) -> None:
    job = Job(recipe, tmp_path, {"recipe": "local-smoke"})
    if said is not None:
        (tmp_path / "recipe-up.log").write_text(f"{said}\n")
    (summary,) = (step for step in ACTION["runs"]["steps"] if step.get("id") == "summary")
    assert job._step(summary) == 0, job.said
    assert job.summary.read_text().startswith(told)


@pytest.mark.real
def test_a_recipe_that_is_refused_beside_one_that_ran_is_told_and_ends_no_quotation(
    recipe: Command, tmp_path: Path
) -> None:
    (tmp_path / "dear.yaml").write_text("extends: local-smoke\nname: dear\nlimits: {max_cost: 0}\n")
    job = Job(recipe, tmp_path, {"recipe": "local-smoke dear.yaml", "version": "installed"})
    code = job.run()
    assert code != 0
    summary = job.summary.read_text()
    assert "raise limits.max_cost" in summary
    (tmp_path / "`````.yaml").write_text("engine: [\n")
    other = Job(recipe, tmp_path, {"recipe": "`````.yaml", "version": "installed"})
    other.summary.write_text("")
    assert other.run() == 2
    assert other.summary.read_text().count("````") == 2


@pytest.mark.real
@pytest.mark.parametrize("named", ["local-smoke", "recipes/mine.yaml", "recipes/matrix.yaml"])
def test_the_gitlab_job(recipe: Command, tmp_path: Path, named: str) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text("extends: local-smoke\nname: quick\n")
    matrix = "extends: local-smoke\nname: many\nmatrix: {workload.concurrency: [1, 2]}\n"
    (tmp_path / "recipes" / "matrix.yaml").write_text(matrix)
    (job,) = yaml.safe_load(documented("gitlab")).values()
    lines = [line for line in (*job["script"], *job["after_script"]) if "pip install" not in line]
    env = recipe.environment(RECIPE=named, PATH=f"{RECIPE.parent}{os.pathsep}{os.environ['PATH']}")
    command = ["bash", "-eo", "pipefail", "-c", "\n".join(lines)]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    page, table, junit = (
        (tmp_path / name).read_text() for name in ("report.html", "runs.md", job["artifacts"]["reports"]["junit"])
    )
    assert 'failures="0"' in junit
    assert len(recipe.run_folders()) == (2 if "matrix" in named else 1)
    for folder in recipe.run_folders():
        assert folder.name in page
        assert folder.name in junit
    assert table.count("\n| `") == len(recipe.run_folders()), table
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert {path for path in job["artifacts"]["paths"] if not path.startswith(".recipe")} <= left

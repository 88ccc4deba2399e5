"""`recipe export` and `recipe import` as a user runs them."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from pathlib import Path

import pytest

from runners.ledger import Ledger
from tests.conftest import Command, eventually
from tests.runners.exporting.made import keep, lines, request_row, result_of, run_id


@pytest.fixture
def log(recipe: Command) -> Command:
    """A log of three runs: two of one recipe, one of which failed, and one of another."""
    keep(recipe.home, result_of(run_id(1), tags=["nightly"]), requests_jsonl=lines(request_row(1)))
    outcome = {"status": "failed", "phase": "launch", "error": "out of memory"}
    keep(recipe.home, result_of(run_id(2), outcome=outcome))
    keep(recipe.home, result_of(run_id(3, "other"), begun="2026-01-03T00:00:00+00:00"))
    return recipe


def test_everything_goes_to_standard_output_the_oldest_first(log: Command) -> None:
    ended = log("export")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [json.loads(line)["run_id"] for line in ended.stdout.splitlines()] == [
        run_id(1),
        run_id(2),
        run_id(3, "other"),
    ]


def test_runs_are_chosen_as_recipe_runs_chooses_them(log: Command) -> None:
    chosen = {
        ("--recipe", "other"): [run_id(3, "other")],
        ("--tag", "nightly"): [run_id(1)],
        ("--status", "failed"): [run_id(2)],
        ("--since", "2026-01-03"): [run_id(3, "other")],
        ("other", run_id(1)): [run_id(3, "other"), run_id(1)],
        ("made", "--status", "completed"): [],
    }
    for arguments, expected in chosen.items():
        ended = log("export", *arguments)
        assert [json.loads(line)["run_id"] for line in ended.stdout.splitlines()] == expected, arguments
        assert ended.returncode == 0
        assert ("no runs are meant" in ended.stderr) == (not expected)


def test_a_files_name_says_its_format_and_it_is_there_whole_or_not_at_all(log: Command) -> None:
    for name in ("runs.csv", "runs.jsonl", "runs.parquet", "runs.md"):
        ended = log("export", "-o", name)
        assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
        assert f"{name}: 3 runs" in ended.stderr
    assert len(list(csv.DictReader((log.cwd / "runs.csv").open(newline="")))) == 3
    assert (log.cwd / "runs.parquet").read_bytes()[:4] == b"PAR1"
    assert "out of memory" in (log.cwd / "runs.md").read_text()
    assert sorted(p.name for p in log.cwd.iterdir()) == ["home", "runs.csv", "runs.jsonl", "runs.md", "runs.parquet"]


def test_a_format_that_is_named_goes_into_a_file_of_any_name(log: Command) -> None:
    for name, arguments in {"a.xyz": ("--format", "csv"), "all": ()}.items():
        ended = log("export", "-o", name, *arguments)
        assert (ended.returncode, (log.cwd / name).is_file()) == (0, True), ended.stderr


def test_a_file_that_is_there_is_overwritten_only_by_force(log: Command) -> None:
    (log.cwd / "a.csv").write_text("mine")
    ended = log("export", "-o", "a.csv")
    assert ended.returncode == 2
    assert "--force" in ended.stderr
    assert (log.cwd / "a.csv").read_text() == "mine"
    assert log("export", "-o", "a.csv", "--force").returncode == 0
    assert (log.cwd / "a.csv").read_text().startswith("run_id,")


def test_a_link_keeps_leading_where_it_leads_and_a_device_is_written_to(log: Command) -> None:
    (log.cwd / "target.csv").write_text("old")
    (log.cwd / "link.csv").symlink_to("target.csv")
    assert log("export", "-o", "link.csv", "-f").returncode == 0
    assert (log.cwd / "link.csv").is_symlink()
    assert (log.cwd / "target.csv").read_text().startswith("run_id,")
    ended = log("export", "-o", "/dev/stdout", "--format", "csv")
    assert ended.stdout.startswith("run_id,")
    assert log("export", "-o", "/dev/null").returncode == 0


def test_requests_say_whose_runs_have_none_here(log: Command) -> None:
    (log.home / "runs" / run_id(2)).rename(log.cwd / "gone")
    ended = log("export", "--what", "requests", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(ended.stdout))
    assert row["run_id"] == run_id(1)
    assert f"1 run of 3 left no requests here: {run_id(2)}" in ended.stderr


WRONG = {
    ("--format", "xls"): "one of csv, jsonl, markdown, mlflow, parquet, wandb",
    ("--format", "cvs"): "did you mean csv?",
    ("--format", "markdown", "--what", "requests"): "leave --what requests out",
    ("--format", "mlflow", "--what", "telemetry"): "takes whole runs",
    ("--format", "mlflow", "-o", "x"): "writes no file",
    ("--format", "csv", "--tracking-uri", "x"): "means nothing",
    ("-o", "all.xyz"): "one of .jsonl, .ndjson, .csv, .parquet, .pq, .md; or say which with --format",
    ("-o", "all.json"): "no format has the ending .json",
    ("-o", "."): "is a folder",
    ("-o", "no/such/x.csv"): "there is no such folder",
    ("nope",): "no such run",
    ("--status", "done"): "no run ends so",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_command_line_says_what_would_be_right(log: Command, arguments: tuple[str, ...]) -> None:
    ended = log("export", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert WRONG[arguments] in ended.stderr


@pytest.mark.parametrize(("name", "extra"), [("mlflow", "mlflow"), ("wandb", "wandb"), ("pyarrow", "parquet")])
def test_a_library_that_is_missing_is_named_with_the_command_that_brings_it(
    log: Command, name: str, extra: str
) -> None:
    (log.cwd / "hiding").mkdir()
    (log.cwd / "hiding" / f"{name}.py").write_text(f"raise ModuleNotFoundError('hidden', name={name!r})")
    ended = log("export", "--format", extra, env={"PYTHONPATH": str(log.cwd / "hiding")})
    assert ended.returncode == 2
    assert f"{name} is not installed" in ended.stderr
    assert f"pip install 'gpu-recipe[{extra}]'" in ended.stderr


def test_a_reader_that_has_seen_enough_is_no_error(log: Command) -> None:
    Ledger(log.home).insert_all([result_of(run_id(number)) for number in range(100, 400)], origin="x")
    process = log.start("export")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_an_import_says_what_became_of_each_run(log: Command, tmp_path: Path) -> None:
    other = Command(tmp_path / "elsewhere", tmp_path)
    (log.home / "runs" / run_id(2) / "result.json").write_text("{")
    planned = other("import", str(log.home), "--dry-run", "--json")
    assert json.loads(planned.stdout)["taken"] == 2
    ended = other("import", str(log.home), "--origin", "laptop")
    assert ended.returncode == 2
    assert f"{run_id(1)}   taken" in ended.stdout
    assert "2 taken, 0 here already, 1 refused" in ended.stdout
    assert f"{run_id(2)}   refused: its result.json cannot be read" in ended.stderr
    told = json.loads(other("import", str(log.home / "runs" / run_id(1)), "--json").stdout)
    assert (told["taken"], told["there"], told["refused"]) == (0, 1, 0)
    (row,) = csv.DictReader(io.StringIO(other("export", "made", "--format", "csv").stdout))
    assert row["origin"] == "laptop"
    assert other("import", "nothing").returncode == 2


@pytest.mark.real
def test_a_real_run_travels_to_another_machine_and_is_read_there(recipe: Command, tmp_path: Path) -> None:
    for _ in range(2):
        assert recipe("up", "local-smoke").returncode == 0
    assert recipe("up", "local-smoke", "--set", "engine.args.no_such_flag=1").returncode == 6
    other = Command(tmp_path / "elsewhere", tmp_path)
    ended = other("import", str(recipe.home))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "3 taken, 0 here already, 0 refused" in ended.stdout
    runs = [folder.name for folder in other.run_folders()]
    assert runs == [folder.name for folder in recipe.run_folders()]
    assert "local-smoke" in other("runs").stdout
    for run in runs:
        assert other("report", run).returncode == 0
    assert other("compare", *runs[:2]).returncode == 0
    for what in ("runs", "requests", "telemetry"):
        exported = [machine("export", "--what", what).stdout for machine in (recipe, other)]
        assert exported[0] == exported[1] != ""
    result = json.loads((recipe.home / "runs" / runs[0] / "result.json").read_text())
    (row,) = csv.DictReader(io.StringIO(recipe("export", runs[0], "--format", "csv").stdout))
    assert float(row["cost.total_usd"]) == result["cost"]["total_usd"]
    for phase in result["phases"]:
        assert float(row[f"phase_{phase['name']}_usd"]) == phase["usd"]
    # The forecast of this machine's next run knows nothing of the other's CPU.
    plan = json.loads(other("plan", "local-smoke", "--json").stdout)["plans"][0]
    assert run_ids_in(plan["forecast"], runs) == []


def run_ids_in(document: object, run_ids: list[str]) -> list[str]:
    text = json.dumps(document)
    return [run_id for run_id in run_ids if run_id in text]


@pytest.mark.real
def test_an_import_that_is_killed_is_completed_by_the_next(recipe: Command, tmp_path: Path) -> None:
    for number in range(60):
        keep(recipe.home, result_of(run_id(number)), engine_log="x" * 200_000)
    other = Command(tmp_path / "elsewhere", tmp_path)
    for killed_after in (1, 20):
        process = other.start("import", str(recipe.home))
        eventually(lambda count=killed_after: len(other.run_folders()) >= count, what="a run")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for folder in other.run_folders():
            assert json.loads((folder / "result.json").read_text())["run_id"] == folder.name
            assert (folder / "engine.log").stat().st_size == 200_000
    ended = other("import", str(recipe.home))
    assert ended.returncode == 0, ended.stderr
    assert len(other.run_folders()) == 60
    assert len(Ledger(other.home).rows()) == 60
    assert os.listdir(other.home / "importing") == ["lock"]
    assert other("import", str(recipe.home)).stdout.endswith("60 here already, 0 refused\n")


def test_what_is_wrong_is_said_and_not_that_nothing_is_meant(recipe: Command) -> None:
    """In an empty log, without the library."""
    hidden = recipe.cwd / "hidden" / "pyarrow"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('no', name='pyarrow')")
    ended = recipe("export", "-o", "x.parquet", env={"PYTHONPATH": str(hidden.parent)})
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: pyarrow is not installed")

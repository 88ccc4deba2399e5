"""recipe plan, fit and offers as a user calls them: on local recipes, the model that ships, an emulated RunPod."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recipes import catalogue
from tests.conftest import Command
from tests.emulators.hub import hub_emulator
from tests.emulators.runpod import SMALL, RunPod, emulated

MATRIX = """\
extends: local-smoke
name: grid
matrix: {workload.concurrency: [1, 2], workload.max_tokens: [32, 5000]}
"""
LEAD = str(catalogue.builtin_model("lead"))
TOO_LONG = ("--set", "workload.max_tokens=5000")


@pytest.fixture(scope="module")
def runpod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunPod]:
    with emulated(tmp_path_factory.mktemp("runpod")) as made:
        yield made


@pytest.fixture
def grid(recipe: Command) -> str:
    (recipe.cwd / "grid.yaml").write_text(MATRIX)
    return "grid.yaml"


def test_one_plan_is_a_screen_with_the_command_that_goes_on(recipe: Command) -> None:
    ended = recipe("plan", "local-smoke")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("local-smoke")
    assert "KV cache" in ended.stdout
    assert "serve_llamacpp.py" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "go: recipe up local-smoke"


def test_several_plans_are_a_table_and_one_that_is_refused_stops_none(recipe: Command, grid: str) -> None:
    ended = recipe("plan", grid)
    assert ended.returncode == 3
    assert "2 of 4 runs go, 2 refused" in ended.stdout
    assert ended.stdout.count("refused: the longest request") == 2
    plans = json.loads(recipe("plan", grid, "--json").stdout)["plans"]
    assert [plan["verdict"] for plan in plans] == ["go", "refuse", "go", "refuse"]


def test_the_refused_run_of_a_matrix_can_be_planned_alone_as_the_table_says(recipe: Command, grid: str) -> None:
    told = recipe("plan", grid).stdout.splitlines()[-1].removeprefix("why:")
    ended = recipe(*shlex.split(told)[1:])
    assert ended.returncode == 3
    assert ended.stdout.startswith("refused   the longest request needs")
    assert "exit 3" in ended.stdout.splitlines()[-1]


def test_a_check_can_be_forced_and_the_plan_says_so(recipe: Command) -> None:
    assert recipe("plan", "local-smoke", *TOO_LONG).returncode == 3
    ended = recipe("plan", "local-smoke", *TOO_LONG, "--force", "context")
    assert ended.returncode == 0
    assert "(forced)" in ended.stdout
    assert ended.stdout.splitlines()[-1].endswith("--force context")
    other = recipe("plan", "local-smoke", *TOO_LONG, "--force", "disk")
    assert other.returncode == 3


def test_without_pulumis_engine_a_plan_points_to_the_provisioner(recipe: Command) -> None:
    (recipe.cwd / "pod.yaml").write_text("extends: 2xA100-airoboros-70b\nresources: {provisioner: pulumi}\n")
    ended = recipe("plan", "pod.yaml", *SMALL, env={"PATH": "/usr/bin:/bin", "RUNPOD_API_KEY": "x"})
    assert ended.returncode == 4, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[0] == "refused   Pulumi's engine is not on this machine"
    assert ended.stdout.splitlines()[1].split() == ["pod.yaml:2:26", "resources.provisioner"]
    assert "recipe stack install" in ended.stdout.splitlines()[2]


def test_a_check_that_does_not_exist_cannot_be_forced(recipe: Command) -> None:
    for command in ("plan", "up"):
        ended = recipe(command, "local-smoke", "--force", "contxt")
        assert (ended.returncode, "did you mean context?" in ended.stderr) == (2, True)


@pytest.mark.real
def test_the_result_keeps_what_was_forced_and_nothing_else(recipe: Command) -> None:
    forced = ("--set", "limits.max_cost=0", "--force", "budget", "--force", "disk")
    ended = recipe("up", "local-smoke", *forced, "--json")
    (result,) = json.loads(ended.stdout)["runs"]
    assert {finding["code"] for finding in result["forced"]} == {"budget"}


def test_a_flag_that_wants_a_number_is_refused_without_one(recipe: Command) -> None:
    ended = recipe("plan", "local-smoke", "--set", "engine.args.ctx_size=abc")
    assert ended.returncode == 3
    assert "engine.args.ctx_size is 'abc'" in ended.stdout
    assert "recipe plan local-smoke --set engine.args.ctx_size=" in ended.stdout


@pytest.mark.parametrize("value", ["-7", "1.5", "1e300", "true", "99999999999999999999"])
def test_a_number_that_the_engine_could_not_take_is_refused_with_its_place(recipe: Command, value: str) -> None:
    (recipe.cwd / "odd.yaml").write_text(f"extends: local-smoke\nengine: {{args: {{ctx_size: {value}}}}}\n")
    ended = recipe("plan", "odd.yaml")
    assert (ended.returncode, ended.stderr) == (3, "")
    assert "and llama.cpp wants a whole number from 0 on" in ended.stdout
    assert "odd.yaml:2" in ended.stdout


def test_a_model_that_cannot_be_had_is_a_plan_that_is_refused(recipe: Command) -> None:
    with hub_emulator() as hub:
        hub.push("some/gated", {"config.json": b"{}"}, gated=True)
        away = ["--set", "model={repo: some/gated}"]
        ended = recipe(
            "plan", "local-smoke", *away, "--json", env={"HF_ENDPOINT": hub.url, "XDG_CACHE_HOME": str(recipe.cwd)}
        )
    assert ended.returncode == 3
    (plan,) = json.loads(ended.stdout)["plans"]
    (finding,) = plan["findings"]
    assert (plan["verdict"], finding["code"], finding["level"]) == ("refuse", "access", "block")
    assert (plan["offers"], plan["steps"], plan["memory"], plan["forecast"]) == ([], [], None, None)


@pytest.mark.parametrize("word", ["kv-cache", "memory", "forecast", "context", "disk"])
def test_a_check_is_explained_with_the_plans_own_figures(recipe: Command, word: str) -> None:
    ended = recipe("plan", "local-smoke", "--explain", word)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(word)
    assert "source" in ended.stdout
    assert "\nlocal-smoke\n" in ended.stdout


def test_explanations_are_part_of_the_one_json_document(recipe: Command) -> None:
    document = json.loads(recipe("plan", "local-smoke", "--explain", "memory", "--json").stdout)
    assert [note["code"] for note in document["explanations"]] == ["memory"]
    assert len(document["plans"]) == 1


def test_an_unknown_word_is_not_explained(recipe: Command) -> None:
    ended = recipe("plan", "local-smoke", "--explain", "kvcache")
    assert ended.returncode == 2
    assert "did you mean kv-cache?" in ended.stderr
    assert "forecast" in ended.stderr


def test_what_is_known_of_accelerators_needs_no_network(recipe: Command) -> None:
    ended = recipe("offers", "--known", "A100")
    assert ended.returncode == 0
    assert "79.2 GiB" in ended.stdout
    known = json.loads(recipe("offers", "--known", "--json").stdout)["accelerators"]
    assert len(known) > 50
    assert {"name", "usable_gib", "bandwidth_gb_s", "tflops", "compute_capability"} <= set(known[0])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["offers"], 4, "export RUNPOD_API_KEY="),
        (["offers", "--known", "H1000"], 2, "not in the table"),
        (["offers", "--provisioner", "nobody"], 2, "no such provisioner"),
        (["offers", "--provisioner", "local"], 4, "no catalogue"),
        (["fit", "no/such/folder"], 2, "no such file"),
        (["fit", "lead", "--engine", "vlm"], 2, "did you mean vllm?"),
        (["fit", "lead", "--engine", "openai"], 2, "runs elsewhere"),
        (["fit", "lead", "--engine", "llamacpp", "--quantization", "awq"], 2, "does not quantize"),
        (["fit", "lead", "--gpu", "H1000"], 2, "recipe offers --known"),
        (["fit", "lead", "--arg", "x"], 2, "FLAG=VALUE"),
    ],
)
def test_what_cannot_be_answered_says_why_and_what_next(
    recipe: Command, arguments: list[str], code: int, words: str
) -> None:
    ended = recipe(*arguments)
    assert ended.returncode == code, ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_model_folder_is_fitted_without_prices_where_nobody_can_be_asked(recipe: Command) -> None:
    ended = recipe("fit", LEAD, "--limit", "3")
    assert ended.returncode == 0, ended.stderr
    assert "no prices: runpod was not asked" in ended.stdout
    assert sum("×" in line for line in ended.stdout.splitlines()) == 3
    assert "recipe plan RECIPE --set resources.accelerators=" in ended.stdout


def test_a_gguf_file_is_fitted_for_the_engine_that_loads_one(recipe: Command) -> None:
    document = json.loads(recipe("fit", str(Path(LEAD) / "lead.gguf"), "--json").stdout)
    assert document["engine"]["name"] == "llamacpp"
    assert document["fits"]


def test_what_serves_nowhere_ends_as_refused(recipe: Command) -> None:
    """vLLM has no kernels for a P100."""
    ended = recipe("fit", LEAD, "--engine", "vllm", "--gpu", "P100")
    assert ended.returncode == 3
    assert "none serves it:" in ended.stdout
    assert recipe("fit", LEAD, "--engine", "vllm", "--gpu", "P100", "--json", "--all").returncode == 3


def rows_of(ended: Any, what: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(ended.stdout)[what]
    return rows


def test_offers_are_those_of_the_moment_the_cheapest_first(recipe: Command, runpod: RunPod) -> None:
    rows = rows_of(recipe("offers", "--json", env=runpod.env), "offers")
    prices = [row["price_usd_per_h"] for row in rows if row["stock"] != "none"]
    assert prices == sorted(prices)
    assert {row["count"] for row in rows} == {1, 2, 4, 8}
    shown = recipe("offers", env=runpod.env).stdout
    assert "A40-48GB:1" in shown
    assert "A40-48GB:2" not in shown
    only = rows_of(recipe("offers", "A40", "--count", "2", "--cloud", "secure", "--json", env=runpod.env), "offers")
    assert [(row["accelerators"], row["count"], row["cloud"]) for row in only] == [("A40-48GB", 2, "secure")]


def test_a_gpu_that_is_not_offered_is_named(recipe: Command, runpod: RunPod) -> None:
    ended = recipe("offers", "X99", env=runpod.env)
    assert ended.returncode == 4
    assert "runpod offers no X99" in ended.stderr


def test_what_serves_a_model_comes_with_todays_prices(recipe: Command, runpod: RunPod) -> None:
    ended = recipe("fit", LEAD, "--engine", "vllm", "--all", "--json", env=runpod.env)
    assert ended.returncode == 0, ended.stderr
    rows = rows_of(ended, "fits")
    prices = [row["price_usd_per_h"] for row in rows]
    assert prices == sorted(prices)
    assert rows[0]["verdict"] == "fits"
    assert "runpod, now" in recipe("fit", LEAD, "--engine", "vllm", env=runpod.env).stdout


def test_the_first_row_that_fits_is_a_change_that_recipe_takes(recipe: Command, runpod: RunPod) -> None:
    (row, *_) = rows_of(recipe("fit", LEAD, "--engine", "vllm", "--json", env=runpod.env), "fits")
    sets = [part for text in row["overrides"] for part in ("--set", text)]
    assert recipe("validate", "local-vllm-smoke", *sets).returncode == 0


def test_codes_and_accelerators_are_completed(recipe: Command) -> None:
    def completed(line: str) -> set[str]:
        env = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": " "}
        recipe(env={**env, "_ARGCOMPLETE_STDOUT_FILENAME": "out"})
        return set((recipe.cwd / "out").read_text().split())

    assert "kv-cache" in completed("recipe up x --force kv")
    assert "forecast" in completed("recipe plan x --explain fore")
    assert "A100-80GB" in completed("recipe offers A100")

"""The command as a new user meets it: help, wrong words, wrong files; one screen, the way out, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runners.cli import COMMANDS
from tests.conftest import RECIPE, Command

BASE = "name: mine\nmodel: {builtin: lead}\nworkload: {inputs: [a.txt]}\n"

WRONG_FILES = {
    "unknown key": (BASE + "engin: {}\n", "engin", "did you mean engine?"),
    "duplicate key": (BASE + "name: again\n", "duplicate key", "first on line 1"),
    "tag": (BASE + "env: !!python/object:os.system {}\n", "tags are not allowed", "remove"),
    "alias bomb": (
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(8)),
        "aliases expand",
        "write the values out",
    ),
    "wrong type": (BASE + "engine: {tensor_parallel_size: two}\n", "whole number", "'two'"),
    "wrong unit": (BASE + "resources: {disk_size: 20QB}\n", "20QB: not a size", "write 20GB or 18GiB"),
    "no unit": (BASE + "limits: {max_duration: 3}\n", "3 has no unit", "3h"),
    "empty inputs": (BASE.replace("[a.txt]", "[]"), "empty", "write at least one"),
    "missing input": (BASE.replace("a.txt", "b.txt"), "no such file", "write a path or a glob"),
    "lossy prompt": (BASE + "extends: prompt.yaml\n", "no {{ prompt }}", "would be lost"),
    "cycle": ("extends: wrong.yaml\n", "extends itself", "wrong.yaml → wrong.yaml"),
    "large matrix": (
        BASE + f"matrix: {{workload.seed: {list(range(40))}, workload.max_tokens: {list(range(1, 41))}}}\n",
        "1,600 runs",
        "--yes",
    ),
    "not YAML": ("name: [1\n", "not YAML", ":"),
    "no recipe": ("- a\n", "a recipe is a mapping", ""),
}


@pytest.mark.parametrize(("text", "what", "next_"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_wrong_file_gives_one_screen_with_place_cause_and_way_out(
    recipe: Command, text: str, what: str, next_: str
) -> None:
    (recipe.cwd / "a.txt").write_text("Some text.")
    (recipe.cwd / "prompt.yaml").write_text("workload: {prompt: 'p.yaml'}\n")
    (recipe.cwd / "p.yaml").write_text("prompt_template: |\n  Say hello.\n")
    (recipe.cwd / "wrong.yaml").write_text(text)
    ended = recipe("validate", "wrong.yaml")
    assert ended.returncode == 2, ended.stdout
    assert what in ended.stderr
    assert next_ in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) < 24
    problems = json.loads(recipe("validate", "wrong.yaml", "--json").stdout)["problems"]
    assert set(problems[0]) == {"file", "line", "column", "path", "code", "message", "suggestion"}
    assert problems[0]["line"] >= 1


def test_a_file_that_is_not_utf8_is_refused(recipe: Command) -> None:
    (recipe.cwd / "latin.yaml").write_bytes("name: caf\xe9\n".encode("latin-1"))
    ended = recipe("validate", "latin.yaml")
    assert ended.returncode == 2
    assert "not UTF-8" in ended.stderr


def test_all_problems_come_at_once(recipe: Command) -> None:
    (recipe.cwd / "bad.yaml").write_text(
        "nme: x\nmodel: {builtin: leed}\nworkload: {inputs: [no.txt], chunk_size: x}\n"
    )
    problems = json.loads(recipe("validate", "bad.yaml", "--json").stdout)["problems"]
    assert {p["path"] for p in problems} == {"nme", "model.builtin", "workload.inputs[0]", "workload.chunk_size"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["lst"], 2, "did you mean list?"),
        (["up"], 2, "recipe up --help"),
        (["up", "local-smoke", "--jsn"], 2, "did you mean --json?"),
        (["up", "local-smok"], 2, "did you mean local-smoke?"),
        (["up", "local-smoke", "--set", "workload.chunk_size"], 2, "PATH=VALUE"),
        (["up", "local-smoke", "--set", "workload.chunk_sice=3"], 2, "did you mean chunk_size?"),
        (["up", "local-smoke", "--max-cost", "much"], 2, "--max-cost"),
        (["up", "local-smoke", "--set", "workload.max_tokens=5000"], 3, "nothing was rented"),
        (["up", "local-smoke", "--set", "resources.accelerators=A100-80GB:2"], 4, "accelerators found"),
        (["up", "2xA100-airoboros-70b"], 4, "export RUNPOD_API_KEY="),
        (["up", "2xA100-airoboros-70b", "--set", "resources.provisioner=slurm"], 3, "is not in this version"),
        (["report", "nothing"], 2, "nothing has run yet"),
        (["logs", "nothing"], 2, "no such run"),
        (["runs", "--limit", "0"], 2, "at least 1"),
        (["completion", "powershell"], 2, "invalid choice"),
    ],
)
def test_a_wrong_word_gets_a_clear_answer_and_the_right_exit_code(
    recipe: Command, arguments: list[str], code: int, words: str
) -> None:
    ended = recipe(*arguments)
    assert ended.returncode == code, ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(recipe: Command, command: str) -> None:
    ended = recipe(command, "--help")
    assert ended.returncode == 0
    assert f"recipe {command}" in ended.stdout
    assert command in recipe("--help").stdout


def test_init_writes_a_recipe_that_is_valid_and_never_overwrites(recipe: Command) -> None:
    assert recipe("init", "mine").returncode == 0
    assert recipe("validate", "mine.yaml").returncode == 0
    assert (recipe.cwd / "sample.txt").is_file()
    again = recipe("init", "mine")
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_init_turns_an_older_config_into_a_recipe(recipe: Command) -> None:
    (recipe.cwd / "a.txt").write_text("Some text.")
    (recipe.cwd / "config.yaml").write_text(
        "httpx_max_keepalive_connections: 4\nhttpx_max_connections: 4\nuse_fast: true\n"
        "use_batched_tokenization: false\n"
        "chunk_size: 3000\nchunk_overlap: 512\napi_url: http://127.0.0.1:5000/v1\napi_key: sk-very-secret\n"
        "model_identifier: owner/model\nmax_tokens: 1000\ntemperature: 0.2\n"
    )
    assert recipe("init", "new.yaml", "--from", "config.yaml").returncode == 0
    text = (recipe.cwd / "new.yaml").read_text()
    assert "sk-very-secret" not in text
    shown = json.loads(recipe("show", "new.yaml", "--json").stdout)["recipes"][0]
    assert shown["engine"]["url"] == "http://127.0.0.1:5000/v1"
    assert (shown["workload"]["concurrency"], shown["workload"]["separators"]) == (4, "sentences")


def test_a_dry_run_is_the_plan_and_changes_nothing(recipe: Command) -> None:
    (dry,) = json.loads(recipe("up", "local-smoke", "--dry-run", "--json").stdout)["plans"]
    (plan,) = json.loads(recipe("plan", "local-smoke", "--json").stdout)["plans"]
    for document in (dry, plan):
        assert document["offers"][0].pop("disk_gib") > 0, "what is free changes by the moment"
        document["findings"] = [finding for finding in document["findings"] if finding["code"] != "disk"]
    assert dry == plan
    assert plan["verdict"] == "go"
    assert {"findings", "offers", "model", "memory", "steps", "forecast"} <= set(plan)
    assert recipe.run_folders() == []


def test_the_doctor_finds_this_machine_fit(recipe: Command) -> None:
    ended = recipe("doctor", "--json")
    assert ended.returncode == 0, ended.stdout
    checks = {check["name"]: check for check in json.loads(ended.stdout)["checks"]}
    assert checks["python"]["state"] == "ok"
    assert checks["RUNPOD_API_KEY"]["mend"].startswith("export")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_given_for_the_shell(recipe: Command, shell: str) -> None:
    assert "recipe" in recipe("completion", shell).stdout


def test_completion_knows_commands_recipes_and_options(recipe: Command) -> None:
    def completed(line: str) -> set[str]:
        env = {
            "_ARGCOMPLETE": "1",
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
            "_ARGCOMPLETE_STDOUT_FILENAME": "out",
        }
        recipe(env={**env, "_ARGCOMPLETE_IFS": " "})
        return set((recipe.cwd / "out").read_text().split())

    assert {"up", "validate"} <= completed("recipe ")
    assert "local-smoke" in completed("recipe up local-s")
    assert "--dry-run" in completed("recipe up --dr")


def test_help_and_validate_import_nothing_heavy() -> None:
    """What the start-up budget rests on."""
    heavy = ("pulumi", "runpod", "openai", "huggingface_hub", "fabric", "aiohttp", "tokenizers", "transformers")
    for arguments, further in (
        (["--help"], ("pydantic", "yaml", "rich", "asyncio")),
        (["validate", "local-smoke"], ()),
    ):
        program = (
            "import sys; from runners.cli import main; code = main(sys.argv[1:]); "
            f"print([m for m in {(*heavy, *further)!r} if m in sys.modules], code)"
        )
        ended = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
        assert ended.stdout.splitlines()[-1] == "[] 0", arguments


def test_a_foreign_package_of_one_of_our_names_is_named(recipe: Command) -> None:
    foreign = recipe.cwd / "foreign"
    (foreign / "recipes").mkdir(parents=True)
    (foreign / "recipes" / "__init__.py").write_text("")
    ended = recipe("list", env={"PYTHONPATH": str(foreign)})
    assert ended.returncode == 2
    assert str(foreign) in ended.stderr
    assert "environment of its own" in ended.stderr


def test_a_bug_leaves_a_log_to_attach(recipe: Command) -> None:
    program = (
        "import runners.cli.commands.list as l; from runners.cli import main; l.run = lambda o: 1 / 0; "
        "raise SystemExit(main(['list']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=recipe.environment(), cwd=recipe.cwd
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    (log,) = Path(recipe.home / "bugs").glob("*.log")
    assert str(log) in ended.stderr
    assert "ZeroDivisionError" in log.read_text()


def test_the_reader_of_a_pipe_may_leave_early(recipe: Command) -> None:
    shell = f"{sys.executable} -m runners.cli schema | head -1"
    ended = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True)
    assert "Traceback" not in ended.stderr
    assert ended.stdout == "{\n"


def test_a_home_that_cannot_be_made_is_named(recipe: Command) -> None:
    (recipe.cwd / "file").write_text("")
    ended = recipe("up", "local-smoke", env={"RECIPE_HOME": str(recipe.cwd / "file" / "home")})
    assert ended.returncode == 2, ended.stderr
    assert "export RECIPE_HOME" in ended.stderr


@pytest.mark.real
def test_a_cache_that_cannot_be_written_is_named(recipe: Command) -> None:
    (recipe.cwd / "file").write_text("")
    ended = recipe("up", "local-smoke", env={"XDG_CACHE_HOME": str(recipe.cwd / "file")})
    assert ended.returncode == 5, ended.stderr
    assert "XDG_CACHE_HOME" in ended.stdout


@pytest.mark.real
@pytest.mark.parametrize("closed", [">&-", "2>&-", "2>&1 | head -1", "> /dev/full"])
def test_a_reader_that_has_gone_changes_nothing_in_how_a_run_ends(recipe: Command, closed: str) -> None:
    shell = f"set -o pipefail; {RECIPE} up local-smoke {closed}"
    ended = subprocess.run(["bash", "-c", shell], env=recipe.environment(), cwd=recipe.cwd, capture_output=True)
    assert ended.returncode == 0, ended.stderr
    result = json.loads((recipe.run_folder() / "result.json").read_text())
    assert (result["outcome"]["status"], result["release"]["state"]) == ("completed", "gone")


def test_a_refusal_is_one_json_document_with_its_findings(recipe: Command) -> None:
    ended = recipe("up", "local-smoke", "--set", "workload.max_tokens=5000", "--json")
    assert ended.returncode == 3
    printed = json.loads(ended.stdout)
    assert printed["runs"] == []
    assert [f["code"] for f in printed["refused"][0]["findings"] if f["level"] == "block"] == ["context"]


def test_a_wrong_flag_with_json_is_a_json_document_too(recipe: Command) -> None:
    ended = recipe("up", "local-smoke", "--jso", "--json")
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["error"]["exit_code"] == 2


def test_options_may_stand_between_names(recipe: Command) -> None:
    ended = recipe("show", "--json", "local-smoke")
    assert ended.returncode == 0
    both = recipe("validate", "local-smoke", "--set", "workload.max_tokens=50", "load-smoke", "--json")
    assert json.loads(both.stdout) == {"problems": []}
    wrong = recipe("validate", "local-smoke", "--json", "load-smok")
    assert wrong.returncode == 2
    assert "load-smok" in wrong.stdout

"""`recipe up --detach`: a client in the background that owns its run, whatever becomes of the terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RECIPE, Command, SilentServer, processes_of, send

pytestmark = pytest.mark.real
Wait = Callable[..., Any]
UP = ("up", "local-smoke", "--detach")


def result_of(recipe: Command) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((recipe.run_folder() / "result.json").read_text())
    return result


def has_ended(recipe: Command) -> bool:
    """Whether the run has its result and its client has gone."""
    return (recipe.run_folder() / "result.json").exists() and processes_of(recipe.home) == []


def answers(recipe: Command) -> int:
    path = recipe.run_folder() / "answers.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_it_returns_when_the_run_has_begun_and_the_run_is_finished(recipe: Command, wait_until: Wait) -> None:
    begun = recipe(*UP)
    assert (begun.returncode, begun.stderr) == (0, "")
    run_id = recipe.run_folder().name
    assert begun.stdout.startswith(f"{run_id} goes on in the background, process ")
    wait_until(lambda: has_ended(recipe), what="the end of the run")
    result = result_of(recipe)
    assert (result["outcome"]["status"], result["documents"]["done"]) == ("completed", 3)
    log = recipe("logs", "--client", run_id).stdout
    assert "done in" in log
    assert "\x1b" not in log
    assert "client.log" not in [artifact["path"] for artifact in result["artifacts"]]
    assert list((recipe.home / "detached").iterdir()) == []


def test_as_json_it_names_the_run_and_its_client(recipe: Command, wait_until: Wait) -> None:
    said = json.loads(recipe(*UP, "--json").stdout)
    folder = recipe.run_folder()
    (run,) = said["runs"]
    assert (run["run_id"], run["folder"], run["detached"]) == (folder.name, str(folder), True)
    with sqlite3.connect(recipe.home / "ledger.db") as db:
        assert db.execute("SELECT pid FROM experiments").fetchone() == (run["pid"],)
    wait_until(lambda: has_ended(recipe), what="the end of the run")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (("--set", "workload.chunk_size=none"), 2),
        (("--set", "engine.args.ctx_size=64"), 3),
        (("--set", "resources.accelerators=H100-80GB:1"), 4),
    ],
)
def test_what_cannot_work_is_refused_at_the_terminal(recipe: Command, changes: tuple[str, ...], code: int) -> None:
    alike = recipe("up", "local-smoke", *changes)
    refused = recipe(*UP, *changes)
    assert (refused.returncode, refused.stdout, refused.stderr) == (code, alike.stdout, alike.stderr)
    assert recipe.run_folders() == []


def test_a_refusal_as_json_is_the_same_as_without(recipe: Command) -> None:
    refused = recipe(*UP, "--set", "engine.args.ctx_size=64", "--json")
    assert refused.returncode == 3
    said = json.loads(refused.stdout)
    assert (said["runs"], said["refused"][0]["verdict"]) == ([], "refuse")


def test_a_dry_run_leaves_nothing_that_could_go_on(recipe: Command) -> None:
    assert recipe(*UP, "--dry-run").returncode == 2


def test_the_terminal_may_be_closed(recipe: Command, book: Path, wait_until: Wait) -> None:
    """The kernel hangs up everything that belongs to the terminal."""
    child, master = pty.fork()
    if child == 0:
        os.chdir(recipe.cwd)
        command = f"{RECIPE} up local-smoke --detach --set workload.chunk_size=2000; sleep 600"
        os.execve("/bin/sh", ["sh", "-c", command], recipe.environment())
    shown = b""
    while b"files " not in shown:
        assert select.select([master], [], [], 120)[0], shown
        shown += os.read(master, 4096)
    os.close(master)
    assert os.waitpid(child, 0)[1] != 0, "the shell was hung up"
    wait_until(lambda: has_ended(recipe), what="the end of the run")
    assert result_of(recipe)["outcome"]["status"] == "completed"


def test_down_ends_it_like_any_other(recipe: Command, book: Path, wait_until: Wait) -> None:
    assert recipe(*UP, "--set", f"workload.inputs=[{book}]").returncode == 0
    wait_until(lambda: answers(recipe) > 2, what="some answers")
    down = recipe("down", recipe.run_folder().name)
    assert down.returncode == 0, down.stderr
    wait_until(lambda: has_ended(recipe), what="the end of the run")
    result = result_of(recipe)
    assert (result["outcome"]["status"], result["release"]["state"]) == ("interrupted", "gone")


@pytest.mark.parametrize("where", ["client", "host"])
def test_a_killed_client_in_the_background_leaves_nothing_on_this_machine(
    recipe: Command, book: Path, wait_until: Wait, where: str
) -> None:
    """Here, what belongs to a run ends with its client, a driver too."""
    changes = ("--set", f"workload.inputs=[{book}]", "--set", f"workload.where={where}", "--json")
    (run,) = json.loads(recipe(*UP, *changes).stdout)["runs"]
    wait_until(lambda: answers(recipe) > 2, what="some answers")
    os.kill(run["pid"], signal.SIGKILL)
    wait_until(lambda: processes_of(recipe.home) == [], what="the end of everything")


def test_several_runs_follow_one_another(recipe: Command, wait_until: Wait) -> None:
    begun = recipe("up", "local-smoke", "local-smoke", "--detach")
    assert begun.returncode == 0, begun.stderr
    assert "; 1 further run of this command will follow" in begun.stdout
    wait_until(lambda: len(list(recipe.home.glob("runs/*/result.json"))) == 2, what="both results")
    wait_until(lambda: processes_of(recipe.home) == [], what="the client's end")
    logs = {path.read_text() for path in recipe.home.glob("runs/*/client.log")}
    assert len(logs) == 1, "one client, one log"


def test_an_interruption_while_planning_ends_everything(
    recipe: Command, silent: SilentServer, wait_until: Wait
) -> None:
    model = ("--set", "model={repo: me/model}", "--set", "engine.name=vllm", "--set", "engine.args={}")
    process = recipe.start(*UP, *model, env={"HF_ENDPOINT": silent.url, "HF_HOME": str(recipe.cwd / "hf")})
    wait_until(silent.is_asked, what="the question to the Hub")
    status, out, err = send(process, signal.SIGINT)
    assert (status, out) == (130, ""), err
    assert "interrupted" in err
    assert recipe.run_folders() == []
    assert processes_of(recipe.home) == []


def test_an_interruption_before_the_client_has_begun_is_the_clients(recipe: Command) -> None:
    """However early it comes, nothing goes on that nobody knows of."""
    code = (
        "import os, signal, sys; from runners.cli import main\n"
        "fork = os.fork\n"
        "def interrupted():\n"
        "    child = fork()\n"
        "    if child: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return child\n"
        "os.fork = interrupted\n"
        f"sys.exit(main({[*UP]!r}))"
    )
    argv = [sys.executable, "-c", code]
    ended = subprocess.run(argv, cwd=recipe.cwd, env=recipe.environment(), capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (130, ""), ended.stderr
    assert "Traceback" not in ended.stderr
    assert recipe.run_folders() == []
    assert processes_of(recipe.home) == []

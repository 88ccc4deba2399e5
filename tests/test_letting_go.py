"""Whatever ends a run, nothing of it runs on, and what there was is kept."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Command, SilentServer, processes_of, send, whole_rows
from tests.emulators.slots import slots_double

pytestmark = pytest.mark.real
Wait = Callable[..., Any]
TOKENIZER = Path(__file__).parents[1] / "recipes/models/lead/tokenizer.json"
SLOW = ("--slots", "2", "--ttft", "0.5", "--tokens", "20", "--per-token", "0")
"""An engine for the tests of what ends a run: it has answers soon, is never done, and needs no time of the machine."""


def engine_of(home: Path) -> psutil.Process | None:
    for process in psutil.process_iter():
        try:
            if process.environ().get("RECIPE_HOME") == str(home) and "serve_llamacpp.py" in " ".join(process.cmdline()):
                return process
        except (psutil.Error, OSError):
            continue
    return None


def endpoint(url: str) -> list[str]:
    """The options for an engine that somebody else runs."""
    engine = f"engine={{name: openai, url: '{url}'}}"
    changes = [engine, "model={served_name: double}", f"workload.tokenizer={TOKENIZER}"]
    return [part for change in changes for part in ("--set", change)]


def stuck_on(url: str) -> dict[str, str]:
    """What makes pip wait for this index and no other."""
    return {"PIP_INDEX_URL": url, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}


def answers(recipe: Command) -> int:
    return sum(len(whole_rows(path)) for path in recipe.home.glob("runs/*/requests.jsonl"))


def events(recipe: Command) -> list[dict[str, Any]]:
    return [row for path in recipe.home.glob("runs/*/events.jsonl") for row in whole_rows(path)]


def result_of(recipe: Command) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((recipe.run_folder() / "result.json").read_text())
    return result


def lease_states(recipe: Command) -> list[str]:
    with sqlite3.connect(recipe.home / "ledger.db") as db:
        return [state for (state,) in db.execute("SELECT state FROM leases")]


def test_a_killed_engine_ends_the_run_at_once_and_the_answers_are_kept(
    recipe: Command, book: Path, wait_until: Wait
) -> None:
    process = recipe.start("up", "local-smoke", "--set", f"workload.inputs=[{book}]")
    wait_until(lambda: answers(recipe) >= 5, what="five answers")
    engine = engine_of(recipe.home)
    assert engine is not None
    engine.kill()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 6, err
    assert "killed by signal 9 (SIGKILL)" in out
    result = result_of(recipe)
    assert (result["outcome"]["status"], result["outcome"]["phase"]) == ("failed", "drive")
    assert result["release"]["state"] == "gone"
    assert result["requests"]["ok"] >= 5
    assert len((recipe.run_folder() / "answers.jsonl").read_text().splitlines()) >= 5
    with sqlite3.connect(recipe.home / "ledger.db") as db:
        assert db.execute("SELECT status, phase FROM experiments").fetchall() == [("failed", "drive")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_driving_lets_go_and_leaves_what_there_is(
    recipe: Command, book: Path, wait_until: Wait, number: signal.Signals
) -> None:
    process = recipe.start("up", "local-smoke", "--set", f"workload.inputs=[{book}]")
    wait_until(lambda: answers(recipe) >= 2, what="two answers")
    status, out, _ = send(process, number)
    assert status == 130
    assert "interrupted in drive" in out
    result = result_of(recipe)
    assert result["outcome"] == {"status": "interrupted", "phase": "drive", "error": number.name}
    assert result["requests"]["ok"] >= 2
    assert lease_states(recipe) == ["gone"]


def test_ctrl_c_while_planning_rents_nothing(recipe: Command, silent: SilentServer, wait_until: Wait) -> None:
    model = ["--set", "model={repo: nobody/nothing}"]
    process = recipe.start("up", "local-smoke", *model, env={"HF_ENDPOINT": silent.url})
    wait_until(silent.is_asked, what="the question to the Hub")
    status, _, err = send(process, signal.SIGINT)
    assert status == 130
    assert "nothing was rented" in err
    assert recipe.run_folders() == []


def test_ctrl_c_while_preparing_lets_go(recipe: Command, silent: SilentServer, wait_until: Wait) -> None:
    """The installation waits for an index that never answers."""
    env = {**stuck_on(silent.url), "XDG_CACHE_HOME": str(recipe.cwd / "cache")}
    process = recipe.start("up", "local-smoke", "--set", "engine.version=0.0.0", env=env)
    wait_until(silent.is_asked, what="pip's question to its index")
    status, out, err = send(process, signal.SIGINT)
    assert status == 130, err
    assert "interrupted in prepare" in out
    assert lease_states(recipe) == ["gone"]


def test_ctrl_c_while_launching_lets_go(recipe: Command, silent: SilentServer, wait_until: Wait) -> None:
    process = recipe.start("up", "local-smoke", *endpoint(silent.url))
    wait_until(silent.is_asked, what="the question whether it is ready")
    status, out, err = send(process, signal.SIGINT)
    assert status == 130, err
    assert "interrupted in launch" in out
    assert lease_states(recipe) == ["gone"]


def test_a_second_ctrl_c_does_not_stop_the_letting_go(recipe: Command, book: Path, wait_until: Wait) -> None:
    process = recipe.start("up", "local-smoke", "--set", f"workload.inputs=[{book}]")
    wait_until(lambda: answers(recipe) >= 1, what="an answer")
    process.send_signal(signal.SIGINT)
    wait_until(lambda: any(e["event"] == "interrupted" for e in events(recipe)), what="the interruption")
    status, _, err = send(process, signal.SIGINT)
    assert status == 130, err
    assert lease_states(recipe) == ["gone"]


def test_when_the_client_is_killed_its_engine_goes_too(recipe: Command, book: Path, wait_until: Wait) -> None:
    process = recipe.start("up", "local-smoke", "--set", f"workload.inputs=[{book}]")
    wait_until(lambda: answers(recipe) >= 1, what="an answer")
    process.kill()
    process.communicate()
    wait_until(lambda: processes_of(recipe.home) == [], what="an empty process list")
    assert "lost" in recipe("runs").stdout


def test_a_run_stops_before_it_costs_more_than_it_may(recipe: Command, book: Path) -> None:
    limits = ["--set", "resources.price_per_hour=1200", "--max-cost", "10"]  # which are 30 seconds
    with slots_double(*SLOW) as double:
        work = ["--set", f"workload.inputs=[{book}]", *endpoint(f"{double.url}/v1")]
        ended = recipe("up", "local-smoke", *work, *limits, "--force", "budget")
    assert ended.returncode == 7, ended.stderr
    assert "limits.max_cost" in ended.stdout
    assert result_of(recipe)["cost"]["total_usd"] <= 10


def test_a_launch_that_outlasts_its_deadline_is_an_engine_that_failed(recipe: Command, silent: SilentServer) -> None:
    ended = recipe("up", "local-smoke", *endpoint(silent.url), "--set", "limits.deadlines.launch=1s")
    assert ended.returncode == 6, ended.stderr
    assert "launch did not end within limits.deadlines.launch" in ended.stdout
    assert lease_states(recipe) == ["gone"]


def test_a_preparation_that_outlasts_its_deadline_is_a_command_that_failed(
    recipe: Command, silent: SilentServer
) -> None:
    env = {**stuck_on(silent.url), "XDG_CACHE_HOME": str(recipe.cwd / "cache")}
    limits = ["--set", "engine.version=0.0.0", "--set", "limits.deadlines.prepare=2s"]
    ended = recipe("up", "local-smoke", *limits, env=env)
    assert ended.returncode == 5, ended.stderr
    assert "limits.deadlines.prepare" in ended.stdout
    assert lease_states(recipe) == ["gone"]


def test_a_drive_that_outlasts_max_duration_is_a_workload_that_failed(recipe: Command, book: Path) -> None:
    with slots_double(*SLOW) as double:
        work = ["--set", f"workload.inputs=[{book}]", *endpoint(f"{double.url}/v1")]
        ended = recipe("up", "local-smoke", *work, "--set", "limits.max_duration=20s")
    assert ended.returncode == 7, ended.stderr
    assert "limits.max_duration" in ended.stdout
    result = result_of(recipe)
    assert result["requests"]["ok"] > 0
    assert result["release"]["state"] == "gone"

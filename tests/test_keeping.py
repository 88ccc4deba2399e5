"""`up --keep` holds the engine after the work, `chat` talks to it, and whatever ends it, the machine is let go."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import RECIPE, Command, eventually, processes_of, send, whole_rows
from tests.emulators.slots import slots_double

pytestmark = pytest.mark.real


def has_phase(folder: Path, phase: str) -> bool:
    rows = whole_rows(folder / "events.jsonl")
    return any(row | {"at": ""} == {"at": "", "event": "phase-started", "phase": phase} for row in rows)


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def engine_of(recipe: Command) -> psutil.Process:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            ours = process.environ().get("RECIPE_HOME") == str(recipe.home)
            if ours and "serve_llamacpp.py" in " ".join(process.cmdline()):
                return process
    raise AssertionError("no engine")


@contextmanager
def kept(recipe: Command, *options: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run whose work is done and whose engine is kept."""
    process = recipe.start("up", "local-smoke", "--keep", *options)
    try:
        eventually(lambda: recipe.run_folders() and has_phase(recipe.run_folder(), "keep"), what="the keeping")
        yield process, recipe.run_folder()
    finally:
        if process.poll() is None:
            send(process, signal.SIGINT)


def test_a_kept_engine_is_talked_to_and_ctrl_c_ends_it_as_done(recipe: Command) -> None:
    with kept(recipe) as (process, folder):
        asked = recipe("chat", "local-smoke", "--max-tokens", "30", "The river rose. The bridge was closed.")
        assert (asked.returncode, asked.stderr) == (0, "")
        assert asked.stdout.strip()
        again = recipe("chat", folder.name, "--api", "completions", "The river rose.")
        assert again.returncode == 0
        assert "completions API" in again.stderr
        piped = subprocess.run(
            f"echo 'The river rose.' | {RECIPE} chat local-smoke",
            shell=True,
            env=recipe.environment(),
            capture_output=True,
            text=True,
        )
        assert piped.stdout.strip()
        status, out, err = send(process, signal.SIGINT)
    assert status == 0, err
    assert f"recipe chat {folder.name} talks to it" in err
    assert "gone, proven" in out
    result = result_of(folder)
    assert result["outcome"]["status"] == "completed"
    assert [phase["name"] for phase in result["phases"]][-2:] == ["keep", "release"]
    over = recipe("chat", "local-smoke", "Hello?")
    assert over.returncode == 2
    assert "--keep" in over.stderr


def test_a_conversation_in_a_terminal(recipe: Command) -> None:
    with kept(recipe):
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(str(RECIPE), ["recipe", "chat", "local-smoke"], recipe.environment(TERM="dumb"))
        said = b""

        def shown(words: str) -> bool:
            """Whether it has said this, after what was waited for before."""
            nonlocal said
            if words.encode() not in said:
                said += os.read(terminal, 65536)
            _, found, rest = said.partition(words.encode())
            said = rest if found else said
            return bool(found)

        eventually(lambda: shown("›"), what="the prompt")
        os.write(terminal, b"The river rose in the night. The bridge was closed.\n")
        eventually(lambda: shown("›"), what="the next prompt")
        os.write(terminal, b"/nonsense\n")
        eventually(lambda: shown("no such command"), what="the advice")
        eventually(lambda: shown("›"), what="the prompt after it")
        os.write(terminal, b"\x03")
        eventually(lambda: shown("Ctrl-D ends"), what="the advice at Ctrl-C")
        # A key that comes before the prompt meets a terminal that is between two ways of reading.
        eventually(lambda: shown("›"), what="the last prompt")
        os.write(terminal, b"\x04")
        assert os.waitpid(pid, 0)[1] == 0
        os.close(terminal)


def test_down_ends_the_keeping(recipe: Command) -> None:
    with kept(recipe) as (process, folder):
        ended = recipe("down", "local-smoke")
        assert ended.returncode == 0, ended.stderr
        process.communicate(timeout=150)
        assert process.returncode == 0
        assert result_of(folder)["outcome"]["status"] == "completed"


def test_nobody_who_asks_is_a_reason_to_let_go(recipe: Command) -> None:
    ended = recipe("up", "local-smoke", "--keep", "--set", "limits.idle_duration=2s")
    assert ended.returncode == 0, ended.stderr
    assert "nobody has asked anything" in ended.stderr


def test_the_runs_own_limit_ends_the_keeping_too(recipe: Command) -> None:
    text = Path(__file__).parents[1] / "recipes/texts/note.txt"
    # Little work, so that much of the time is left for the keeping.
    work = ["--set", f"workload.inputs=[{text}]", "--set", "workload.max_tokens=8"]
    ended = recipe("up", "local-smoke", "--keep", *work, "--set", "limits.max_duration=40s")
    assert ended.returncode == 0, ended.stderr
    assert "its time is over" in ended.stderr
    assert result_of(recipe.run_folder())["outcome"]["status"] == "completed"


def test_an_engine_that_dies_while_it_is_kept_undoes_nothing(recipe: Command) -> None:
    with kept(recipe) as (process, folder):
        engine_of(recipe).kill()
        out, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    assert "killed by signal 9" in out
    assert result_of(folder)["outcome"]["status"] == "completed"


def test_a_client_that_is_killed_while_it_keeps_leaves_nothing_running(recipe: Command) -> None:
    with kept(recipe) as (process, _):
        process.kill()
        process.communicate()
        eventually(lambda: processes_of(recipe.home) == [], what="an empty process list")
        asked = recipe("chat", "local-smoke", "Hello?")
        assert asked.returncode == 4, asked.stderr


def test_several_runs_are_not_kept(recipe: Command) -> None:
    ended = recipe("up", "local-smoke", "local-smoke", "--keep")
    assert ended.returncode == 2
    assert "one by one" in ended.stderr


def test_an_endpoint_of_somebody_else_is_talked_to_and_not_kept(recipe: Command, tmp_path: Path) -> None:
    tokenizer = Path(__file__).parents[1] / "recipes/models/lead/tokenizer.json"
    with slots_double("--zero") as double:
        changes = [f"engine={{name: openai, url: '{double.url}/v1'}}", f"workload.tokenizer={tokenizer}"]
        options = [part for change in [*changes, "model={served_name: double}"] for part in ("--set", change)]
        ended = recipe("up", "local-smoke", "--keep", *options)
        assert ended.returncode == 0, ended.stderr
        assert "nothing to keep" in ended.stderr
        assert recipe("chat", "local-smoke", "Hello?").returncode == 0
    gone = recipe("chat", "local-smoke", "Hello?")
    assert gone.returncode == 4
    assert "cannot be reached" in gone.stderr

"""A run that is going on, and what ps, reap, down, attach and logs do with it; also once its client was killed."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command, eventually, processes_of
from tests.emulators.engine import EngineDouble, beside, first_sentence

pytestmark = pytest.mark.real
TOKENIZER = Path(__file__).parents[2] / "recipes" / "models" / "lead" / "tokenizer.json"
ANSWERED = 3


def document(ended: subprocess.CompletedProcess[str]) -> Any:
    """Standard output, which is one JSON document and nothing else."""
    return json.loads(ended.stdout)


class Going:
    """A run that is going on: its engine has given some answers, and gives no more."""

    def __init__(self, recipe: Command, url: str) -> None:
        self.recipe = recipe
        settings = {
            "engine": f"{{name: openai, url: '{url}/v1'}}",
            "workload.tokenizer": str(TOKENIZER),
            "workload.concurrency": "1",
            "collect": "['**/*.txt']",
        }
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        self.process = recipe.start("up", "local-smoke", *sets)
        eventually(lambda: self.answers >= ANSWERED, what="the answers")

    @property
    def folder(self) -> Path:
        return self.recipe.run_folder()

    @property
    def answers(self) -> int:
        return sum(path.read_text().count("\n") for path in self.recipe.home.glob("runs/*/answers.jsonl"))

    @property
    def work_dir(self) -> Path:
        (found,) = (self.recipe.home / "work").iterdir()
        return found

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def going(recipe: Command) -> Iterator[Going]:
    with silent_after(ANSWERED) as url, ExitStack() as stack:
        run = Going(recipe, url)
        stack.callback(lambda: eventually(lambda: processes_of(recipe.home) == [], what="the end of the guard"))
        stack.callback(run.kill)
        yield run


@contextmanager
def silent_after(answers: int) -> Iterator[str]:
    """An engine that answers so many requests of the work; who only says Hello, to see whether it is there, is none."""
    given = itertools.count(1)

    def answer(prompt: str) -> str:
        if prompt != "Hello" and next(given) == answers:
            double.gate.clear()
        return first_sentence(prompt)

    double = EngineDouble(answer=answer)
    with beside(double):
        yield double.url


def test_a_run_whose_client_was_killed_is_found_and_reaped(going: Going, recipe: Command) -> None:
    (row,) = document(recipe("ps", "--json"))["machines"]
    assert (row["client"], row["state"], row["run_id"]) == ("running", "reached", going.folder.name)
    work_dir = going.work_dir
    going.kill()
    shown = recipe("ps").stdout
    assert "CLIENT GONE" in shown
    assert row["name"] in shown
    assert recipe("reap").returncode == 0
    assert work_dir.exists(), "a dry run"
    reaped = recipe("reap", "--yes")
    assert reaped.returncode == 0, reaped.stderr
    assert f"gone      {row['name']}: " in reaped.stdout
    assert "no process carries the lease's mark" in reaped.stdout
    assert not work_dir.exists()
    again = recipe("reap", "--yes")
    assert (again.returncode, "nothing of" in again.stdout) == (0, True)
    assert recipe("ps").stdout == "nothing is leased\n"
    assert "lost" in recipe("runs").stdout


def test_reap_as_json_tells_what_would_be_and_what_was_ended(going: Going, recipe: Command) -> None:
    going.kill()
    (would,) = document(recipe("reap", "--json"))["machines"]
    assert "release" not in would
    (was,) = document(recipe("reap", "--yes", "--json"))["machines"]
    assert (was["name"], was["release"]["state"]) == (would["name"], "gone")
    assert document(recipe("reap", "--yes", "--json"))["machines"] == []


def test_down_ends_a_living_run_in_order(going: Going, recipe: Command) -> None:
    (going.work_dir / "notes.txt").write_text("what the work left")
    down = recipe("down", "local-smoke")
    assert down.returncode == 0, down.stderr
    assert "gone      recipe-local-smoke-" in down.stdout
    out, err = going.process.communicate(timeout=120)
    assert going.process.returncode == 130, out + err
    assert "interrupted in drive" in out
    result = json.loads((going.folder / "result.json").read_text())
    assert result["outcome"]["status"] == "interrupted"
    assert result["requests"]["ok"] == ANSWERED
    assert result["release"]["state"] == "gone"
    assert (going.folder / "collected" / "notes.txt").read_text() == "what the work left"
    again = recipe("down", "local-smoke")
    assert again.returncode == 2
    assert "holds no machine any more" in again.stderr


def test_down_as_json_is_one_document(going: Going, recipe: Command) -> None:
    (row,) = document(recipe("down", "local-smoke", "--json"))["machines"]
    assert row["release"]["state"] == "gone"
    going.process.communicate(timeout=120)
    assert going.process.returncode == 130


def test_down_of_a_run_whose_client_was_killed_lets_its_machine_go(going: Going, recipe: Command) -> None:
    work_dir = going.work_dir
    going.kill()
    down = recipe("down", "local-smoke")
    assert down.returncode == 0, down.stderr
    assert "no process carries the lease's mark" in down.stdout
    assert not work_dir.exists()


def test_reap_does_not_touch_a_run_that_is_going_on(going: Going, recipe: Command) -> None:
    ended = recipe("reap", "--yes")
    assert (ended.returncode, "nothing of" in ended.stdout) == (0, True)
    assert going.process.poll() is None
    refused = recipe("attach", "local-smoke")
    assert refused.returncode == 2
    assert f"process {going.process.pid}" in refused.stderr
    assert going.process.poll() is None


def test_attach_to_a_machine_that_went_with_its_client_says_so(
    going: Going, recipe: Command, wait_until: Callable[..., Any]
) -> None:
    """The guard of this machine ends everything with the client."""
    guard = document(recipe("ps", "--json"))["machines"][0]["id"]
    going.kill()
    wait_until(lambda: not Path(f"/proc/{guard}/environ").exists() or not is_alive(int(guard)), what="the guard's end")
    before = sorted(going.folder.iterdir())
    ended = recipe("attach", "local-smoke", "--json")
    assert ended.returncode == 4, ended.stderr
    assert "has no machine to go on with" in ended.stderr
    assert "recipe down" in document(ended)["error"]["advice"]
    assert sorted(going.folder.iterdir()) == before
    assert recipe("down", "local-smoke").returncode == 0


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def test_a_killed_run_leaves_what_it_had(going: Going, recipe: Command) -> None:
    going.kill()
    assert len(recipe("logs", "local-smoke", "--requests").stdout.splitlines()) == ANSWERED
    assert '"phase": "drive"' in recipe("logs", "local-smoke", "--events").stdout
    assert (
        recipe("logs", "-f", "local-smoke", "--requests").stdout == recipe("logs", "local-smoke", "--requests").stdout
    )
    assert recipe("reap", "--yes").returncode == 0
    assert going.answers == ANSWERED


def test_a_run_is_followed_from_another_terminal(going: Going, recipe: Command) -> None:
    following = recipe.start("logs", "-f", "local-smoke", "--events")
    recipe("down", "local-smoke")
    said, err = following.communicate(timeout=120)
    assert following.returncode == 0, err
    assert json.loads(said.splitlines()[-1])["event"] == "run-ended"
    assert said == (going.folder / "events.jsonl").read_text()


def test_the_deadline_of_a_lease_is_in_the_books(going: Going, recipe: Command) -> None:
    (row,) = document(recipe("ps", "--json"))["machines"]
    left = datetime.fromisoformat(row["deadline"]) - datetime.now(UTC)
    assert timedelta(minutes=28) < left <= timedelta(minutes=30)

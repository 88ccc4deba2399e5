"""`recipe watch` over real runs: it sees them all, whoever began them, and touches none."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pyte
import pytest

from tests.browser import Chromium, chromium  # noqa: F401 (a fixture)
from tests.conftest import RECIPE, Command, processes_of, send
from tests.emulators.engine import EngineDouble, beside

Wait = Callable[..., Any]
COLUMNS, LINES = 120, 40
TOKENIZER = Path(__file__).parents[2] / "recipes" / "models" / "lead" / "tokenizer.json"
SECRET = "a-secret-that-nobody-may-see"


def state(recipe: Command, *arguments: str) -> dict[str, Any]:
    looked = recipe("watch", "--json", *arguments)
    assert (looked.returncode, looked.stderr) == (0, "")
    document: dict[str, Any] = json.loads(looked.stdout)
    return document


def long_run(recipe: Command, book: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    return recipe.start("up", "local-smoke", "--set", f"workload.inputs=[{book}]", *arguments, env=env)


def driving(recipe: Command) -> dict[str, Any] | None:
    """live.json of the run whose answers come in."""
    for folder in recipe.run_folders():
        with suppress(OSError):
            live: dict[str, Any] = json.loads((folder / "live.json").read_text())
            if live["driven"] and live["driven"]["done"] > 3:
                return live
    return None


class Screen:
    """`recipe watch` in a terminal."""

    def __init__(self, recipe: Command, *arguments: str) -> None:
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
            os.chdir(recipe.cwd)
            os.execve(RECIPE, [str(RECIPE), "watch", *arguments], recipe.environment(TERM="xterm-256color"))

    def until(self, *words: str, seconds: float = 60) -> str:
        """The screen, once it has all these words."""
        end = time.monotonic() + seconds
        while not all(word in (shown := "\n".join(self._screen.display)) for word in words):
            assert time.monotonic() < end, f"no {words} in:\n{shown}"
            ready, _, _ = select.select([self.terminal], [], [], 1)
            if ready:
                self._stream.feed(os.read(self.terminal, 65536))
        return shown

    def press(self, key: str) -> None:
        os.write(self.terminal, key.encode())

    def end(self) -> tuple[int, str]:
        """How it ended, and what it left behind."""
        while True:
            try:
                block = os.read(self.terminal, 65536)
            except OSError:  # the other end is closed
                break
            if not block:
                break
            self._stream.feed(block)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.terminal)
        return status, "\n".join(line.rstrip() for line in self._screen.display)


def test_where_nothing_has_run_it_says_so_and_makes_nothing(recipe: Command) -> None:
    document = state(recipe)
    assert (document["runs"], document["ended"], document["usd_per_h"], document["usd_today"]) == ([], [], 0, 0)
    assert not (recipe.home / "ledger.db").exists()
    over = recipe("watch", "--until-done")
    assert (over.returncode, over.stdout.strip()) == (0, "nothing is going on; try recipe up local-smoke")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--open",), "--open is for the page"),
        (("--web", "--json"), "--json and --web do not go together"),
        (("--web", "--until-done"), "--until-done and --web do not go together"),
        (("--json", "--until-done"), "--json prints the present state"),
        (("--web", "local-smoke"), "not a port"),
        (("--web", "70000"), "not a port"),
        (("nothing",), "nothing: no such run"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(recipe: Command, arguments: tuple[str, ...], words: str) -> None:
    said = recipe("watch", *arguments)
    assert said.returncode == 2
    assert words in said.stderr


def test_a_port_that_is_taken_is_a_clear_error(recipe: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = recipe("watch", "--web", str(taken.getsockname()[1]))
    assert said.returncode == 2
    assert "is taken" in said.stderr
    assert "recipe watch --web 0" in said.stderr


@pytest.mark.real
def test_a_run_that_goes_on_is_told_with_everything_but_its_secrets(
    recipe: Command, book: Path, wait_until: Wait
) -> None:
    run = long_run(recipe, book, "--set", "secrets=[SOME_SECRET]", "--set", "tags=[nightly]", SOME_SECRET=SECRET)
    try:
        wait_until(lambda: driving(recipe), what="answers")
        # The first may be told by the answers alone, before the engine was asked twice.
        wait_until(
            lambda: ((driving(recipe) or {}).get("rates") or {}).get("from") == "engine", what="the engine's rates"
        )
        # A client that was held up for some seconds is told to be silent, until it goes on.
        document = wait_until(
            lambda: next((said for said in [state(recipe)] if said["runs"][0]["client"] == "running"), None),
            what="a sign of the client",
        )
        (told,) = document["runs"]
        folder = recipe.run_folder()
        assert (told["run_id"], told["client"], told["pid"], told["tags"]) == (
            folder.name,
            "running",
            run.pid,
            ["nightly"],
        )
        assert told["phase"]["name"] == "drive"
        assert [phase["name"] for phase in told["phases"]] == ["plan", "provision", "prepare", "launch"]
        assert 0 < told["driven"]["done"] < told["driven"]["expected"]
        assert told["left_s"] > 0
        assert 0 < told["usd"] < told["usd_at_end"] < 1
        assert document["usd_per_h"] == pytest.approx(0.05)
        began_today = told["started_at"][:10] == document["at"][:10]
        assert document["usd_today"] == pytest.approx(told["usd"] if began_today else 0)
        # The engine's key stands in its environment alone.
        keys = {environment.get("RECIPE_ENGINE_KEY") for environment in _environments(run.pid)} - {None}
        assert keys
        for text in ((folder / "live.json").read_text(), json.dumps(document)):
            assert not [secret for secret in (SECRET, *keys) if secret in text]
    finally:
        send(run, signal.SIGINT)
    assert not list(folder.glob("live.json*"))
    ended = state(recipe)
    assert ended["runs"] == []
    assert (ended["ended"][0]["run_id"], ended["ended"][0]["status"]) == (folder.name, "interrupted")


def _environments(pid: int) -> Iterator[dict[str, str]]:
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            yield child.environ()


@pytest.mark.real
def test_a_client_that_is_killed_leaves_its_figures_and_its_machine_is_told_of(
    recipe: Command, book: Path, wait_until: Wait
) -> None:
    run = long_run(recipe, book)
    wait_until(lambda: driving(recipe), what="answers")
    send(run, signal.SIGKILL)
    wait_until(lambda: not state(recipe)["runs"], what="the machine's end with its client")
    (told,) = state(recipe)["ended"]
    assert (told["status"], told["usd"] > 0) == ("lost", True)
    assert state(recipe)["usd_per_h"] == 0
    watched = recipe("watch", "--until-done")
    assert (watched.returncode, watched.stdout.strip()) == (0, "nothing is going on; try recipe up local-smoke")
    assert recipe("down", told["run_id"]).returncode == 0
    assert [run["usd"] for run in state(recipe)["ended"]] == [told["usd"]]


@pytest.mark.real
@pytest.mark.parametrize("key", ["q", "\x03"])
def test_the_terminal_shows_it_live_and_leaving_ends_no_run(
    recipe: Command, book: Path, wait_until: Wait, key: str
) -> None:
    run = long_run(recipe, book)
    try:
        wait_until(lambda: driving(recipe), what="answers")
        screen = Screen(recipe)
        shown = screen.until("1 run going on", "▸ drive", "requests", "✓ launch", "prompt", "q leaves")
        done = shown.split("requests")[0].split()[-1]
        while screen.until("requests").split("requests")[0].split()[-1] == done:
            screen.until("requests", "▸ drive")
            os.set_blocking(screen.terminal, True)
            screen._stream.feed(os.read(screen.terminal, 65536))
        screen.press(key)
        status, left = screen.end()
        assert status == 0
        assert f"{recipe.run_folder().name} drive " in " ".join(left.split()), left
        assert run.poll() is None, "the run goes on"
        assert state(recipe)["runs"][0]["client"] != "gone"
    finally:
        send(run, signal.SIGINT)


@pytest.mark.real
def test_who_watches_one_run_leaves_with_it(recipe: Command) -> None:
    assert recipe("up", "local-smoke").returncode == 0
    run_id = recipe.run_folder().name
    watched = recipe("watch", "local-smoke")
    assert watched.returncode == 0
    (line,) = watched.stdout.splitlines()
    assert line.startswith(f"{run_id}   done in")
    screen = Screen(recipe, run_id)
    status, left = screen.end()
    assert status == 0
    assert f"{run_id}   done in" in left


@pytest.mark.real
def test_until_done_waits_for_a_whole_matrix_and_has_its_exit_code(
    recipe: Command, tmp_path: Path, wait_until: Wait
) -> None:
    (tmp_path / "m.yaml").write_text(
        "extends: local-smoke\nname: m\nmatrix: {workload.max_tokens: [8, 16, 24]}\nlimits: {max_duration: 30m}\n"
    )
    double = EngineDouble()
    with beside(double) as loop:
        # What ends before somebody looks is no news: the first run waits until somebody does.
        loop.call_soon_threadsafe(double.gate.clear)
        engine = f"engine={{name: openai, url: '{double.url}/v1'}}"
        run = recipe.start("up", "m.yaml", "--set", engine, "--set", f"workload.tokenizer={TOKENIZER}")
        wait_until(lambda: state(recipe)["runs"], what="the first run")
        watching = recipe.start("watch", "--until-done")
        assert watching.stdout is not None
        first = watching.stdout.readline()
        assert recipe.run_folder().name in first
        loop.call_soon_threadsafe(double.gate.set)
        out, err = watching.communicate(timeout=120)
        assert (watching.returncode, err) == (0, "")
        assert run.wait(60) == 0
    assert out.count("done in") == 3, out
    assert "\x1b" not in first + out


@contextmanager
def page(recipe: Command, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`recipe watch --web`, and its address."""
    process = recipe.start("watch", "--web", *arguments)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().split()[0]
    finally:
        if process.poll() is None:
            send(process, signal.SIGINT)


@pytest.mark.real
def test_the_page_is_this_machines_own_and_ends_at_once(recipe: Command) -> None:
    assert recipe("up", "local-smoke").returncode == 0
    with page(recipe, "0") as (process, url):
        port = int(url.rsplit(":", 1)[1].strip("/"))
        listening = [c.laddr for c in psutil.Process(process.pid).net_connections("inet") if c.status == "LISTEN"]
        assert listening == [("127.0.0.1", port)]
        with urllib.request.urlopen(f"{url}state.json", timeout=30) as answer:
            document = json.load(answer)
        assert document["ended"][0]["run_id"] == recipe.run_folder().name
        open_tabs = [urllib.request.urlopen(f"{url}events", timeout=30) for _ in range(5)]
        for tab in open_tabs:
            assert tab.readline().startswith(b"retry:")
        began = time.monotonic()
        status, _, err = send(process, signal.SIGINT)
        assert (status, err) == (0, "")
        assert time.monotonic() - began < 30, "open tabs keep it"


def test_it_is_opened_in_the_browser_that_somebody_has(recipe: Command, tmp_path: Path, wait_until: Wait) -> None:
    browser, asked = tmp_path / "browser", tmp_path / "asked"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {asked}.part && mv {asked}.part {asked}\n')
    browser.chmod(0o755)
    process = recipe.start("watch", "--web", "0", "--open", env={"BROWSER": f"{browser} %s"})
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        wait_until(asked.exists, what="the browser")
        assert asked.read_text() == url
    finally:
        send(process, signal.SIGINT)
    # What was opened is nobody's to wait for: it ends by itself.
    wait_until(lambda: processes_of(recipe.home) == [], what="the browser's end")


@pytest.mark.real
def test_the_page_shows_a_real_run_and_that_it_ended(recipe: Command, book: Path, wait_until: Wait) -> None:
    run = long_run(recipe, book)
    wait_until(lambda: driving(recipe), what="answers")
    with page(recipe, "0") as (_, url):
        documents = _documents(url)
        first = next(documents)
        assert first["runs"][0]["phase"]["name"] == "drive"
        later = next(documents)
        assert later["at"] > first["at"]
        send(run, signal.SIGINT)
        last = next(document for document in documents if not document["runs"])
        assert last["ended"][0]["status"] == "interrupted"


@pytest.mark.real
def test_a_report_opens_from_the_page_whole_and_where_it_can_ask_the_server_nothing(
    recipe: Command,
    chromium: Chromium,  # noqa: F811
) -> None:
    assert recipe("up", "local-smoke").returncode == 0
    context = chromium._browser.new_context()
    context.set_default_timeout(120_000)
    with page(recipe, "0") as (_, url):
        watched = context.new_page()
        watched.goto(url)
        problems: list[str] = []
        context.on("console", lambda message: problems.append(message.text))
        with context.expect_page() as opened:
            watched.click(".ended a")
        report = opened.value
        report.wait_for_selector(".js-plotly-plot .main-svg")
        assert recipe.run_folder().name in report.title()
        assert report.evaluate("origin") == "null"
        assert problems == []
        assert report.evaluate(f"fetch('{url}state.json').then(() => 'read', () => 'refused')") == "refused"
    context.close()


def _documents(url: str) -> Iterator[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}events", timeout=60) as events:
        for line in events:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

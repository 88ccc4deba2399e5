"""Agents and switches in state directories of their own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from provisioners import bootstrap
from tests.conftest import eventually
from tests.emulators.termination import Termination, termination
from tests.provisioners.onhost.calling import (
    LEASE,
    Agent,
    Cut,
    processes_of,
)
from tests.provisioners.onhost.switches import LEASE as ARMED
from tests.provisioners.onhost.switches import SHELLS, Machine, tool_folder


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    """Makes agents whose leases nobody has set up yet; in the end nothing of them lives."""
    made = []

    def make(lease: str = LEASE, python: str = sys.executable, under: Path | None = None) -> Agent:
        agent = Agent((under or tmp_path / ".recipe") / lease, python)
        agent.install()
        made.append(agent)
        return agent

    yield make
    for agent in made:
        for process in processes_of(agent.state):
            with suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def agent(fresh: Callable[..., Agent]) -> Agent:
    """A pod's agent, booted without jobs."""
    one = fresh()
    one.boot()
    return one


@pytest.fixture
def cut(agent: Agent) -> Cut:
    command = agent.start("a", "echo begun; exec sleep 1000")["pid"]
    eventually(lambda: (agent.state / "jobs" / "a" / "log").read_text() == "begun\n", what="the job")
    os.kill(agent.recorded("a", "supervisor")["pid"], signal.SIGKILL)
    eventually(lambda: agent("status", "a")["lost"], what="the loss")
    return Cut(command)


@pytest.fixture(params=SHELLS, ids=lambda argv: argv[0])
def each_shell(request: pytest.FixtureRequest) -> list[str]:
    argv: list[str] = request.param
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not installed here")
    return [shutil.which(argv[0]) or "", *argv[1:]]


@pytest.fixture
def server() -> Iterator[Termination]:
    with termination() as world:
        yield world


@pytest.fixture
def make(server: Termination, tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    made: list[Machine] = []

    def machine(*tools: str, shell: list[str] | None = None, at: Termination = server) -> Machine:
        state = tmp_path / "s" / ARMED
        state.mkdir(parents=True)
        for name, text in bootstrap.scripts().items():
            (state / name).write_text(text)
        sh = shell or [shutil.which("sh") or "/bin/sh"]
        made.append(Machine(state, at, sh, tool_folder(tmp_path / "bin", *(tools or ("curl",)))))
        made[-1].beat("first")
        return made[-1]

    yield machine
    for one in made:
        one.end()

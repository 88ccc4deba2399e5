"""The end of a lease's processes, wherever they have gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.provisioners.onhost.calling import (
    LEASE,
    Agent,
    Cut,
    lives,
    number_in,
    processes_of,
)

pytestmark = pytest.mark.real


def test_end_ends_all_that_a_job_has_started(agent: Agent, tmp_path: Path) -> None:
    """In its group, in a session of its own, without the marker, and deaf to SIGTERM."""
    deaf = "trap '' TERM; while :; do sleep 0.1; done"
    agent.start(
        "a",
        f"sleep 1000 & echo $! > {tmp_path}/grouped\n"
        f"setsid sh -c 'echo $$ > {tmp_path}/escaped; exec sleep 1000' &\n"
        f"(setsid env -i sh -c 'echo $$ > {tmp_path}/unmarked; exec sleep 1000' &)\n"
        f'(setsid sh -c "echo \\$\\$ > {tmp_path}/deaf; {deaf}" &)\n'
        "exec sleep 1000",
    )
    pids = [number_in(tmp_path / name) for name in ("grouped", "escaped", "unmarked", "deaf")]
    assert all(map(lives, pids))
    assert agent("end", "0.5") == {"left": [], "ports_busy": []}
    assert not any(map(lives, pids))
    assert agent("status", "a")["status"] == -signal.SIGTERM
    assert processes_of(agent.state) == []


def test_end_finds_strays_by_their_marker_when_the_supervisor_is_gone(agent: Agent, cut: Cut, tmp_path: Path) -> None:
    agent.start("b", f"(setsid sh -c 'echo $$ > {tmp_path}/stray; exec sleep 1000' &) ; exec sleep 1000")
    stray = number_in(tmp_path / "stray")
    os.kill(agent.recorded("b", "supervisor")["pid"], signal.SIGKILL)
    assert agent("end") == {"left": [], "ports_busy": []}
    assert not lives(stray)
    assert not lives(cut.command)


def test_end_wakes_what_was_stopped(agent: Agent) -> None:
    pid = agent.start("a", "exec sleep 1000")["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert agent("end")["left"] == []
    assert agent("status", "a")["status"] == -signal.SIGTERM


def test_end_leaves_others_alone(agent: Agent, fresh: Callable[..., Agent]) -> None:
    other = fresh(lease=LEASE.replace("-60m", "0-60m"))
    other.boot()
    other.start("a", "exec sleep 1000")
    agent.start("a", "exec sleep 1000")
    agent("end")
    assert other("status", "a")["running"]
    assert other("end")["left"] == []


def test_end_is_not_deceived_by_a_group_of_the_same_number(agent: Agent) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as foreign:
        agent.start("a", "true")
        agent.follow("a")
        (agent.state / "jobs" / "a" / "group").write_text(json.dumps({"pid": foreign.pid, "started": "1"}))
        agent("end")
        assert foreign.poll() is None
        foreign.kill()


def test_ports_are_given_out_and_looked_at(agent: Agent) -> None:
    ports = [agent("port")["port"] for _ in range(2)]
    assert len(set(ports)) == 2
    listen = (
        "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); print(); time.sleep(1000)"
    )
    foreign = subprocess.Popen([sys.executable, "-uc", listen, str(ports[0])], stdout=subprocess.PIPE)
    with foreign:
        assert foreign.stdout
        foreign.stdout.readline()
        assert agent("end") == {"left": [], "ports_busy": [ports[0]]}
        foreign.kill()
    assert agent("end") == {"left": [], "ports_busy": []}

"""Jobs on a machine: started, joined and followed by clients that come and go."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.provisioners.onhost.calling import (
    LEASE,
    SECRET,
    Agent,
    Cut,
    lives,
    processes_of,
)

pytestmark = pytest.mark.real


def test_a_job_is_heard_as_it_speaks_and_from_where_it_was_left(agent: Agent, tmp_path: Path) -> None:
    started = agent.start(
        "a", f"echo one; echo two >&2; until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo three; exit 3"
    )
    assert started["joined"] is False
    with subprocess.Popen(agent.argv("follow", "a", "0"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as early:
        assert early.stdout
        assert early.stdout.readline() + early.stdout.readline() == b"one\ntwo\n"
        assert agent("status", "a")["running"]
        (tmp_path / "go").touch()
        assert early.stdout.read() == b"three\n"
    whole = b"one\ntwo\nthree\n"
    ended = {"status": 3, "lost": False, "bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    assert agent.follow("a") == (whole, ended)
    assert agent.follow("a", 4) == (b"two\nthree\n", ended)
    assert agent("status", "a") == {**ended, "known": True, "running": False, "pid": started["pid"]}


def test_an_unknown_job_is_not_known(agent: Agent) -> None:
    assert agent("status", "nobody")["known"] is False
    ran = agent.run("follow", "nobody", "0")
    assert ran.returncode == 1


@pytest.mark.parametrize("name", ["../a", "", "a/b", ".hidden"])
def test_a_jobs_name_leads_nowhere_else(agent: Agent, name: str) -> None:
    ran = agent.run("start", name, request={"argv": ["true"]})
    assert ran.returncode == 1
    assert "name" in json.loads(ran.stdout)["error"]


def test_a_command_that_is_not_there_is_told_and_may_be_tried_again(agent: Agent) -> None:
    said = agent("start", "a", request={"argv": ["no-such-command"], "env": {}})
    assert "no-such-command: No such file or directory" in said["error"]
    assert agent("status", "a")["known"] is False
    assert agent.start("a", "true")["joined"] is False


def test_a_command_is_looked_for_on_the_path_that_it_is_given(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "hello").chmod(0o755)
    agent("start", "a", request={"argv": ["hello"], "env": {"PATH": f"{tmp_path}:{os.environ['PATH']}"}})
    assert agent.follow("a")[0] == b"hello\n"


def test_a_killed_command_leaves_its_signal(agent: Agent) -> None:
    pid = agent.start("a", "sleep 1000")["pid"]
    os.kill(pid, signal.SIGKILL)
    assert agent.follow("a")[1]["status"] == -signal.SIGKILL


def test_a_job_is_joined_while_it_runs_and_after_it_has_ended(agent: Agent) -> None:
    pid = agent.start("a", "sleep 1000; echo never")["pid"]
    assert agent.start("a", "echo another") == {"joined": True, "pid": pid}
    os.kill(pid, signal.SIGTERM)
    assert agent.follow("a")[1]["status"] == -signal.SIGTERM
    assert agent.start("a", "echo another", again=True) == {"joined": True, "pid": pid}
    assert agent.follow("a")[0] == b""


def test_of_many_who_start_the_same_one_does(agent: Agent) -> None:
    request = json.dumps({"argv": ["sh", "-c", "echo ran >> ran"], "env": {}}).encode() + b"\n"
    calls = [
        subprocess.Popen(agent.argv("start", "a"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(8)
    ]
    for call in calls:
        assert call.stdin
        call.stdin.write(request)
        call.stdin.flush()
    said = [json.loads(call.communicate(timeout=60)[0]) for call in calls]
    assert sorted(one["joined"] for one in said) == [False] + [True] * 7
    assert len({one["pid"] for one in said}) == 1
    agent.follow("a")
    assert (agent.state / "work" / "ran").read_text() == "ran\n"


def test_a_job_outlives_those_who_started_and_heard_it(agent: Agent, tmp_path: Path) -> None:
    """As at the end of an SSH session: its group gets SIGHUP, its pipes close."""
    waits = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo still here"
    request = json.dumps({"argv": ["sh", "-c", waits], "env": {}})
    script = f"printf '%s\\n' '{request}' | {' '.join(agent.argv('start', 'a'))} && sleep 1000"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True) as session:
        assert session.stdout
        assert b"joined" in session.stdout.readline()
        supervisor = agent.recorded("a", "supervisor")["pid"]
        os.killpg(session.pid, signal.SIGHUP)
        for pid in (supervisor, agent.recorded("a", "group")["pid"]):
            assert os.getsid(pid) != session.pid
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            os.kill(supervisor, number)
    (tmp_path / "go").touch()
    log, said = agent.follow("a")
    assert (log, said["status"]) == (b"still here\n", 0)


def test_a_command_starts_without_ignored_signals(agent: Agent) -> None:
    script = "trap '' HUP INT TERM; exec " + " ".join(agent.argv("start", "a"))
    request = json.dumps({"argv": ["sleep", "1000"]}).encode() + b"\n"
    said = json.loads(subprocess.run(["sh", "-c", script], input=request, capture_output=True, check=True).stdout)
    os.kill(said["pid"], signal.SIGHUP)
    assert agent.follow("a")[1]["status"] == -signal.SIGHUP


def test_what_a_job_inherits(fresh: Callable[..., Agent]) -> None:
    """On a pod: the start command's variables, whatever the session has; never the pod's key, never in a file."""
    agent = fresh()
    with subprocess.Popen(
        ["sleep", "1000"],
        env={"PATH": os.environ["PATH"], "HF_TOKEN": SECRET, "RUNPOD_API_KEY": SECRET, "RUNPOD_POD_ID": "p"},
    ) as start_command:
        agent.boot()
        agent("boot", str(start_command.pid))
        agent.start(
            "a", 'echo "$HF_TOKEN/$RUNPOD_POD_ID/$RUNPOD_API_KEY/$MINE/$RECIPE_LEASE"; sleep 1000', env={"MINE": SECRET}
        )
        log = agent.state / "jobs" / "a" / "log"
        line = eventually(lambda: log.read_text().strip(), what="the job's line")
        arguments = [word for process in processes_of(agent.state) for word in process.cmdline()]
        start_command.kill()
    assert line == f"{SECRET}/p//{SECRET}/{LEASE}"
    assert not [word for word in arguments if SECRET in word]
    holding = [path for path in agent.state.rglob("*") if path.is_file() and SECRET in path.read_text(errors="replace")]
    assert holding == [log]


def test_a_job_whose_supervisor_was_killed_is_lost(agent: Agent, cut: Cut) -> None:
    assert agent("status", "a")["running"] is False
    said = agent.follow("a")[1]
    assert (said["status"], said["lost"]) == (None, True)
    assert agent.start("a", "echo again") == {"joined": True, "pid": cut.command}


def test_a_lost_job_is_started_again_where_that_is_asked_for(agent: Agent, cut: Cut) -> None:
    assert agent.start("a", "echo again", again=True)["joined"] is False
    assert not lives(cut.command)
    log, said = agent.follow("a")
    assert (log, said["status"]) == (b"begun\nagain\n", 0)


def test_a_follower_hears_that_a_job_was_lost(agent: Agent) -> None:
    agent.start("a", "echo begun; exec sleep 1000")
    with subprocess.Popen(
        agent.argv("follow", "a", "0"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as f:
        assert f.stdout
        assert f.stderr
        assert f.stdout.readline() == b"begun\n"
        os.kill(agent.recorded("a", "supervisor")["pid"], signal.SIGKILL)
        assert json.loads(f.stderr.read())["lost"] is True


def test_a_number_that_is_used_again_is_not_the_supervisor(agent: Agent, cut: Cut) -> None:
    path = agent.state / "jobs" / "a" / "supervisor"
    path.write_text(json.dumps({**agent.recorded("a", "supervisor"), "pid": os.getpid()}))
    assert agent("status", "a")["lost"] is True


@pytest.mark.parametrize("gone", ["input", "output", "both"])
def test_a_follower_goes_with_its_reader(agent: Agent, gone: str) -> None:
    agent.start("a", "echo begun; exec sleep 1000")
    with subprocess.Popen(agent.argv("follow", "a", "0"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as follower:
        assert follower.stdin
        assert follower.stdout
        assert follower.stdout.readline() == b"begun\n"
        if gone in ("input", "both"):
            follower.stdin.close()
        if gone in ("output", "both"):
            follower.stdout.close()
        assert follower.wait(timeout=30) == 0
    assert agent("status", "a")["running"]

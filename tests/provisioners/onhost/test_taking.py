"""A host of somebody's own: taken by one lease at a time, and left as it was found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.provisioners.onhost.calling import (
    FAR,
    LEASE,
    Agent,
    lives,
)

pytestmark = pytest.mark.real


@dataclass(frozen=True)
class Taken:
    """Asks for this machine as a host."""

    fresh: Callable[..., Agent]

    def __call__(self, lease: str, **more: Any) -> tuple[Agent, dict[str, Any]]:
        agent = self.fresh(lease=lease)
        request = {"lease": lease, "deadline": FAR, "idle_s": 600, "volume": None, **more}
        return agent, agent("begin", request=request)

    def when_free(self, lease: str) -> dict[str, Any]:
        """A machine with much to do may need a moment until what has ended is gone."""
        said: dict[str, Any] = eventually(lambda: _if_taken(self(lease)[1]), what="the free host")
        return said


@pytest.fixture
def take(fresh: Callable[..., Agent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Taken:
    """Hosts with a lock and a home of their own, and a quick switch."""
    monkeypatch.setenv("RECIPE_HOST_LOCK", str(tmp_path / "lock"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("RECIPE_TICK_S", "0.05")
    return Taken(fresh)


def test_on_a_host_a_job_inherits_the_logins_environment(
    fresh: Callable[..., Agent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".profile", ".bash_profile", ".zprofile"):
        (tmp_path / name).write_text("echo hello from the profile\nexport FROM_PROFILE=yes\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RECIPE_HOST_LOCK", str(tmp_path / "lock"))
    agent = fresh()
    agent("begin", request={"lease": LEASE, "deadline": FAR, "idle_s": 600, "volume": None})
    agent.start("a", "echo $FROM_PROFILE")
    assert agent.follow("a")[0] == b"yes\n"


def test_a_host_is_taken_once(take: Taken, tmp_path: Path) -> None:
    first, said = take("first")
    assert said == {"ok": True, "joined": False}
    assert first("begin", request={"lease": "first", "deadline": FAR, "idle_s": 600}) == {"ok": True, "joined": True}
    second, said = take("second")
    assert said["locked_by"]["lease"] == "first"
    assert abs(said["locked_by"]["since"] - time.time()) < 60
    assert said["locked_by"]["user"]
    assert not second.state.exists()
    probe = first("probe")
    assert (probe["switch"]["alive"], probe["switch"]["proof"], probe["kind"]) == (True, "allowed", "host")
    assert probe["cache"] == str(tmp_path / ".cache" / "recipe")
    assert probe["warnings"] == []
    assert first("release") == {"left": [], "ports_busy": [], "removed": True}
    assert not first.state.parent.exists()
    assert take.when_free("second") == {"ok": True, "joined": False}


def test_releasing_ends_everything_and_leaves_the_cache(take: Taken, tmp_path: Path) -> None:
    agent, _ = take("first")
    pid = agent.start("a", "exec sleep 1000")["pid"]
    kept = tmp_path / ".cache" / "recipe" / "kept"
    kept.touch()
    switch = agent("probe")["switch"]["pid"]
    assert agent("release")["removed"] is True
    assert not lives(pid)
    assert eventually(lambda: not lives(switch), what="the switch's end")
    assert kept.exists()


RELEASING = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
import agent, agent_host
gone = subprocess.Popen(["true"])
gone.wait()
look = agent_host.switch
agent_host.switch = lambda state: dict(look(state), pid=gone.pid)
agent.main()
"""
"""A release that finds its switch gone when it has looked at it and wants to end it."""


def test_a_switch_that_goes_by_itself_meanwhile_does_not_spoil_a_release(take: Taken) -> None:
    agent, _ = take("first")
    argv = [sys.executable, "-c", RELEASING, str(agent.state), "release"]
    ran = subprocess.run(argv, capture_output=True, timeout=60)
    assert json.loads(ran.stdout) == {"left": [], "ports_busy": [], "removed": True}, ran.stderr


def test_a_pod_is_not_released(agent: Agent) -> None:
    assert "no lease of a host" in json.loads(agent.run("release").stdout)["error"]
    assert agent.state.exists()


def test_a_host_whose_switch_was_killed_is_free(take: Taken) -> None:
    agent, _ = take("first")
    pid = agent.start("a", "exec sleep 1000")["pid"]
    os.kill(agent("probe")["switch"]["pid"], signal.SIGKILL)
    eventually(lambda: not agent("probe")["switch"]["alive"], what="the switch's end")
    assert any("not running" in warning for warning in agent("probe")["warnings"])
    again, said = take("first")
    assert said == {"ok": True, "joined": False}
    assert not lives(pid)
    os.kill(again("probe")["switch"]["pid"], signal.SIGKILL)
    assert take.when_free("second") == {"ok": True, "joined": False}


def test_a_host_lets_itself_go_when_nobody_gives_a_sign_of_life(take: Taken) -> None:
    agent, _ = take("first", idle_s=5)
    pid = agent.start("a", "trap '' HUP; exec sleep 1000")["pid"]
    eventually(lambda: not agent.state.exists(), what="the end of the lease")
    assert not lives(pid)
    assert take.when_free("second") == {"ok": True, "joined": False}


def test_a_host_lets_itself_go_at_its_deadline(take: Taken) -> None:
    agent, _ = take("first", deadline=time.time() - 1)
    eventually(lambda: not agent.state.exists(), what="the end of the lease")


def test_of_many_who_want_a_host_one_has_it(take: Taken, fresh: Callable[..., Agent]) -> None:
    agents = [fresh(lease=f"lease-{n}") for n in range(5)]
    calls = [subprocess.Popen(agent.argv("begin"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) for agent in agents]
    for agent, call in zip(agents, calls, strict=True):
        assert call.stdin
        request = {"lease": agent.state.name, "deadline": FAR, "idle_s": 600, "volume": None}
        call.stdin.write(json.dumps(request).encode() + b"\n")
        call.stdin.flush()
    said = [json.loads(call.communicate(timeout=60)[0]) for call in calls]
    (winner,) = [agent for agent, one in zip(agents, said, strict=True) if "ok" in one]
    assert {one["locked_by"]["lease"] for one in said if "ok" not in one} == {winner.state.name}
    assert [agent for agent in agents if agent.state.exists()] == [winner]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_two_users_share_one_lock(take: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file of the first one may not be written by others."""
    with tempfile.TemporaryDirectory() as shared:
        Path(shared).chmod(0o1777)
        lock = Path(shared, "lock")
        monkeypatch.setenv("RECIPE_HOST_LOCK", str(lock))
        agent, _ = take("first")
        assert lock.stat().st_mode & 0o777 == 0o666
        lock.chmod(0o644)
        theirs = Agent(Path(shared, "other"), python="/usr/bin/python3")
        theirs.install()
        for path in (theirs.state, *theirs.state.iterdir()):
            os.chown(path, 65534, 65534)
        request = {"lease": "other", "deadline": FAR, "idle_s": 600, "volume": None}
        as_another: dict[str, Any] = {"env": {"HOME": shared}, "user": 65534, "group": 65534, "cwd": "/"}
        assert theirs("begin", request=request, **as_another)["locked_by"]["lease"] == "first"
        agent("release")
        theirs.install()
        for path in (theirs.state, *theirs.state.iterdir()):
            os.chown(path, 65534, 65534)
        taken = eventually(lambda: _if_taken(theirs("begin", request=request, **as_another)), what="the free host")
        assert taken == {"ok": True, "joined": False}
        assert theirs("release", **as_another)["removed"] is True


def _if_taken(said: dict[str, Any]) -> dict[str, Any] | None:
    return said if "ok" in said else None


def test_a_lock_that_is_no_file_is_refused(take: Taken, fresh: Callable[..., Agent], tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    agent = fresh(lease="first")
    ran = agent.run("begin", request={"lease": "first", "deadline": FAR, "idle_s": 600})
    assert ran.returncode == 1
    assert "error" in json.loads(ran.stdout)

"""The agent on a machine: the real program with real processes, as a client calls it."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from provisioners import bootstrap
from tests.conftest import eventually
from tests.provisioners.onhost.calling import (
    LEASE,
    Agent,
    oldest_python,
)

pytestmark = pytest.mark.real


@pytest.mark.parametrize("name", sorted(bootstrap.scripts()))
def test_every_script_can_be_read_by_an_old_python(name: str) -> None:
    if name.endswith(".py"):
        ast.parse(bootstrap.scripts()[name], feature_version=(3, 6))


def test_an_old_python_is_enough(fresh: Callable[..., Agent]) -> None:
    python = oldest_python()
    if python is None:
        pytest.skip("no old Python here")
    agent = fresh(python=python)
    agent.boot(("a", "echo booted"))
    assert agent.follow("a")[0] == b"booted\n"
    assert agent("probe")["python"] == python
    agent.start("b", "sleep 1000")
    (agent.state / "work" / "x").write_text("y")
    assert b"x" in agent.run("pack", "*").stderr
    assert agent("end") == {"left": [], "ports_busy": []}


def test_it_says_what_the_machine_is(agent: Agent) -> None:
    said = agent("probe")
    assert said["python"] == sys.executable
    assert said["python_tag"] == f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    assert (said["state"], said["work"]) == (str(agent.state), str(agent.state / "work"))
    assert said["cache"] == str(agent.state / "cache")
    assert said["volume"] == {"asked": None, "at": None}
    assert (said["lease"], said["kind"], said["booted"]) == (LEASE, "pod", True)
    assert said["cpus"] >= 1
    assert said["memory_bytes"] > 1e8
    assert said["disk_free_bytes"] > 0
    assert abs(said["now"] - time.time()) < 60
    assert said["switch"] is None
    assert any("dead-man switch is not running" in warning for warning in said["warnings"])


def test_a_volume_that_is_not_mounted_is_never_made(fresh: Callable[..., Agent], tmp_path: Path) -> None:
    asked = tmp_path / "workspace"
    agent = fresh()
    agent.boot(volume=str(asked))
    said = agent("probe")
    assert not asked.exists()
    assert said["volume"] == {"asked": str(asked), "at": str(agent.state / "volume")}
    assert said["cache"] == str(agent.state / "cache")
    assert any(str(asked) in warning for warning in said["warnings"])


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="nothing is mounted that may be written to")
def test_a_mounted_volume_holds_the_cache(fresh: Callable[..., Agent]) -> None:
    agent = fresh()
    agent.boot(volume="/dev/shm")
    try:
        said = agent("probe")
        assert said["volume"] == {"asked": "/dev/shm", "at": "/dev/shm"}
        assert said["cache"] == "/dev/shm/.recipe-cache"
    finally:
        Path("/dev/shm/.recipe-cache").rmdir()


def test_every_line_is_a_sign_of_life(agent: Agent) -> None:
    with subprocess.Popen(agent.argv("beat"), stdin=subprocess.PIPE) as beating:
        assert beating.stdin
        for _ in range(3):
            before = agent.beaten()
            beating.stdin.write(b"\n")
            beating.stdin.flush()
            eventually(partial(agent.beats_since, before), what="the sign of life")
        beating.stdin.close()
        assert beating.wait(timeout=30) == 0


def test_what_a_boots_job_says_is_a_sign_of_life_unless_it_repeats_itself(
    fresh: Callable[..., Agent], tmp_path: Path
) -> None:
    agent = fresh()
    moves = f"n=0; while [ ! -e {tmp_path}/stalled ]; do n=$((n+1)); echo $n; sleep 0.1; done"
    script = f"{moves}; while :; do echo same; sleep 0.1; done"
    agent.boot(("download", script))
    first = agent.beaten()
    eventually(lambda: agent.beaten() != first, what="a sign of life")
    (tmp_path / "stalled").touch()
    log = agent.state / "jobs" / "download" / "log"

    def silent() -> bool:
        before, size = agent.beaten(), log.stat().st_size
        eventually(lambda: log.stat().st_size > size + 100, what="more of the same")
        return agent.beaten() == before

    eventually(silent, what="the silence")


def test_a_boots_files_and_arguments_know_where_they_are(fresh: Callable[..., Agent]) -> None:
    agent = fresh()
    folder = agent.state / "boot" / "deep"
    folder.mkdir(parents=True)
    (folder / "request.json").write_text('{"to": "{cache}/x", "by": "{python}"}')
    (folder / "script.py").write_text("print('{cache}')\n")
    agent.boot(("a", "cat {work}/deep/request.json; cat {work}/deep/script.py"))
    said = agent.follow("a")[0].decode()
    assert said == f'{{"to": "{agent.state}/cache/x", "by": "{sys.executable}"}}' + "print('{cache}')\n"


def test_a_boots_paths_are_put_where_the_volume_is(fresh: Callable[..., Agent], tmp_path: Path) -> None:
    agent = fresh()
    (agent.state / "boot").mkdir()
    asked = [f"{{place:{tmp_path}/m/x}}", f"{{place:{tmp_path}}}", "{place:/else/where}"]
    (agent.state / "boot" / "r.json").write_text(json.dumps(asked))
    agent.boot(("a", f"cat r.json; echo; echo {asked[1]}"), volume=str(tmp_path))
    stands_for_it = agent.state / "volume"
    listed, named = agent.follow("a")[0].decode().splitlines()
    assert json.loads(listed) == [f"{stands_for_it}/m/x", str(stands_for_it), "/else/where"]
    assert named == str(stands_for_it)


def test_a_container_that_restarts_goes_on_with_what_was_cut_off(fresh: Callable[..., Agent]) -> None:
    agent = fresh()
    jobs = (
        ("finished", "echo finished"),
        ("failed", "echo failed; exit 3"),
        ("cut", "echo cut; sleep 1000"),
        ("killed", "echo killed; sleep 1000"),
    )
    agent.boot(*jobs)
    log = agent.state / "jobs" / "cut" / "log"
    for name in ("finished", "failed"):
        agent.follow(name)
    eventually(lambda: log.read_text() == "cut\n", what="the first attempt")
    os.kill(agent.recorded("killed", "group")["pid"], signal.SIGKILL)
    agent.follow("killed")
    for part in ("supervisor", "group"):
        os.kill(agent.recorded("cut", part)["pid"], signal.SIGKILL)
    eventually(lambda: agent("status", "cut")["lost"], what="the loss")
    said = agent.boot(*jobs)["jobs"]
    assert {name: one["joined"] for name, one in said.items()} == {
        "finished": True,
        "failed": True,
        "cut": False,
        "killed": False,
    }
    assert agent("status", "cut")["running"]
    eventually(lambda: log.read_text() == "cut\ncut\n", what="the second attempt")


def test_booting_again_while_all_is_well_changes_nothing(fresh: Callable[..., Agent]) -> None:
    agent = fresh()
    pid = agent.boot(("a", "exec sleep 1000"))["jobs"]["a"]["pid"]
    assert agent.boot(("a", "exec sleep 1000"))["jobs"]["a"] == {"joined": True, "pid": pid}
    assert agent.start("a", "whatever") == {"joined": True, "pid": pid}


def test_files_are_packed_with_their_digests(agent: Agent, tmp_path: Path) -> None:
    work = agent.state / "work"
    contents = {"a.txt": b"a", "deep/er/b.txt": b"bb", "deep/c.bin": os.urandom(300_000)}
    for name, data in contents.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(data)
    (tmp_path / "outside.txt").write_text("out")
    (work / "out.txt").symlink_to(tmp_path / "outside.txt")
    (work / "in.txt").symlink_to("a.txt")
    (work / "nowhere.txt").symlink_to("nothing")
    os.mkfifo(work / "pipe.txt")
    ran = agent.run("pack", "*.txt", "deep/**", "../**", str(tmp_path / "*"), "none*")
    listed = {entry["path"]: entry for entry in json.loads(ran.stderr)["files"]}
    assert set(listed) == {"a.txt", "in.txt", "deep/er/b.txt", "deep/c.bin"}
    with tarfile.open(fileobj=io.BytesIO(ran.stdout), mode="r:gz") as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file
            data = file.read()
            assert data == contents.get(member.name, b"a")
            assert listed[member.name]["sha256"] == hashlib.sha256(data).hexdigest()
            assert listed[member.name]["bytes"] == len(data)


@pytest.mark.parametrize("begin", [0, 1, 10, 150_000, 10_000_000])
def test_an_archive_goes_on_from_any_byte(agent: Agent, begin: int) -> None:
    (agent.state / "work" / "noise.bin").write_bytes(os.urandom(300_000))
    (agent.state / "work" / ("long-" * 40)).write_text("x" * 100_000)
    whole = agent.run("pack", "*")
    rest = agent.run("pack", f"--from={begin}", "*")
    assert (rest.stdout, rest.stderr) == (whole.stdout[begin:], whole.stderr)


def test_packing_nothing_is_an_empty_archive(agent: Agent) -> None:
    ran = agent.run("pack", "none*")
    assert json.loads(ran.stderr) == {"files": []}
    with tarfile.open(fileobj=io.BytesIO(ran.stdout), mode="r:gz") as tar:
        assert tar.getnames() == []


def test_what_goes_wrong_is_said(agent: Agent) -> None:
    ran = agent.run("start", "a")
    assert ran.returncode == 1
    assert "error" in json.loads(ran.stdout)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs to mount a small disk")
def test_a_full_disk_keeps_neither_the_status_nor_the_sign_of_life(agent: Agent) -> None:
    disk = agent.state.parent / "disk"
    disk.mkdir()
    script = f"""set -e
        mount -t tmpfs -o size=400k none {disk}
        mkdir {disk}/lease
        cp {agent.state}/*.py {agent.state}/boot.json {disk}/lease
        call="{sys.executable} {disk}/lease/agent.py {disk}/lease"
        $call boot $$ > /dev/null
        echo '{{"argv": ["sh", "-c", "head -c 9000000 /dev/zero > big; read line < ../go; exit 7"]}}' > {disk}/request
        mkfifo {disk}/lease/go
        $call start a < {disk}/request > /dev/null
        n=0  # each time another file: one that was written before has room for as much again
        until [ -s {disk}/lease/work/big ] && ! echo x > {disk}/lease/more$n
        do n=$((n+1)); sleep 0.05; done 2> /dev/null
        before=$(cat {disk}/lease/beat)
        echo | $call beat
        [ "$before" != "$(cat {disk}/lease/beat)" ]
        echo > {disk}/lease/go
        $call follow a 0 2>&1 | tail -n 1"""
    ran = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, timeout=60)
    assert json.loads(ran.stdout).get("status") == 7, ran

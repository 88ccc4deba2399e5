"""The start command of a pod: its form, and what it does where it is run."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from provisioners.bootstrap import DEFAULT_API, DEFAULT_GRAPHQL, LONGEST, scripts, start_command, state_dir
from provisioners.contract import Boot, BootJob, Lease
from recipes.errors import Refused
from tests.conftest import eventually
from tests.emulators.termination import Termination, termination

SECRET = "hf_A-secret-that-nobody-sees"
# Of this run of the tests alone: others beside it look for theirs in all command lines.
KEY = f"rpa_A-key-that-nobody-sees-{uuid.uuid4().hex}"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3Q recipe"
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="containers are Linux")
SHELLS = ["dash", "bash", "busybox"]
PROGRAMS = "base64 gzip sh date sleep cat tr grep rm rmdir mv mkdir chmod tail mktemp setsid curl"


def lease(name: str = "recipe-ana-demo-20261121-051200-9f3a-60m") -> Lease:
    return Lease(provider="runpod", name=name, run_id="demo-20261121-051200-9f3a")


def compose(of: Lease | None = None, **more: Any) -> Any:
    wanted = {
        "deadline": datetime.now(UTC) + timedelta(hours=1),
        "idle_s": 600,
        "boot": Boot(),
        "public_key": PUBLIC_KEY,
        "volume": None,
        **more,
    }
    return start_command(of or lease(), **wanted)


def unpacked(args: str) -> str:
    match = re.fullmatch(r"sh -c 'echo ([A-Za-z0-9+/=]+) \| base64 -d \| gzip -dc \| sh; sleep 10'", args)
    assert match, args[:100]
    return gzip.decompress(base64.b64decode(match[1])).decode()


def test_it_has_only_characters_that_survive_every_quoting() -> None:
    boot = Boot(files={"a'b.json": 'it\'s $HOME `x` "y"\n'}, jobs=(BootJob(name="a", argv=("echo", "'$x'")),))
    assert "it" in unpacked(compose(boot=boot).args)


def test_no_secret_is_in_it() -> None:
    command = compose(boot=Boot(env={"HF_TOKEN": SECRET}))
    assert SECRET not in unpacked(command.args)
    assert command.env == {"HF_TOKEN": SECRET, "PUBLIC_KEY": PUBLIC_KEY}
    assert SECRET not in repr(command)


def test_addresses_are_given_where_they_are_not_the_usual_ones() -> None:
    usual = compose(api_url=DEFAULT_API + "/", graphql_url=DEFAULT_GRAPHQL)
    assert set(usual.env) == {"PUBLIC_KEY"}
    other = compose(api_url="http://127.0.0.1:1/v2", graphql_url="http://127.0.0.1:1/graphql")
    assert other.env["RECIPE_API"] == "http://127.0.0.1:1/v2"
    assert other.env["RECIPE_GRAPHQL"] == "http://127.0.0.1:1/graphql"


def test_one_that_is_too_long_is_refused() -> None:
    noise = base64.b64encode(os.urandom(LONGEST)).decode()
    with pytest.raises(Refused, match="too many"):
        compose(boot=Boot(files={"noise": noise}))


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", ""])
def test_a_boots_file_stays_in_the_work_directory(path: str) -> None:
    with pytest.raises(ValueError, match="work directory"):
        compose(boot=Boot(files={path: "x"}))


def test_the_same_order_makes_the_same_command() -> None:
    deadline = datetime(2026, 11, 21, 6, 12, tzinfo=UTC)
    assert compose(deadline=deadline) == compose(deadline=deadline)


@pytest.mark.parametrize("name", [name for name in scripts() if name.endswith(".sh")])
@pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"], ["busybox", "sh"]], ids=lambda argv: argv[0])
def test_every_shell_can_read_the_scripts(shell: list[str], name: str) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed here")
    subprocess.run([*shell, "-n"], input=scripts()[name].encode(), check=True)


@dataclass
class Pod:
    """A lease's container without walls: the start command in an environment of its own."""

    name: str
    home: Path
    server: Termination
    path: Path
    containers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return Path(state_dir(self.name))

    def run(self, *, env: Mapping[str, str] | None = None, **order: Any) -> subprocess.Popen[bytes]:
        urls = {"api_url": self.server.api, "graphql_url": self.server.graphql}
        command = compose(lease(self.name), **{**urls, **order})
        given = {
            "PATH": str(self.path),
            "HOME": str(self.home),
            "RUNPOD_POD_ID": f"pod-{self.name}",
            "RUNPOD_API_KEY": KEY,
            "RECIPE_TICK_S": "0.1",
        }
        with (self.home / "container.log").open("ab") as log:
            container = subprocess.Popen(
                shlex.split(command.args),
                env={**given, **command.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.containers.append(container)
        return container

    def agent(self, *arguments: str, request: Any = None) -> dict[str, Any]:
        """As over SSH: without the container's environment."""
        eventually((self.state / "agent").exists, what="the agent")
        ran = subprocess.run(
            ["sh", str(self.state / "agent"), *arguments],
            input=json.dumps(request).encode() + b"\n",
            capture_output=True,
            env={"PATH": os.defpath},
            timeout=60,
        )
        answer: dict[str, Any] = json.loads(ran.stdout)
        return answer

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("RUNPOD_POD_ID") == f"pod-{self.name}"
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def switch(self) -> int:
        return int(eventually(lambda: (self.state / "switch.pid").exists() and (self.state / "switch.pid").read_text()))

    def kill(self) -> None:
        """As a container ends: everything at once."""
        while left := self.processes():
            for process in left:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
        for container in self.containers:
            container.wait()


def folder_of_programs(folder: Path, shell: str) -> Path:
    """A PATH on which `sh` is this shell; with busybox, everything that it can do is done by it."""
    folder.mkdir()
    for name in PROGRAMS.split():
        provider = "busybox" if shell == "busybox" and name != "curl" else shell if name == "sh" else name
        found = shutil.which(provider)
        if found is None:
            pytest.skip(f"{shell} or {name} is not installed here")
        (folder / name).symlink_to(found)
    (folder / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "python3").chmod(0o755)
    return folder


@pytest.fixture
def server() -> Iterator[Termination]:
    with termination() as world:
        yield world


@pytest.fixture
def make(server: Termination, tmp_path: Path) -> Iterator[Callable[..., Pod]]:
    made: list[Pod] = []

    def pod(shell: str = "dash") -> Pod:
        (tmp_path / "home").mkdir()
        name = f"recipe-test-{uuid.uuid4().hex[:12]}"
        made.append(Pod(name, tmp_path / "home", server, folder_of_programs(tmp_path / "bin", shell)))
        return made[-1]

    yield pod
    for one in made:
        one.kill()
        shutil.rmtree(one.state, ignore_errors=True)
        one.state.unlink(missing_ok=True)


def said_by(process: psutil.Process) -> list[str]:
    """Its command line; nothing of one that has ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


@pytest.mark.real
@LINUX
@pytest.mark.parametrize("shell", SHELLS)
def test_what_a_start_command_does(make: Callable[..., Pod], server: Termination, shell: str) -> None:
    pod = make(shell)
    boot = Boot(
        files={"ask.json": '{"cache": "{cache}"}'},
        jobs=(BootJob(name="a", argv=("sh", "-c", 'cat {work}/ask.json; echo "/$HF_TOKEN/$RUNPOD_API_KEY/"')),),
        env={"HF_TOKEN": SECRET},
    )
    pod.run(boot=boot)
    said = pod.agent("probe")
    assert (said["lease"], said["kind"], said["booted"]) == (pod.name, "pod", True)
    switch = eventually(
        lambda: (now := pod.agent("probe")["switch"]) and now["proof"] != "unknown" and now, what="the switch's proof"
    )
    assert (switch["alive"], switch["proof"], switch["idle_s"]) == (True, "allowed", 600)
    eventually(lambda: pod.agent("status", "a")["status"] == 0, what="the job's end")
    log = (pod.state / "jobs" / "a" / "log").read_text()
    assert log == f'{{"cache": "{pod.state}/cache"}}/{SECRET}//\n'
    keys = pod.home / ".ssh" / "authorized_keys"
    assert keys.read_text() == PUBLIC_KEY + "\n"
    assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert pod.state.stat().st_mode & 0o777 == 0o700
    # What is started later inherits the start command's environment, too, and a session is no part of it.
    pod.agent("start", "b", request={"argv": ["sh", "-c", "echo $HF_TOKEN; sleep 1000"]})
    later = pod.state / "jobs" / "b" / "log"
    eventually(lambda: later.read_text() == SECRET + "\n", what="the later job")
    words = " ".join(word for process in pod.processes() for word in said_by(process))
    spoken = (pod.home / "container.log").read_text()
    for secret in (SECRET, KEY):
        assert secret not in words
        assert secret not in spoken
    assert "its sshd and its packages are left as they are" in spoken


@pytest.mark.real
@LINUX
def test_a_container_that_restarts(make: Callable[..., Pod]) -> None:
    pod = make()
    order: dict[str, Any] = {
        "boot": Boot(jobs=(BootJob(name="a", argv=("sh", "-c", "echo begun; sleep 1000")),)),
        "deadline": datetime.now(UTC) + timedelta(hours=1),
    }
    log = pod.state / "jobs" / "a" / "log"
    pod.run(**order)
    eventually(lambda: log.exists() and log.read_text() == "begun\n", what="the job")
    before = pod.agent("probe")["switch"]
    pod.kill()
    pod.run(**order)
    eventually(lambda: log.read_text() == "begun\nbegun\n", what="the job, once more")
    after = eventually(lambda: (now := pod.agent("probe")["switch"])["alive"] and now, what="the switch")
    assert after["deadline"] == before["deadline"]
    assert after["pid"] != before["pid"]
    assert (pod.home / ".ssh" / "authorized_keys").read_text() == PUBLIC_KEY + "\n"


@pytest.mark.real
@LINUX
def test_a_switch_that_was_killed_is_started_again(make: Callable[..., Pod]) -> None:
    pod = make()
    pod.run()
    pod.agent("probe")
    first = pod.switch()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: pod.switch() != first, what="another switch")
    assert psutil.pid_exists(pod.switch())


@pytest.mark.real
@LINUX
def test_the_switch_ends_a_pod_and_its_jobs(make: Callable[..., Pod], server: Termination) -> None:
    pod = make()
    # Long enough for the job to begin first, also on a slow machine.
    pod.run(idle_s=8, boot=Boot(jobs=(BootJob(name="a", argv=("sleep", "1000")),)))
    server.wait_for("terminate", seconds=60)
    assert pod.agent("status", "a")["status"] == -signal.SIGTERM
    assert {call.pod for call in server.calls} == {f"pod-{pod.name}"}


@pytest.mark.real
@LINUX
@pytest.mark.parametrize("shell", SHELLS)
def test_where_nothing_can_be_written_the_switch_works_from_memory(
    make: Callable[..., Pod], server: Termination, shell: str
) -> None:
    pod = make(shell)
    pod.state.write_text("in the way")
    pod.run(deadline=datetime.now(UTC) + timedelta(seconds=2))
    server.wait_for("start", "terminate")
    assert pod.containers[0].poll() is None


@pytest.mark.real
@LINUX
def test_with_the_start_command_goes_the_switch(make: Callable[..., Pod]) -> None:
    """Where there is no real container around it, nothing may stay on the machine."""
    pod = make()
    container = pod.run()
    pod.agent("probe")
    switch = pod.switch()
    os.killpg(container.pid, signal.SIGKILL)
    container.wait()
    eventually(lambda: switch not in {process.pid for process in pod.processes()}, what="the switch's end")


@pytest.mark.real
@LINUX
@pytest.mark.skipif(os.geteuid() != 0, reason="needs namespaces")
def test_a_real_container_is_opened_by_an_sshd_of_its_own(make: Callable[..., Pod], tmp_path: Path) -> None:
    for program in ("unshare", "nsenter", "ip", "ssh", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed here")
    sshd = next(filter(os.path.exists, ("/usr/sbin/sshd", "/usr/local/sbin/sshd")), None)
    if sshd is None:
        pytest.skip("sshd is not installed here")
    pod = make()
    for name in ("ssh-keygen", "sed"):
        (pod.path / name).symlink_to(shutil.which(name) or "")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    command = compose(lease(pod.name), public_key=Path(f"{key}.pub").read_text().strip(), api_url=pod.server.api)
    users = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
    (tmp_path / "passwd").write_text("\n".join([f"root:x:0:0:root:{pod.home}:/bin/sh", *users]) + "\n")
    setting_up = [f"mount --bind {tmp_path}/passwd /etc/passwd", "ip link set lo up"]
    env = {"PATH": str(pod.path), "HOME": str(pod.home), "RUNPOD_POD_ID": f"pod-{pod.name}", "RUNPOD_API_KEY": KEY}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in {**env, **command.env}.items()]
    script = " && ".join([*setting_up, *exports, f"exec {command.args}"])
    namespaces = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net"]
    log = (tmp_path / "log").open("wb")
    with log, subprocess.Popen([*namespaces, "sh", "-c", script], stdout=log, stderr=log) as outside:
        try:
            eventually((pod.state / "agent").exists, what="the agent")
            said = (tmp_path / "log").read_text()
            host_key = re.search(r"its key: (ssh-ed25519 \S+)", said)
            assert host_key, said
            (tmp_path / "known").write_text(f"127.0.0.1 {host_key[1]}\n")
            first = int(subprocess.run(["pgrep", "-P", str(outside.pid)], capture_output=True, text=True).stdout)
            options = [f"UserKnownHostsFile={tmp_path}/known", "StrictHostKeyChecking=yes", "BatchMode=yes"]
            ssh = ["ssh", "-F", "none", "-i", str(key), *(word for option in options for word in ("-o", option))]
            inside = ["nsenter", "-t", str(first), "-n", *ssh, "root@127.0.0.1"]
            ran = subprocess.run([*inside, f"sh {pod.state}/agent probe"], capture_output=True, timeout=60)
            assert ran.returncode == 0, ran.stderr
            assert json.loads(ran.stdout)["lease"] == pod.name
        finally:
            outside.kill()

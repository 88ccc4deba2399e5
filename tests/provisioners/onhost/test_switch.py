"""The dead-man switch: the real script in real shells, against a server that records what it calls."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioners import bootstrap
from tests.conftest import eventually
from tests.emulators.termination import Termination, termination
from tests.provisioners.onhost.switches import FAR, KEY, LEASE, POD, TICK_S, Machine

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="containers are Linux"),
]


@pytest.mark.parametrize("status", [409, 200, 204])
def test_it_proves_that_it_may_call_without_doing_it(
    make: Callable[..., Machine], server: Termination, status: int
) -> None:
    server.answers["start"] = [status]
    machine = make()
    process = machine.arm()
    said = machine.proof("allowed")
    assert str(status) in said["said"]
    assert (said["deadline"], said["idle_s"], said["pid"], said["ways"]) == (FAR, 1000, process.pid, ["curl"])
    assert set(server.ways()) == {"start"}
    assert {(call.pod, call.authorization) for call in server.calls} == {(POD, f"Bearer {KEY}")}


@pytest.mark.parametrize("status", [401, 403])
def test_it_says_that_it_may_not_call(make: Callable[..., Machine], server: Termination, status: int) -> None:
    server.answers["start"] = [status]
    machine = make()
    machine.arm()
    assert str(status) in machine.proof("refused")["said"]


def test_it_asks_again_while_the_answer_says_nothing(
    make: Callable[..., Machine], server: Termination, each_shell: list[str]
) -> None:
    server.answers["start"] = [404, 500, 302, 409]
    machine = make(shell=each_shell)
    machine.arm()
    machine.proof("allowed")
    assert server.ways() == ["start"] * 4


def test_a_container_without_a_key_is_told_from_one_that_is_refused(make: Callable[..., Machine]) -> None:
    machine = make()
    machine.arm(env={"RUNPOD_API_KEY": ""})
    assert "RUNPOD_API_KEY" in machine.proof("refused")["said"]


def test_it_ends_the_pod_at_the_deadline(
    make: Callable[..., Machine], server: Termination, each_shell: list[str]
) -> None:
    machine = make(shell=each_shell)
    machine.arm(deadline=time.time() + 1)
    machine.proof("allowed")
    server.wait_for("terminate")
    assert (machine.state / "ending").read_text() == "the deadline has come\n"
    # As long as the container lives it is asked again, but not at once.
    server.wait_for("terminate", "delete", "graphql", "terminate")


def test_a_deadline_that_has_passed_ends_a_container_that_restarted(
    make: Callable[..., Machine], server: Termination
) -> None:
    make().arm(deadline=time.time() - 1)
    server.wait_for("terminate")


def test_it_ends_the_pod_when_nobody_gives_a_sign_of_life(
    make: Callable[..., Machine], server: Termination, each_shell: list[str]
) -> None:
    machine = make(shell=each_shell)
    with machine.waiting_for_signs() as give_a_sign:
        machine.arm(idle_s=1)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            give_a_sign()
        assert "terminate" not in server.ways()
    server.wait_for("terminate")
    assert "no sign of life for 1 s" in (machine.state / "ending").read_text()


def test_the_clock_may_be_set_back(make: Callable[..., Machine], server: Termination, tmp_path: Path) -> None:
    """The seconds since it was armed count as well; here the clock stands still."""
    machine = make()
    (machine.tools / "date").unlink()
    (machine.tools / "date").write_text("#!/bin/sh\necho 1000\n")
    (machine.tools / "date").chmod(0o755)
    machine.arm(deadline=1001)
    server.wait_for("terminate")


def test_each_way_is_tried_until_one_is_accepted(
    make: Callable[..., Machine], server: Termination, each_shell: list[str]
) -> None:
    server.answers |= {"terminate": [500, 403, 204], "delete": [404, 502, 204], "graphql": [200]}
    server.graphql_errors = True
    machine = make(shell=each_shell)
    called = machine.state.parent / "runpodctl.called"
    (machine.tools / "runpodctl").write_text(f'#!/bin/sh\necho "$@" "$RUNPOD_API_KEY" >> {called}\nexit 1\n')
    (machine.tools / "runpodctl").chmod(0o755)
    machine.arm(deadline=0)
    server.wait_for("terminate", "delete", "graphql", "terminate", "delete", "graphql", "terminate")
    assert called.read_text().splitlines()[:2] == [f"remove pod {POD} {KEY}", f"pod delete {POD} {KEY}"]


@pytest.mark.parametrize("tool", ["curl", "python3", "wget"])
def test_the_key_is_in_nobodys_arguments(make: Callable[..., Machine], server: Termination, tool: str) -> None:
    """Each call is held open while all processes are looked at."""
    server.holds = {way: threading.Event() for way in ("start", "terminate", "delete", "graphql")}
    server.answers = {"start": [409], "terminate": [500], "delete": [500], "graphql": [500]}
    machine = make(tool)
    machine.arm(deadline=time.time() + 1)
    for way, held in server.holds.items():
        server.wait_for(way)
        assert any(tool.encode() in line for line in command_lines()), f"{tool} is not calling"
        assert not [line for line in command_lines() if KEY.encode() in line]
        held.set()
    assert {call.authorization for call in server.calls} == {f"Bearer {KEY}"}
    assert machine.said()["ways"] == [tool]


def test_another_tool_is_taken_where_one_does_not_work(make: Callable[..., Machine], server: Termination) -> None:
    machine = make("python3")
    (machine.tools / "curl").write_text("#!/bin/sh\nexit 127\n")
    (machine.tools / "curl").chmod(0o755)
    machine.arm(deadline=0)
    server.wait_for("terminate")


def test_a_tool_that_is_installed_later_is_used(make: Callable[..., Machine], server: Termination) -> None:
    machine = make("sh")
    machine.arm()
    assert "neither curl nor python3" in eventually(
        lambda: "neither" in (said := machine.said())["said"] and said["said"], what="the lack of a tool"
    )
    (machine.tools / "curl").symlink_to(shutil.which("curl") or "")
    assert machine.proof("allowed")["ways"] == ["curl"]


@pytest.mark.parametrize("tool", ["curl", "python3", "wget"])
def test_an_image_without_certificates_can_still_call(make: Callable[..., Machine], tmp_path: Path, tool: str) -> None:
    certificate = tmp_path / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    request += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(certificate), "-out", f"{certificate}.crt"]
    subprocess.run(request, check=True, capture_output=True)
    with certificate.open("a") as file:
        file.write(Path(f"{certificate}.crt").read_text())
    with termination(certificate) as server:
        machine = make(tool, at=server)
        machine.arm(deadline=time.time() + 1)
        assert "without verification" in machine.proof("allowed")["said"]
        server.wait_for("terminate")


def test_signals_do_not_disarm_it(make: Callable[..., Machine], server: Termination, each_shell: list[str]) -> None:
    machine = make(shell=each_shell)
    process = machine.arm(idle_s=2)
    machine.proof("allowed")
    for name in ("HUP", "INT", "QUIT", "TERM", "PIPE", "ALRM", "USR1", "USR2", "TSTP"):
        os.kill(process.pid, getattr(signal, f"SIG{name}"))
    server.wait_for("terminate")


def allow_processes(pid: int, count: int) -> None:
    """Set how many processes the user of a process may have; only that user may do so everywhere."""
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            resource.prlimit(pid, resource.RLIMIT_NPROC, (count, 1000))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone has another user to be")
def test_it_survives_a_machine_that_can_start_no_more_processes(
    server: Termination, each_shell: list[str], tmp_path: Path
) -> None:
    """A shell ends where it cannot fork; this one goes on where it was."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder, LEASE)
        state.mkdir()
        (state / "switch.sh").write_text(bootstrap.scripts()["switch.sh"])
        for path in (state, state.parent, state / "switch.sh"):
            os.chown(path, 65534, 65534)
        argv = [*each_shell, str(state / "switch.sh"), str(state), "pod", LEASE, str(int(time.time()) + 4), "1000"]
        env = {"PATH": os.environ["PATH"], "RUNPOD_POD_ID": POD, "RUNPOD_API_KEY": KEY, "RECIPE_TICK_S": str(TICK_S)}
        env |= {"RECIPE_API": server.api, "RECIPE_GRAPHQL": server.graphql}
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(argv, env=env, user=65534, group=65534, stdout=quiet, stderr=quiet, cwd="/")
        try:
            server.wait_for("start")
            allow_processes(process.pid, 0)
            time.sleep(1)
            assert process.poll() is None
            allow_processes(process.pid, 1000)
            server.wait_for("terminate")
        finally:
            process.kill()
            process.wait()


def test_nobody_needs_to_read_what_it_says(make: Callable[..., Machine], server: Termination) -> None:
    machine = make()
    reading, writing = os.pipe()
    os.close(reading)
    argv = [*machine.shell, str(machine.state / "switch.sh"), str(machine.state), "pod", LEASE, "0", "10"]
    env = {"PATH": str(machine.tools), "RUNPOD_POD_ID": POD, "RUNPOD_API_KEY": KEY, "RECIPE_TICK_S": str(TICK_S)}
    env |= {"RECIPE_API": server.api, "RECIPE_GRAPHQL": server.graphql}
    machine.started.append(subprocess.Popen(argv, env=env, stdout=writing, stderr=writing, start_new_session=True))
    os.close(writing)
    server.wait_for("terminate", "terminate")


def test_without_a_real_container_it_goes_with_its_start_command(make: Callable[..., Machine]) -> None:
    with subprocess.Popen(["sleep", "1000"]) as start_command:
        machine = make()
        process = machine.arm(start_command=start_command.pid)
        machine.proof("allowed")
        start_command.kill()
        assert process.wait(timeout=30) == 0


def test_an_older_switch_makes_way_for_a_newer_one(make: Callable[..., Machine]) -> None:
    machine = make()
    older = machine.arm()
    machine.proof("allowed")
    newer = machine.arm()
    assert older.wait(timeout=30) == 0
    assert newer.poll() is None


def test_a_pods_switch_cannot_be_told_to_go(make: Callable[..., Machine], server: Termination) -> None:
    """Who deletes a pod from outside may fail; only its end ends the switch."""
    machine = make()
    machine.arm(idle_s=1)
    (machine.state / "released").touch()
    server.wait_for("terminate")


def command_lines() -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return found

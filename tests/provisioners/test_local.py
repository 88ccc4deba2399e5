"""The local provisioner: one process group, ended whole, with proof."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from provisioners.contract import Clearance, Gone, Host, Lease, MayStillBill, Offer, Order, Site
from provisioners.guarded import gone_since
from provisioners.providers import local
from provisioners.providers.local import LocalProvisioner
from recipes.errors import HostCommandFailed, NoMachine
from recipes.spec import Resources
from tests.conftest import eventually

OFFER = Offer(provider="local", id="here")
STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
# Leaves the process group, as a daemon does.
ESCAPEE = "import os,time; os.setsid(); print('on', flush=True); time.sleep(600)"
# Starts a child without the environment by which the lease's processes are known.
RENAMED = (
    "import subprocess,sys,time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], env={}); "
    "print('on', flush=True); time.sleep(600)"
)
QUIET = "import time; print('on', flush=True); time.sleep(600)"


def leased(tmp_path: Path, use: Callable[[LocalProvisioner, Lease, Host], Awaitable[None]]) -> None:
    """Lease this machine, use it, and see that it is gone whatever happened."""

    async def main() -> None:
        provisioner = LocalProvisioner(Site(home=tmp_path / "home", cache=tmp_path / "cache"))
        lease = Lease(provider="local", name=f"recipe-test-{os.getpid()}-{time.monotonic_ns()}", run_id="test")
        lease = await provisioner.create(Order(offer=OFFER, lease=lease, resources=Resources()), Clearance(()))
        try:
            await use(provisioner, lease, await provisioner.host(lease))
        finally:
            assert isinstance(await provisioner.destroy(lease), Gone)

    asyncio.run(main())


async def start(host: Host, program: str) -> int:
    """Start a Python program and wait for its first word; returns its pid."""
    said = asyncio.Event()
    process = await host.start("job", [sys.executable, "-c", program], env={}, on_output=lambda _: said.set())
    await asyncio.wait_for(said.wait(), 60)
    return process.pid


def group_of(lease: Lease) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):  # others end while one looks
            if os.getpgid(process.pid) == int(lease.id or 0) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.mark.parametrize(
    "program", [QUIET, STUBBORN, ESCAPEE, RENAMED], ids=["quiet", "stubborn", "escapee", "renamed"]
)
def test_every_process_of_the_lease_is_ended(tmp_path: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "GRACE_S", 3.0)
    seen: list[psutil.Process] = []

    async def use(provisioner: LocalProvisioner, lease: Lease, host: Host) -> None:
        pid = await start(host, program)
        seen.extend([psutil.Process(pid), *psutil.Process(pid).children(recursive=True)])
        release = await provisioner.destroy(lease)
        assert isinstance(release, Gone)
        assert f"group {lease.id} is empty" in release.proof
        assert group_of(lease) == []

    leased(tmp_path, use)
    assert seen
    assert not any(map(local._lives, seen))


def test_letting_go_twice_is_the_same_as_once(tmp_path: Path) -> None:
    async def use(provisioner: LocalProvisioner, lease: Lease, host: Host) -> None:
        assert isinstance(await provisioner.destroy(lease), Gone)
        assert isinstance(await provisioner.destroy(lease), Gone)
        assert not host.work_dir.exists()

    leased(tmp_path, use)


def test_another_process_can_let_go_with_nothing_but_the_lease(tmp_path: Path) -> None:
    async def use(provisioner: LocalProvisioner, lease: Lease, host: Host) -> None:
        job = psutil.Process(await start(host, QUIET))
        other = LocalProvisioner(Site(home=tmp_path / "home", cache=tmp_path / "cache"))
        assert isinstance(await other.destroy(lease), Gone)
        assert not local._lives(job)

    leased(tmp_path, use)


def test_a_strangers_process_group_of_the_same_number_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", QUIET], process_group=0, stdout=subprocess.DEVNULL)
    try:
        provisioner = LocalProvisioner(Site(home=tmp_path / "home", cache=tmp_path / "cache"))
        lease = Lease(provider="local", name="recipe-long-gone", run_id="x", id=str(stranger.pid))
        assert isinstance(asyncio.run(provisioner.destroy(lease)), Gone)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_strangers_group_whose_leader_has_gone_is_left_alone(tmp_path: Path) -> None:
    leader = (
        "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"
    )
    started = subprocess.Popen([sys.executable, "-c", leader], process_group=0, stdout=subprocess.PIPE)
    assert started.stdout is not None
    orphan = psutil.Process(int(started.stdout.readline()))
    started.wait()
    try:
        lease = Lease(provider="local", name="recipe-long-gone", run_id="x", id=str(started.pid))
        provisioner = LocalProvisioner(Site(home=tmp_path, cache=tmp_path))
        assert isinstance(asyncio.run(provisioner.destroy(lease)), Gone)
        assert orphan.is_running()
    finally:
        orphan.kill()


def test_a_port_that_stays_taken_is_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as squatter:

        async def use(provisioner: LocalProvisioner, lease: Lease, host: Host) -> None:
            squatter.bind(("127.0.0.1", await host.free_port()))
            squatter.listen()
            monkeypatch.setattr(local, "_PORT_PATIENCE_S", 0.2)
            for _ in range(2):
                release = await provisioner.destroy(lease)
                assert isinstance(release, MayStillBill)
                assert "port" in release.reason
                assert release.command
            squatter.close()

        leased(tmp_path, use)


def test_the_guard_ends_the_group_when_its_client_is_killed(tmp_path: Path) -> None:
    client = (
        "import asyncio, sys; from pathlib import Path; from recipes.spec import Resources\n"
        "from provisioners.contract import *\n"
        "from provisioners.providers.local import LocalProvisioner\n"
        "async def main():\n"
        f"    p = LocalProvisioner(Site(home=Path({str(tmp_path)!r}), cache=Path({str(tmp_path)!r})))\n"
        "    lease = Lease(provider='local', name='recipe-orphan', run_id='x')\n"
        "    offer = Offer(provider='local', id='here')\n"
        "    lease = await p.create(Order(offer=offer, lease=lease, resources=Resources()), Clearance(()))\n"
        "    host = await p.host(lease)\n"
        f"    await host.start('job', [sys.executable, '-c', {QUIET!r}], env={{}}, on_output=print)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-u", "-c", client], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 2
    (leader,) = [child for child in children if os.getpgid(child.pid) == child.pid]
    work_dir = tmp_path / "work" / "recipe-orphan"
    details = {"work_dir": str(work_dir)}
    lease = Lease(provider="local", name="recipe-orphan", run_id="x", id=str(leader.pid), details=details)
    assert gone_since(lease) is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = time.time()
    eventually(lambda: not any(map(local._lives, children)), what="the end of the group")
    noted = gone_since(lease)
    assert noted is not None
    assert killed_at - 1 < noted.timestamp() <= time.time()
    release = asyncio.run(LocalProvisioner(Site(home=tmp_path, cache=tmp_path)).destroy(lease))
    assert isinstance(release, Gone)
    assert release.at == noted, "what came later was not billed"


def test_output_comes_whole_and_the_exit_status_with_it(tmp_path: Path) -> None:
    async def use(_: LocalProvisioner, __: Lease, host: Host) -> None:
        heard: list[bytes] = []
        program = "import sys; sys.stdout.write('x' * 300_000); sys.stderr.write('end'); sys.exit(7)"
        process = await host.start("job", [sys.executable, "-c", program], env={"A": "1"}, on_output=heard.append)
        assert await process.wait() == 7
        assert await process.wait() == 7
        assert len(b"".join(heard)) == 300_003

    leased(tmp_path, use)


def test_the_end_of_a_process_is_seen_while_its_child_holds_the_pipe(tmp_path: Path) -> None:
    program = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"

    async def use(_: LocalProvisioner, __: Lease, host: Host) -> None:
        process = await host.start("job", [sys.executable, "-c", program], env={}, on_output=lambda _: None)
        assert await asyncio.wait_for(process.wait(), 60) == 0

    leased(tmp_path, use)


def test_a_listener_that_fails_blocks_nobody_and_is_heard_of(tmp_path: Path) -> None:
    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    async def use(_: LocalProvisioner, __: Lease, host: Host) -> None:
        program = "import sys; sys.stdout.write('x' * 1_000_000)"
        process = await host.start("job", [sys.executable, "-c", program], env={}, on_output=full)
        with pytest.raises(OSError, match="No space left"):
            await asyncio.wait_for(process.wait(), 60)

    leased(tmp_path, use)


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def use(_: LocalProvisioner, __: Lease, host: Host) -> None:
        with pytest.raises(HostCommandFailed, match="no-such-command"):
            await host.start("job", ["no-such-command"], env={}, on_output=lambda _: None)

    leased(tmp_path, use)


def test_files_go_there_and_come_back(tmp_path: Path) -> None:
    async def use(_: LocalProvisioner, __: Lease, host: Host) -> None:
        await host.write("a/b.txt", "hello")
        (found,) = await host.fetch("**/*.txt", tmp_path / "back")
        assert found == tmp_path / "back/a/b.txt"
        assert found.read_text() == "hello"
        assert await host.fetch("*.none", tmp_path / "back") == []

    leased(tmp_path, use)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"accelerators": "A100-80GB:2"}, "no A100-80GB:2"),
        ({"cpus": "4096+"}, "asks for 4096"),
        ({"memory": "500TB"}, "asks for 500TB"),
        ({"disk_size": "900TB"}, "asks for 900TB"),
    ],
)
def test_what_this_machine_lacks_is_said(
    tmp_path: Path, resources: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "accelerators_here", lambda: ([], None))
    provisioner = LocalProvisioner(Site(home=tmp_path, cache=tmp_path))
    with pytest.raises(NoMachine, match=words):
        asyncio.run(provisioner.offers(Resources.model_validate(resources)))


def test_gpus_are_recognised_by_the_names_that_the_driver_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = ["NVIDIA A100 80GB PCIe, 81920, 550.54.14, 40960", "NVIDIA A40, 46068, 550.54.14, 45000"]
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\n" + "".join(f"echo {row}\n" for row in listing))
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    provisioner = LocalProvisioner(Site(home=tmp_path, cache=tmp_path))
    (offer,) = asyncio.run(provisioner.offers(Resources.model_validate({"accelerators": "A100-80GB:1"})))
    assert (offer.accelerator, offer.count, offer.memory_gib, offer.cuda) == ("A100-80GB", 1, 80.0, "12.4")
    assert offer.free_gib == 40.0


def test_an_accelerator_whose_memory_the_driver_does_not_say_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA GB10, [N/A], 580.95.05'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    provisioner = LocalProvisioner(Site(home=tmp_path, cache=tmp_path))
    (offer,) = asyncio.run(provisioner.offers(Resources.model_validate({"accelerators": "GB10:1"})))
    assert (offer.accelerator, offer.cuda) == ("GB10", "13.0")


def test_a_model_that_the_hubs_library_keeps_is_seen(tmp_path: Path) -> None:
    here = LocalProvisioner(Site(home=tmp_path, cache=tmp_path, env={"HF_HOME": str(tmp_path)}))
    folder = tmp_path / "hub" / "models--owner--name"
    assert here.stored("owner/name", "c0ffee") is False
    (folder / "snapshots" / "c0ffee").mkdir(parents=True)
    assert here.stored("owner/name", "c0ffee") is True
    (folder / "blobs").mkdir()
    (folder / "blobs" / "abc.incomplete").touch()
    assert here.stored("owner/name", "c0ffee") is False, "a download is under way"

"""SSH hosts: taken by one run at a time, and left as they were found, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provisioners.acquire import Acquisition
from provisioners.contract import Boot, BootJob, Clearance, Gone, Host, Lease, MayStillBill
from provisioners.files import write_whole
from provisioners.journal import Journal
from provisioners.providers.ssh import intent, taking
from provisioners.providers.ssh.contact import Contact
from provisioners.providers.ssh.places import places_of
from provisioners.shell.connection import HostKeyChanged
from recipes.errors import NoCapacity, NoMachine
from tests.conftest import eventually
from tests.emulators.sshd import Wire, wire
from tests.provisioners.ssh_hosts import (
    SLEEPER,
    Client,
    Machine,
    client,
    machine,
    marked,
    process_alive,
    start,
    switch_of,
)

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
# Leaves its group and its session, and forgets under which mark it was started.
ESCAPEE = (
    "import os, sys, time\n"
    "if os.fork(): time.sleep(600)\n"
    "os.setsid()\n"
    "os.execve(sys.executable, [sys.executable, '-c', 'import time; print(\"on\", flush=True); time.sleep(600)'], {})"
)
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"


@pytest.fixture
def gpu1(tmp_path: Path) -> Iterator[Machine]:
    with machine(tmp_path / "gpu1") as running:
        yield running
        eventually(running.is_as_found, what="the host to be as it was found")


@pytest.fixture
def gpu2(tmp_path: Path, gpu1: Machine) -> Iterator[Machine]:
    """Another host, which lets the first one's key in as well."""
    with machine(tmp_path / "gpu2", key=public_key(gpu1)) as running:
        yield running
        eventually(running.is_as_found, what="the host to be as it was found")


@pytest.fixture
def ana(tmp_path: Path, gpu1: Machine) -> Client:
    return client(tmp_path / "ana", gpu1, price_per_hour=1.2)


def public_key(of: Machine) -> str:
    return of.sshd.key.with_name("client_key.pub").read_text()


@asynccontextmanager
async def held(user: Client, lease: Lease) -> AsyncIterator[Host]:
    """The lease's host; afterwards only the client has gone."""
    host = await user.provisioner.host(lease)
    try:
        yield host
    finally:
        await host.close()


async def gone(user: Client, lease: Lease, **how: Any) -> str:
    """Let it go; returns the proof."""
    release = await user.provisioner.destroy(lease, **how)
    assert isinstance(release, Gone), release
    return release.proof


def test_a_host_is_taken_used_and_left_as_it_was(ana: Client, gpu1: Machine, tmp_path: Path) -> None:
    echo = "import os; print(open('greeting.json').read(), os.environ['WORD'], flush=True)"
    boot = Boot(
        files={"greeting.json": '"{work}"'},
        jobs=(BootJob(name="ahead", argv=("{python}", "-c", echo)),),
        env={"WORD": "a-secret-word"},
    )

    async def main() -> None:
        lease = await ana.take(boot=boot)
        assert (lease.id, lease.price_usd_per_h) == (gpu1.address, 1.2)
        assert lease.details["offer"] == gpu1.address
        (warning,) = lease.details["warnings"]
        assert "first contact" in warning
        assert "ssh-ed25519 SHA256:" in warning
        assert gpu1.states == [lease.name]
        assert not gpu1.is_free
        assert (await ana.provisioner.observe(lease)).state == "running"
        ana.again()
        async with held(ana, lease) as host:
            heard: list[bytes] = []
            ahead = await host.start("ahead", ["none"], env={}, on_output=heard.append)
            assert await ahead.wait() == 0
            assert b"".join(heard).decode().split() == [f'"{host.work_dir}"', "a-secret-word"]
            assert host.notes == ()
            port = await host.free_port()
            job = await start(host, SLEEPER)
            key = host.key
        async with held(ana, lease) as again:
            assert again.key == key
        assert process_alive(job.pid)
        holding = [
            path for path in gpu1.sshd.home.rglob("*") if path.is_file() and b"a-secret-word" in path.read_bytes()
        ]
        assert [path.name for path in holding] == ["log"]  # what the job itself has printed
        proof = await gone(ana, lease)
        assert f"port {port} is free" in proof
        assert "lock is free" in proof
        assert not process_alive(job.pid)
        assert (await ana.provisioner.observe(lease)).state == "gone"
        assert gpu1.is_as_found()
        assert not (ana.home / "leases" / lease.name).exists()
        assert gpu1.sshd.process is not None

    asyncio.run(main())


@pytest.mark.parametrize("program", [ESCAPEE, STUBBORN], ids=["one that escapes", "one that will not"])
def test_every_process_is_ended(ana: Client, program: str) -> None:
    async def main() -> None:
        lease = await ana.take()
        async with held(ana, lease) as host:
            job = await start(host, program)
        assert await gone(ana, lease)
        assert marked(lease) == []
        assert not process_alive(job.pid)

    asyncio.run(main())


def test_a_host_is_one_run_s_at_a_time(ana: Client, gpu1: Machine, tmp_path: Path) -> None:
    """Also where the other is another user of the machine."""

    async def main() -> None:
        with machine(tmp_path / "door2", lock=gpu1.lock) as same_machine:
            ben = client(tmp_path / "ben", same_machine)
            offer = await ben.offer()
            lease = await ana.take()
            for other, how in ((ana, await ana.offer()), (ben, offer)):
                order = other.order(how)
                with pytest.raises(NoCapacity, match=f"is taken by run .* since .*, of its user {gpu1.sshd.user}"):
                    await other.provisioner.create(order, Clearance(()))
                assert not (other.home / "leases" / order.lease.name).exists()
            assert (await ben.offer()).stock == "taken"
            assert gpu1.states == [lease.name]
            assert same_machine.states == []
            await gone(ana, lease)
            assert (await ben.offer()).stock == "free"
            his = await ben.take()
            await gone(ben, his)
            assert "the host is now taken by" not in await gone(ana, lease)

    asyncio.run(main())


def test_of_two_hosts_that_which_is_free_is_taken(gpu1: Machine, gpu2: Machine, tmp_path: Path) -> None:
    async def main() -> None:
        ana, ben = client(tmp_path / "ana", gpu1, gpu2), client(tmp_path / "ben", gpu1, gpu2)
        offers = await ana.provisioner.offers(ana.resources)
        assert [offer.id for offer in offers] == [gpu1.address, gpu2.address]
        his = await ben.take()
        (ana.home).mkdir(exist_ok=True)
        acquisition = Acquisition(ana.provisioner, Journal(ana.home / "ledger.db"))
        ordered = ana.order(offers[0])
        lease = await acquisition.get(offers, lambda offer: replace(ordered, offer=offer), Clearance(()))
        assert (his.id, lease.id) == (gpu1.address, gpu2.address)
        assert [o.id for o in await ana.provisioner.offers(ana.resources)] == [gpu1.address, gpu2.address]
        await gone(ana, lease)
        await gone(ben, his)

    asyncio.run(main())


def test_a_host_that_went_away_after_the_plan_is_passed_over(gpu1: Machine, gpu2: Machine, tmp_path: Path) -> None:
    async def main() -> None:
        ana = client(tmp_path / "ana", gpu1, gpu2)
        first, second = await ana.provisioner.offers(ana.resources)
        gpu1.sshd.stop()
        with pytest.raises(NoCapacity, match="connection refused"):
            await ana.provisioner.create(ana.order(first), Clearance(()))
        assert list((ana.home / "leases").iterdir()) == []
        lease = await ana.provisioner.create(ana.order(second), Clearance(()))
        await gone(ana, lease)

    asyncio.run(main())


def test_through_a_jump_host(gpu1: Machine, gpu2: Machine, tmp_path: Path) -> None:
    async def main() -> None:
        ana = client(tmp_path / "ana", gpu2, key=gpu1.sshd.key, jump_host=gpu1.address)
        lease = await ana.take()
        contacts = [warning for warning in lease.details["warnings"] if "first contact" in warning]
        assert [str(where.sshd.port) in told for where, told in zip((gpu1, gpu2), contacts, strict=True)] == [True] * 2
        ana.again()
        async with held(ana, lease) as host:
            await start(host, SLEEPER)
        login = ana.provisioner.login(lease)
        assert login is not None
        said = subprocess.run([*login, "cat", f"{lease.details['state']}/host.json"], capture_output=True, text=True)
        assert lease.name in said.stdout, said.stderr
        gpu1.sshd.stop()
        assert isinstance(await ana.provisioner.destroy(lease, patience_s=1), MayStillBill)
        gpu1.sshd.start()
        await gone(ana, lease)

    asyncio.run(main())


def test_after_a_change_of_the_host_key_nothing_is_said_to_it(ana: Client, gpu1: Machine) -> None:
    async def main() -> None:
        offer, lease = await ana.offer(), await ana.take()
        key = (gpu1.sshd.folder / "host_key").read_bytes()
        gpu1.sshd.stop()
        gpu1.sshd.new_host_key()
        gpu1.sshd.start()
        with pytest.raises(HostKeyChanged):
            await ana.provisioner.create(ana.order(offer), Clearance(()))
        with pytest.raises(HostKeyChanged):
            await ana.provisioner.host(lease)
        release = await ana.provisioner.destroy(lease)
        assert isinstance(release, MayStillBill)
        assert "another host key" in release.reason
        gpu1.sshd.stop()
        (gpu1.sshd.folder / "host_key").write_bytes(key)
        gpu1.sshd.start()
        await gone(ana, lease)

    asyncio.run(main())


def test_without_an_answer_nothing_is_said_to_be_gone(ana: Client, gpu1: Machine) -> None:
    async def main() -> None:
        lease = await ana.take()
        async with held(ana, lease) as host:
            job = await start(host, SLEEPER)
        gpu1.sshd.freeze()
        release = await ana.provisioner.destroy(lease, patience_s=1)
        assert isinstance(release, MayStillBill)
        assert "its own switch ends it at" in release.reason
        assert (await ana.provisioner.observe(lease)).state == "unknown"
        gpu1.sshd.thaw()
        assert process_alive(job.pid)
        # The command that it names does what it says.
        ended = subprocess.run(
            release.command.replace("ssh ", "ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null ", 1),
            shell=True,
            capture_output=True,
            text=True,
        )
        assert '"removed": true' in ended.stdout, ended.stderr
        assert not process_alive(job.pid)
        assert "its own switch had ended it, or somebody let it go" in await gone(ana, lease)

    asyncio.run(main())


def test_to_let_go_twice_is_to_let_go(ana: Client) -> None:
    async def main() -> None:
        lease = await ana.take()
        releases = await asyncio.gather(*(ana.provisioner.destroy(lease) for _ in range(2)))
        assert all(isinstance(release, Gone) for release in releases), releases
        await gone(ana, lease)

    asyncio.run(main())


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """A file that says what time it is at the host late; without it, its clock is right."""
    return tmp_path / "clock"


@pytest.fixture
def late(tmp_path: Path, clock: Path) -> Iterator[Machine]:
    """A host on which the time can be set."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "date").write_text(f'#!/bin/sh\ncat {clock} 2>/dev/null || exec {shutil.which("date")} "$@"\n')
    (tools / "date").chmod(0o755)
    with machine(tmp_path / "late", PATH=f"{tools}:{os.environ['PATH']}") as running:
        yield running


def test_at_its_deadline_it_ends_by_itself(late: Machine, clock: Path, tmp_path: Path) -> None:
    ana = client(tmp_path / "ana", late)

    async def main() -> None:
        lease = await ana.take()
        assert lease.deadline is not None
        async with held(ana, lease) as host:
            job = await start(host, SLEEPER)
            armed = json.loads((late.sshd.home / ".recipe" / lease.name / "switch.json").read_text())
            # The host counts from when it was asked, which may be a moment later than here.
            assert 0 <= armed["deadline"] - lease.deadline.timestamp() + 1 < 60
            write_whole(clock, f"{armed['deadline']}\n")
            await asyncio.to_thread(eventually, late.is_as_found)
        assert not process_alive(job.pid)
        assert (await ana.provisioner.observe(lease)).state == "gone"
        with pytest.raises(NoMachine, match="its own switch ended it"):
            await ana.provisioner.host(lease)
        assert "its own switch had ended it" in await gone(ana, lease)

    asyncio.run(main())


KILLED = """
import asyncio, sys
from pathlib import Path
from recipes.spec import Resources
from tests.provisioners.ssh_hosts import SLEEPER, Client, start

async def main():
    user = Client(Path(sys.argv[1]), Resources.model_validate_json(sys.argv[2]))
    order = user.order(await user.offer(), idle_s=float(sys.argv[3]))
    print(order.lease.name, flush=True)
    from provisioners.contract import Clearance
    lease = await user.provisioner.create(order, Clearance(()))
    host = await user.provisioner.host(lease)
    job = await start(host, SLEEPER)
    print(job.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def other_client(user: Client, idle_s: float) -> tuple[subprocess.Popen[str], str]:
    """A client in a process of its own that takes the host; returns it with the lease's name, before it asks."""
    argv = [
        sys.executable,
        "-c",
        KILLED,
        str(user.home),
        user.resources.model_dump_json(exclude_none=True),
        str(idle_s),
    ]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_without_its_client_a_host_frees_itself(ana: Client, gpu1: Machine) -> None:
    process, name = other_client(ana, idle_s=5)
    assert process.stdout is not None
    job = int(process.stdout.readline())
    time.sleep(7)  # with its client it stays, for longer than it may be idle
    assert process_alive(job)
    process.send_signal(signal.SIGKILL)
    process.wait()
    eventually(gpu1.is_as_found, what="the switch to end the lease")
    assert not process_alive(job)
    lease = Lease(provider="ssh", name=name, run_id="test")
    assert "no process carries its mark" in asyncio.run(gone(ana, lease))


@pytest.mark.parametrize("moment", range(4))
def test_a_client_that_is_killed_while_it_takes_a_host_leaves_nothing(ana: Client, gpu1: Machine, moment: int) -> None:
    process, name = other_client(ana, idle_s=600)
    time.sleep(random.Random(moment).uniform(0, 0.6))
    process.send_signal(signal.SIGKILL)
    process.wait()
    lease = Lease(provider="ssh", name=name, run_id="test")
    asyncio.run(gone(ana, lease))
    assert gpu1.is_as_found()
    assert switch_of(lease) == []


def test_an_interrupted_client_leaves_nothing(ana: Client, gpu1: Machine) -> None:
    async def main() -> None:
        offer = await ana.offer()
        for moment in (0.0, 0.05, 0.15, 0.25, 0.35):
            order = ana.order(offer)
            creating = asyncio.ensure_future(ana.provisioner.create(order, Clearance(())))
            await asyncio.wait({creating}, timeout=moment)
            creating.cancel()
            await asyncio.wait({creating})
            await gone(ana, order.lease)
            assert gpu1.is_as_found()

    asyncio.run(main())


@pytest.fixture
def line(gpu1: Machine) -> Iterator[Wire]:
    """What lies between ben and the host."""
    with wire(gpu1.sshd.port) as carried:
        yield carried


@pytest.fixture
def ben(tmp_path: Path, gpu1: Machine, line: Wire) -> Client:
    return client(tmp_path / "ben", gpu1, hosts=[f"{gpu1.sshd.user}@127.0.0.1:{line.port}"])


async def bytes_to_take(user: Client, line: Wire) -> int:
    offer, before = await user.offer(), line.carried
    lease = await user.provisioner.create(user.order(offer), Clearance(()))
    carried = line.carried - before
    await gone(user, lease)
    return carried


@pytest.mark.parametrize("share", [0.7, 0.9, 0.98])
def test_a_cut_while_the_host_is_taken_is_healed(ben: Client, gpu1: Machine, line: Wire, share: float) -> None:
    async def main() -> None:
        offer, whole = await ben.offer(), await bytes_to_take(ben, line)
        line.cut_after(int(whole * share))
        lease = await ben.provisioner.create(ben.order(offer), Clearance(()))
        assert gpu1.states == [lease.name]
        await gone(ben, lease)

    asyncio.run(main())


def test_a_cut_before_anything_was_asked_for_is_no_lease(ben: Client, gpu1: Machine, line: Wire) -> None:
    async def main() -> None:
        offer, whole = await ben.offer(), await bytes_to_take(ben, line)
        line.cut_after(whole // 4)
        with pytest.raises(NoCapacity, match="connection"):
            await ben.provisioner.create(ben.order(offer), Clearance(()))
        assert gpu1.is_as_found()

    asyncio.run(main())


def test_a_lease_of_which_nobody_knows_whether_it_began_is_kept_track_of(
    ana: Client, gpu1: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "_VALID_S", 4.0)
    monkeypatch.setattr(taking, "_INSIST_S", 4.0)

    async def main() -> None:
        offer = await ana.offer()
        order = ana.order(offer)
        creating = asyncio.ensure_future(ana.provisioner.create(order, Clearance(())))
        while not (ana.home / "leases" / order.lease.name / "host.json").exists():
            await asyncio.sleep(0.001)
        gpu1.sshd.stop()
        lease = await creating
        assert lease.id == gpu1.address
        assert any("contact was lost" in warning for warning in lease.details["warnings"])
        assert isinstance(await ana.provisioner.destroy(lease, patience_s=1), MayStillBill)
        gpu1.sshd.start()
        await gone(ana, lease)

    asyncio.run(main())


def test_a_request_that_arrives_too_late_takes_nothing(ana: Client, gpu1: Machine) -> None:
    async def main() -> None:
        order = ana.order(await ana.offer())
        contact = Contact.to(places_of(ana.home, ana.resources)[0])
        try:
            answer = await contact.ask(
                "take", order.lease.name, timeout_s=20, until=1.0, lasts_s=60, idle_s=60, volume=None, boot=None
            )
        finally:
            await contact.close()
        assert answer == {"late": True}
        assert gpu1.is_as_found()

    asyncio.run(main())


def test_a_request_that_is_still_going_on_is_ended(ana: Client, gpu1: Machine, tmp_path: Path) -> None:
    async def main() -> None:
        offer, lease = await ana.offer(), await ana.take()
        order = ana.order(offer)
        # It waits for a moment whether the host becomes free.
        creating = asyncio.ensure_future(ana.provisioner.create(order, Clearance(())))
        await asyncio.to_thread(eventually, lambda: order.lease.name in gpu1.states or creating.done())
        await gone(ana, lease)
        await gone(ana, order.lease)
        # Either it was ended, or it came before its end was asked for.
        with suppress(NoCapacity):
            await creating
        await gone(ana, order.lease)
        assert gpu1.is_as_found()

    asyncio.run(main())


def test_what_never_began_is_gone(ana: Client) -> None:
    async def main() -> None:
        order = ana.order(await ana.offer())
        assert await gone(ana, order.lease) == "no host was ever asked for it"
        assert (await ana.provisioner.observe(order.lease)).state == "gone"
        assert intent.read(ana.home, order.lease.name) is None
        assert ana.provisioner.command_to_end(order.lease) == "recipe reap --yes"
        assert await ana.provisioner.owned("ana") == []

    asyncio.run(main())


def test_a_switch_that_was_killed_is_seen_and_the_lease_is_let_go_all_the_same(ana: Client) -> None:
    async def main() -> None:
        lease = await ana.take()
        async with held(ana, lease) as host:
            job = await start(host, SLEEPER)
        for pid in switch_of(lease):
            with suppress(ProcessLookupError):  # a fork of it that has become another program and ended
                os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(eventually, lambda: not switch_of(lease))
        assert (await ana.provisioner.observe(lease)).state == "failed"
        await gone(ana, lease)
        assert not process_alive(job.pid)

    asyncio.run(main())

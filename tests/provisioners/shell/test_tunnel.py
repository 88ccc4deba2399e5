"""Tunnels of both kinds, under load, after cuts, and when their client is killed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from provisioners.shell.connection import HostKeyChanged, Lost, NotAdmitted, Shell, Target
from provisioners.shell.tunnel import BOTH, Kind, Tunnel, open_tunnel
from tests.conftest import eventually
from tests.emulators.sshd import Sshd, key_pair, running_sshd
from tests.provisioners.shell.streams import answer, ask, ask_until_it_answers, tunnel, using

pytestmark = pytest.mark.real
STREAMS, LINES = 64, 20
both_kinds = pytest.mark.parametrize("kind", BOTH)


def members(opened: Tunnel) -> list[psutil.Process]:
    """The processes that hold a tunnel."""
    return [psutil.Process(opened.pid), *psutil.Process(opened.pid).children(recursive=True)]


def holder(opened: Tunnel) -> psutil.Process:
    """The one that carries the bytes."""
    return next(one for one in members(opened) if one.cmdline()[:1] in (["ssh"], [sys.executable]))


@both_kinds
def test_carries_64_streams_at_once(target: Target, kind: Kind) -> None:
    async def work(port: int) -> None:
        async with tunnel(target, port, kinds=[kind]) as opened:
            assert opened.kind == kind
            assert opened.address.startswith("127.0.0.1:")
            for _ in range(2):
                counts = await asyncio.gather(*[ask(opened.address, LINES) for _ in range(STREAMS)])
                assert counts == [LINES] * STREAMS

    using(work)


@both_kinds
def test_what_is_large_arrives_whole_both_ways(target: Target, kind: Kind) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
        writer.write_eof()
        writer.close()

    async def work(_: int) -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with tunnel(target, server.sockets[0].getsockname()[1], kinds=[kind]) as opened:
            host, port = opened.address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            content = os.urandom(8 << 20)

            async def send() -> None:
                writer.write(content)
                await writer.drain()
                writer.write_eof()

            _, back = await asyncio.gather(send(), reader.read(-1))
            assert back == content
        server.close()

    using(work)


@both_kinds
def test_a_port_on_which_nobody_listens_yet(target: Target, kind: Kind) -> None:
    async def work(port: int) -> None:
        ours = socket.socket()  # held until somebody listens: no other gets this port
        ours.bind(("127.0.0.1", 0))
        async with tunnel(target, ours.getsockname()[1], kinds=[kind]) as opened:
            with pytest.raises((OSError, AssertionError)):
                await ask(opened.address)
            late = await asyncio.start_server(answer, sock=ours)
            await ask(opened.address)
            late.close()
            assert opened.restarts == 0

    using(work)


@both_kinds
def test_heals_after_its_process_was_killed(target: Target, kind: Kind) -> None:
    async def work(port: int) -> None:
        async with tunnel(target, port, kinds=[kind]) as opened:
            for times in (1, 2):
                holder(opened).kill()
                await ask_until_it_answers(opened.address)
                assert opened.restarts == times

    using(work)


@both_kinds
def test_heals_after_its_session_was_killed_there(server: Sshd, target: Target, kind: Kind) -> None:
    async def work(port: int) -> None:
        async with tunnel(target, port, kinds=[kind]) as opened:
            address = opened.address
            assert server.kill_sessions()
            await ask_until_it_answers(address)

    using(work)


@both_kinds
def test_goes_on_trying_while_the_machine_is_away(server: Sshd, target: Target, kind: Kind) -> None:
    async def work(port: int) -> None:
        async with tunnel(target, port, kinds=[kind]) as opened:
            server.stop()
            while holder_or_none(opened) is not None:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            server.start()
            await ask_until_it_answers(opened.address)

    using(work)


def test_a_stuck_ssh_is_replaced(target: Target) -> None:
    async def work(port: int) -> None:
        async with tunnel(target, port, kinds=["ssh -L"], check_s=0.5) as opened:
            holder(opened).suspend()
            while opened.restarts == 0:
                await asyncio.sleep(0.05)
            await ask_until_it_answers(opened.address)

    using(work)


def test_a_frozen_machine_is_noticed_by_the_forwarder(server: Sshd, target: Target) -> None:
    async def work(port: int) -> None:
        async with tunnel(target, port, kinds=["forwarder"], silence_s=1) as opened:
            pid = opened.pid
            server.freeze()
            while psutil.pid_exists(pid):
                await asyncio.sleep(0.05)
            server.thaw()
            await ask_until_it_answers(opened.address)

    using(work)


@both_kinds
def test_nothing_is_left_when_it_is_closed(target: Target, kind: Kind) -> None:
    async def work(port: int) -> None:
        opened = await open_tunnel(target, port, kinds=[kind])
        held = members(opened)
        folder = Path(next(word for word in held[0].cmdline() if "/tunnel-" in word))
        assert folder.is_dir()
        await opened.close()
        assert psutil.wait_procs(held, timeout=60)[1] == []
        assert not folder.exists()
        with pytest.raises(OSError, match=r"refused|failed"):
            await ask(opened.address)

    using(work)


CLIENT = """
import asyncio, json, signal, sys
from pathlib import Path
from provisioners.shell.connection import Target
from provisioners.shell.tunnel import open_tunnel

async def main():
    given = json.loads(sys.argv[1])
    given |= {name: Path(given[name]) for name in ("known_hosts", "key")}
    opened = await open_tunnel(Target(**given), int(sys.argv[2]), kinds=[sys.argv[3]])
    print(opened.pid, flush=True)
    await asyncio.Event().wait()

# As in a terminal, also where the tests run in the background and SIGINT is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
asyncio.run(main())
"""


@both_kinds
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_the_client_is_killed(
    target: Target, kind: Kind, number: signal.Signals, wait_until: Callable[..., Any]
) -> None:
    order = json.dumps(asdict(target), default=str)
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, order, "9", kind], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert client.stdout is not None
    group = int(client.stdout.readline())
    held = [psutil.Process(group), *psutil.Process(group).children(recursive=True)]
    assert len(held) >= 2
    client.send_signal(number)
    client.wait(timeout=30)
    wait_until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in held))


def test_an_interrupt_at_the_terminal_is_not_for_it(target: Target) -> None:
    async def work(port: int) -> None:
        async with tunnel(target, port) as opened:
            assert os.getpgid(opened.pid) == opened.pid != os.getpgid(0)

    using(work)


def test_through_a_jump_host(server: Sshd, target: Target, tmp_path: Path) -> None:
    with running_sshd(tmp_path / "it's a gate") as gate:
        gate.authorize(server.key.with_name("client_key.pub").read_text())
        jumping = replace(target, jump=f"{gate.user}@127.0.0.1:{gate.port}")

        async def work(port: int) -> None:
            for kind in BOTH:
                async with tunnel(jumping, port, kinds=[kind]) as opened:
                    await ask(opened.address, 3)
                    assert gate.kill_sessions()
                    await ask_until_it_answers(opened.address)

        using(work)


def test_nothing_of_the_users_configuration_gets_in_the_way(
    server: Sshd, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs is wanted where no key is given, but not what it makes of a login."""
    home = tmp_path / "me" / ".ssh"
    home.mkdir(parents=True)
    settings = ("RemoteCommand tmux", "RequestTTY yes", "ControlMaster auto", f"ControlPath {home}/c", "SendEnv *")
    (home / "config").write_text("Host *\n" + "".join(f"  {line}\n" for line in settings))
    # ssh takes the home of the user database; only what is asked of it is changed by HOME.
    argv = [f"-F{home}/config", f"-i{server.key}"]
    real = shutil.which("ssh")
    (tmp_path / "bin").mkdir()
    checked, theirs = tmp_path / "checked", f'{real} {" ".join(argv)} "$@"'
    noted = f"case \" $* \" in *' check '*) {theirs}; s=$?; echo $s >> {checked}; exit $s ;; esac"
    (tmp_path / "bin" / "ssh").write_text(f"#!/bin/sh\n{noted}\nexec {theirs}\n")
    (tmp_path / "bin" / "ssh").chmod(0o755)
    pin(target)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    async def work(port: int) -> None:
        async with tunnel(replace(target, key=None), port, kinds=["ssh -L"], check_s=3) as opened:
            await ask(opened.address, 50)
            await asyncio.to_thread(eventually, lambda: checked.exists() and checked.read_text(), what="a check")
            assert set(checked.read_text().split()) == {"0"}
            await ask(opened.address)
            assert opened.restarts == 0

    using(work)


class TestWhichKind:
    def test_ssh_if_there_is_one(self, target: Target) -> None:
        async def work(port: int) -> None:
            async with tunnel(target, port) as opened:
                assert opened.kind == "ssh -L"

        using(work)

    def test_the_forwarder_without_ssh(self, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "bin").mkdir()
        rm = shutil.which("rm")
        assert rm is not None
        (tmp_path / "bin" / "rm").symlink_to(rm)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))

        async def work(port: int) -> None:
            async with tunnel(target, port) as opened:
                assert opened.kind == "forwarder"
                await ask(opened.address)

        using(work)

    def test_the_forwarder_if_ssh_does_not_work(
        self, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "ssh").write_text("#!/bin/sh\necho bad option >&2\nexit 255\n")
        (tmp_path / "bin" / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

        async def work(port: int) -> None:
            async with tunnel(target, port) as opened:
                assert opened.kind == "forwarder"

        using(work)


class TestWhatCannotBeOpened:
    def failure(self, target: Target, **options: Any) -> BaseException:
        async def work(port: int) -> None:
            await open_tunnel(target, port, connect_timeout_s=20, **options)

        with pytest.raises((Lost, NotAdmitted, HostKeyChanged)) as caught:
            using(work)
        return caught.value

    def test_nobody_there(self, server: Sshd, target: Target) -> None:
        pin(target)
        server.stop()
        assert isinstance(self.failure(target), Lost)

    def test_another_machine(self, server: Sshd, target: Target) -> None:
        pin(target)
        server.stop()
        server.new_host_key()
        server.start()
        assert isinstance(self.failure(target), HostKeyChanged)

    def test_not_let_in(self, server: Sshd, target: Target, tmp_path: Path) -> None:
        pin(target)
        server.authorize(key_pair(tmp_path / "of_somebody_else"))
        failure = self.failure(target)
        assert isinstance(failure, NotAdmitted)
        assert "check the user and the key" in failure.advice

    def test_nobody_there_and_only_ssh(self, server: Sshd, target: Target) -> None:
        pin(target)
        server.stop()
        failure = self.failure(target, kinds=["ssh -L"])
        assert "refused" in str(failure)


def pin(target: Target) -> None:
    async def main() -> None:
        shell = Shell(target)
        await shell.run(["true"])
        await shell.close()

    asyncio.run(main())


def holder_or_none(opened: Tunnel) -> psutil.Process | None:
    try:
        return holder(opened)
    except (psutil.NoSuchProcess, StopIteration):
        return None

"""A machine over SSH as a host: its jobs, and what it is."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
from pathlib import Path

import psutil
import pytest

from provisioners.shell.connection import Lost, Target
from provisioners.shell.remote_host import RemoteHost
from recipes.errors import HostCommandFailed, NoMachine
from tests.conftest import eventually
from tests.emulators.sshd import Sshd
from tests.provisioners.shell.booted import boot, end, using

pytestmark = pytest.mark.real
SECRET = "sk-of-nobodys-business-8f2e"


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


class TestJobs:
    def test_status_and_output(self, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            heard: list[bytes] = []
            code = "import os, sys; print(os.environ['A'], os.getcwd()); sys.stderr.write('err'); sys.exit(3)"
            job = await host.start("one", python(code), env={"A": "é $HOME"}, on_output=heard.append)
            assert await job.wait() == await job.wait() == 3
            assert b"".join(heard).decode() == f"é $HOME {host.work_dir}\nerr"

        using(target, machine, work)

    def test_a_signal_is_a_negative_status(self, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            job = await host.start("one", ["sleep", "60"], env={}, on_output=ignore)
            os.kill(job.pid, 9)
            assert await job.wait() == -9

        using(target, machine, work)

    def test_no_such_command(self, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            with pytest.raises(HostCommandFailed, match="no-such-program: No such file"):
                await host.start("one", ["no-such-program"], env={}, on_output=ignore)

        using(target, machine, work)

    def test_a_second_client_joins_and_hears_all(self, target: Target, machine: Path) -> None:
        heard: list[bytes] = []

        async def first(host: RemoteHost) -> None:
            started = asyncio.Event()
            code = "import time; print('early'); time.sleep(1.5); print('late')"
            await host.start("one", python(code), env={}, on_output=lambda _: started.set())
            await started.wait()

        async def second(host: RemoteHost) -> None:
            job = await host.start("one", ["something", "else"], env={}, on_output=heard.append)
            assert await job.wait() == 0

        using(target, machine, first)
        using(target, machine, second)
        assert b"".join(heard) == b"early\nlate\n"

    def test_not_a_byte_is_lost_or_doubled_by_cuts(self, server: Sshd, target: Target, machine: Path) -> None:
        size, heard, cuts = 3_000_000, bytearray(), iter(range(100_000, 3_000_000, 400_000))
        code = (
            "import hashlib, sys\n"
            "block = b''\n"
            f"for n in range({size} // 64):\n"
            "    sys.stdout.buffer.write(hashlib.sha256(b'%d' % n).hexdigest().encode())\n"
        )
        expected = b"".join(hashlib.sha256(b"%d" % n).hexdigest().encode() for n in range(size // 64))
        next_cut = next(cuts)

        def hear(data: bytes) -> None:
            nonlocal next_cut
            heard.extend(data)
            if len(heard) >= next_cut:
                next_cut = next(cuts, size * 2)
                server.kill_sessions()

        async def work(host: RemoteHost) -> None:
            job = await host.start("one", python(code), env={}, on_output=hear)
            assert await job.wait() == 0

        using(target, machine, work)
        assert next_cut == size * 2
        assert heard == expected

    def test_a_silent_job_outlives_the_connection(self, server: Sshd, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            flag = machine / "go"
            code = f"import os, time\nwhile not os.path.exists({str(flag)!r}): time.sleep(0.02)\nprint('went')"
            heard: list[bytes] = []
            job = await host.start("one", python(code), env={}, on_output=heard.append)
            for _ in range(2):
                server.stop()
                await asyncio.sleep(0.5)
                server.start()
            flag.touch()
            assert await job.wait() == 0
            assert heard == [b"went\n"]

        using(target, machine, work)

    def test_gives_up_when_contact_is_lost_for_good(self, server: Sshd, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            job = await host.start("one", ["sleep", "60"], env={}, on_output=ignore)
            server.stop()
            with pytest.raises(NoMachine, match=r"no contact to .* for \d+ s: no connection to .*connection refused"):
                await job.wait()
            with pytest.raises(NoMachine):
                await host.free_port()
            assert psutil.pid_exists(job.pid)

        using(target, machine, work, patience_s=1)

    def test_a_silence_is_borne_for_what_needs_nobody(self, server: Sshd, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            heard: list[bytes] = []
            code = "import time; print('early'); time.sleep(3); print('late')"
            job = await host.start("one", python(code), env={}, on_output=heard.append)
            await asyncio.to_thread(eventually, lambda: heard)
            host.bear_silence(60)
            ended = asyncio.ensure_future(job.wait())
            server.stop()
            await asyncio.sleep(2.5)
            assert not ended.done()
            server.start()
            assert await ended == 0
            assert b"".join(heard) == b"early\nlate\n"
            host.bear_silence()
            server.stop()
            with pytest.raises(NoMachine, match=r"for \d+ s"):
                await host.free_port()

        using(target, machine, work, patience_s=1)

    @pytest.mark.parametrize("counts", [True, False])
    def test_what_a_command_writes_may_be_a_sign_of_life(self, target: Target, machine: Path, counts: bool) -> None:
        async def work(host: RemoteHost) -> None:
            code = "import itertools, time\nfor n in itertools.count(): print(n); time.sleep(0.2)"
            await host.start("one", python(code), env={}, on_output=ignore, counts=counts)

        using(target, machine, work)
        log, beat = machine / "jobs" / "one" / "log", machine / "beat"
        eventually(lambda: not commands_of(machine))
        written, seen = log.read_bytes(), beat.read_text()
        eventually(lambda: len(log.read_bytes()) > len(written) + 30)
        if counts:
            eventually(lambda: beat.read_text() != seen)
        else:
            assert beat.read_text() == seen

    def test_a_job_that_the_machine_forgot(self, server: Sshd, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            started = asyncio.Event()
            job = await host.start(
                "one", ["sh", "-c", "echo 1; exec sleep 60"], env={}, on_output=lambda _: started.set()
            )
            await started.wait()
            server.stop()
            end(machine)
            shutil.rmtree(machine / "jobs")
            server.start()
            with pytest.raises(NoMachine, match="does not know one any more"):
                await job.wait()

        using(target, machine, work)

    def test_a_job_that_lost_its_supervisor(self, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            job = await host.start("one", ["sleep", "60"], env={}, on_output=ignore)
            psutil.Process(job.pid).parent().kill()  # type: ignore[union-attr]
            with pytest.raises(NoMachine, match=r"one on .* was cut off"):
                await job.wait()

        using(target, machine, work)

    def test_what_the_listener_raises_is_raised_by_waiting(self, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            def hear(_: bytes) -> None:
                raise ZeroDivisionError

            job = await host.start("one", ["echo", "1"], env={}, on_output=hear)
            with pytest.raises(ZeroDivisionError):
                await job.wait()

        using(target, machine, work)

    def test_catching_up(self, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            heard = bytearray()
            code = "import sys, time; print('x' * 5_000_000); open('done', 'w'); time.sleep(60)"
            job = await host.start("one", python(code), env={}, on_output=heard.extend)
            while not (host.work_dir / "done").exists():
                await asyncio.sleep(0.02)
            await job.catch_up()
            assert len(heard) == 5_000_001

        using(target, machine, work)

    def test_waiting_ends_when_the_host_is_closed(self, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            job = await host.start("one", ["sleep", "60"], env={}, on_output=ignore)
            waiting = asyncio.create_task(job.wait())
            await host.close()
            with pytest.raises(NoMachine, match="no longer listened to"):
                await waiting
            assert psutil.pid_exists(job.pid)

        using(target, machine, work)

    def test_many_at_once(self, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            names = [f"job{number}" for number in range(14)]
            heard: dict[str, list[bytes]] = {name: [] for name in names}
            jobs = [await host.start(name, ["echo", name], env={}, on_output=heard[name].append) for name in names]
            assert [await job.wait() for job in jobs] == [0] * len(names)
            assert [b"".join(heard[name]) for name in names] == [f"{name}\n".encode() for name in names]

        using(target, machine, work)

    def test_ending_them(self, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            job = await host.start("one", ["sleep", "60"], env={}, on_output=ignore)
            assert await ended(host) == {"left": [], "ports_busy": []}
            assert await job.wait() == -15

        using(target, machine, work)


class TestTheMachine:
    def test_what_it_says_of_itself(self, target: Target, state: Path) -> None:
        async def work(host: RemoteHost) -> None:
            assert host.work_dir == state / "work"
            assert host.python == sys.executable
            assert host.python_tag.startswith("cpython-")
            assert host.key == "k"
            assert any("switch" in note for note in host.notes)
            assert host.place("/workspace/models") == str(state / "volume" / "models")
            assert host.place("/workspace") == str(state / "volume")
            assert host.place("/workspaces/x") == "/workspaces/x"
            assert host.place("/elsewhere") == "/elsewhere"

        boot(state, volume="/workspace")
        using(target, state, work)

    def test_a_machine_without_an_agent_yet(self, target: Target, state: Path) -> None:
        with pytest.raises(Lost, match="it is not there"):
            using(target, state, never)

    def test_a_port_and_a_way_to_it(self, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            port = await host.free_port()
            argv = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
            job = await host.start("server", argv, env={}, on_output=ignore)
            way, same = await asyncio.gather(host.forward(port), host.forward(port))
            assert way == same
            assert way.kind == "ssh -L"
            while not await answers(way.address):
                await asyncio.sleep(0.05)
            await ended(host)
            await job.wait()
            assert (machine / "ports").read_text() == f"{port}\n"

        using(target, machine, work)

    def test_it_hears_that_somebody_is_there(self, server: Sshd, target: Target, machine: Path) -> None:
        def beats() -> str:
            return (machine / "beat").read_text()

        async def work(host: RemoteHost) -> None:
            for _ in range(2):
                seen = beats()
                await asyncio.to_thread(eventually, lambda seen=seen: beats() != seen)
                server.kill_sessions()
            seen = beats()
            await asyncio.to_thread(eventually, lambda: beats() != seen)

        using(target, machine, work)
        eventually(lambda: not commands_of(machine))
        assert not commands_of(machine)

    def test_no_secret_is_in_a_command_line_or_a_file(self, target: Target, machine: Path) -> None:
        async def work(host: RemoteHost) -> None:
            started = asyncio.Event()
            code = "import os, time; assert os.environ['TOKEN']; print('up'); time.sleep(60)"
            await host.start("one", python(code), env={"TOKEN": SECRET}, on_output=lambda _: started.set())
            await started.wait()
            lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
            assert not [line for line in lines if SECRET in line]
            files = [path for path in machine.rglob("*") if path.is_file()]
            assert len(files) > 8
            assert not [path for path in files if SECRET.encode() in path.read_bytes()]

        using(target, machine, work)


def ignore(_: bytes) -> None:
    pass


async def never(_: RemoteHost) -> None:
    raise AssertionError("it connected")


async def answers(address: str) -> bool:
    host, port = address.split(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        line = await reader.readline()
        writer.close()
    except OSError:
        return False
    return b"200" in line


def commands_of(machine: Path) -> list[list[str]]:
    """What still runs of the agent for a client."""
    found = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
    return [line for line in found if str(machine) in line and "supervise" not in line]


async def ended(host: RemoteHost) -> dict[str, object]:
    """What the agent leaves when it is told to end everything of the lease."""
    return await host._agent.insist("end", timeout_s=60)

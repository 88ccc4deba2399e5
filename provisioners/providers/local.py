"""This machine: a work directory, and one process group that ends with the run or with the client."""

from __future__ import annotations

import asyncio
import glob
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from provisioners.contract import (
    Bill,
    Boot,
    Clearance,
    Forward,
    Gone,
    Host,
    Lease,
    MayStillBill,
    Observed,
    Offer,
    Order,
    Output,
    Process,
    Release,
    Site,
)
from provisioners.guarded import KEY_VARIABLE, environment_of, gone_since, key_of, members
from provisioners.hardware import match, no_match, shortage
from provisioners.onhost import guard
from provisioners.phase_times import THIS_MACHINE
from provisioners.this_machine import accelerators_here, this_machine
from provisioners.threads import copy_whole, in_thread
from recipes.errors import HostCommandFailed, NoMachine
from recipes.spec import Resources
from recipes.units import GIB

GRACE_S = 10.0
_PORTS = "ports"
_PORT_PATIENCE_S = 5.0


class LocalProvisioner:
    """Leases of the machine that recipe runs on."""

    name = "local"
    billable = False
    secrets: tuple[str, ...] = ()
    at_once = False
    phase_times = THIS_MACHINE

    def __init__(self, site: Site) -> None:
        self._site = site
        self._guards: dict[str, subprocess.Popen[bytes]] = {}
        self._keys: dict[str, str] = {}

    async def offers(self, resources: Resources) -> list[Offer]:
        """This machine, if it has what is asked for. Raises NoMachine."""
        has = this_machine(self._site.home)
        if lacks := shortage(resources, has):
            raise NoMachine(lacks)
        here = Offer(
            provider=self.name,
            id=socket.gethostname(),
            memory_gib=has.memory_bytes / GIB,
            cpus=has.cpus,
            disk_gib=has.disk_free_bytes / GIB,
            price_usd_per_h=resources.price_per_hour,
        )
        if resources.accelerators is None:
            return [here]
        gpus, cuda = await asyncio.to_thread(accelerators_here)
        found = match(resources, gpus)
        if found is None:
            advice = "leave resources.accelerators out to run on the CPU"
            raise NoMachine(no_match(resources, gpus), advice=advice)
        return [
            replace(
                here,
                accelerator=found.asked.name,
                count=found.asked.count,
                memory_gib=found.memory_gib,
                usable_gib=found.memory_gib,
                free_gib=found.free_gib,
                cuda=cuda,
            )
        ]

    async def catalogue(self, *, cloud: str | None = None, accelerator: str | None = None) -> list[Offer]:
        """Nothing: such machines are there or not, and cannot be chosen from."""
        return []

    def installed(self, environment: str) -> bool | None:
        folder = self._site.cache / "engines" / environment.replace("{python_tag}", LocalHost.python_tag)
        return (folder / ".complete").exists()

    def stored(self, repo: str, commit: str) -> bool | None:
        """As the Hub's library keeps models: files under way are there too, but under another name."""
        env = self._site.env
        home = Path(env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
        kept = Path(env.get("HF_HUB_CACHE") or home / "hub").expanduser() / f"models--{repo.replace('/', '--')}"
        return (kept / "snapshots" / commit).is_dir() and not any((kept / "blobs").glob("*.incomplete"))

    async def create(self, order: Order, clearance: Clearance) -> Lease:
        """Make the work directory and start the guard, which leads the lease's process group."""
        lease = order.lease
        work_dir = self._site.home / "work" / lease.name
        work_dir.mkdir(parents=True)
        self._keys[lease.name] = secrets.token_urlsafe(24)
        guarding = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(GRACE_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
            env={**environment_of(lease.name, {}), KEY_VARIABLE: self._keys[lease.name]},
            cwd=work_dir,
        )
        self._guards[lease.name] = guarding
        return replace(lease, id=str(guarding.pid), details={"work_dir": str(work_dir)})

    async def observe(self, lease: Lease) -> Observed:
        alive = await asyncio.to_thread(members, lease)
        return Observed(state="running" if alive else "gone", price_usd_per_h=lease.price_usd_per_h)

    async def host(self, lease: Lease) -> Host:
        return LocalHost(lease, self._site.cache, self._keys.get(lease.name) or key_of(lease))

    async def destroy(self, lease: Lease, *, patience_s: float = 60.0) -> Release:
        """SIGTERM to the whole group, SIGKILL to what is left, and a look that nothing is."""
        went_at = await asyncio.to_thread(gone_since, lease)
        left = await asyncio.to_thread(_end_all, lease)
        guarding = self._guards.pop(lease.name, None)
        if guarding is not None:
            assert guarding.stdin is not None
            guarding.stdin.close()
            await asyncio.to_thread(guarding.wait)
        if left:
            pids = " ".join(str(process.pid) for process in left)
            return MayStillBill(f"processes {pids} could not be ended", f"kill -9 {pids}")
        work_dir = self._site.home / "work" / lease.name
        ports = _ports_of(work_dir)
        busy = await asyncio.to_thread(_still_taken, ports)
        if busy:
            return MayStillBill(f"port {busy[0]} is still taken by another process", f"lsof -i :{busy[0]}")
        await asyncio.to_thread(shutil.rmtree, work_dir, ignore_errors=True)
        freed = "".join(f", port {port} is free" for port in ports)
        return Gone(f"process group {lease.id} is empty, no process carries the lease's mark{freed}", went_at)

    async def owned(self, owner: str) -> list[Lease]:
        """Nothing that the journal does not know: a guard goes with its client."""
        return []

    async def bill(self, lease: Lease) -> Bill | None:
        return None

    def login(self, lease: Lease) -> Sequence[str] | None:
        return None

    def command_to_end(self, lease: Lease) -> str:
        return f"kill -9 -- -{lease.id}" if lease.id else f"pgrep -f {guard.__file__}"


class LocalHost:
    """This machine as a host: commands join the lease's process group."""

    python = sys.executable
    python_tag = f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    notes: tuple[str, ...] = ()
    clock_offset_s = 0.0

    def __init__(self, lease: Lease, cache_dir: Path, key: str) -> None:
        self._lease = lease
        self.work_dir = Path(lease.details["work_dir"])
        self.cache_dir = cache_dir
        self.key = key

    async def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str], on_output: Output, counts: bool = False
    ) -> Process:
        assert self._lease.id is not None
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.STDOUT,
                process_group=int(self._lease.id),
                env=environment_of(self._lease.name, env),
                cwd=self.work_dir,
            )
        except BaseException as error:
            os.close(reading)
            if isinstance(error, FileNotFoundError | PermissionError):
                raise HostCommandFailed(f"{argv[0]}: {error.strerror}") from error
            raise
        finally:
            os.close(writing)
        output = _OutputReader(on_output)
        await asyncio.get_running_loop().connect_read_pipe(lambda: output, os.fdopen(reading, "rb", buffering=0))
        return LocalProcess(process, output)

    async def ready_for(self, boot: Boot) -> None:
        for name, text in boot.files.items():
            await self.write(name, text)

    async def write(self, name: str, text: str) -> Path:
        path = self.work_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    async def provide(self, path: Path) -> Path:
        return path

    async def fetch(self, pattern: str, into: Path) -> list[Path]:
        stop = threading.Event()
        try:
            return await in_thread(self._copy, pattern, into, stop)
        except asyncio.CancelledError:
            stop.set()
            raise

    def _copy(self, pattern: str, into: Path, stop: threading.Event) -> list[Path]:
        copied = []
        for name in sorted(glob.glob(pattern, root_dir=self.work_dir, recursive=True)):
            source, target = self.work_dir / name, into / name
            if source.is_file() and not stop.is_set():
                target.parent.mkdir(parents=True, exist_ok=True)
                copy_whole(source, target, stop)
                copied.append(target)
        return copied

    async def free_port(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        with (self.work_dir / _PORTS).open("a") as file:
            file.write(f"{port}\n")
        return port

    def place(self, path: str) -> str:
        return path

    async def forward(self, port: int) -> Forward:
        return Forward(f"127.0.0.1:{port}", "direct")

    def bear_silence(self, seconds: float | None = None) -> None:
        """There is no link that could be cut."""

    async def close(self) -> None:
        pass


class _OutputReader(asyncio.Protocol):
    """Hands on what a process says. Goes on reading whatever happens, so that the process never waits for us."""

    def __init__(self, on_output: Output) -> None:
        self._on_output = on_output
        self.error: Exception | None = None
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        try:
            self._on_output(data)
        except Exception as error:
            self.error = self.error or error

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


class LocalProcess:
    """A child of this process."""

    def __init__(self, process: asyncio.subprocess.Process, output: _OutputReader) -> None:
        self._process, self._output = process, output

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """The exit status, once what the process itself said has been heard. Raises what hearing it raised."""
        status = await self._process.wait()
        # A grandchild may hold the pipe open for longer, and is not waited for.
        with suppress(TimeoutError):
            await asyncio.wait_for(self._output.ended.wait(), 0.5)
        if self._output.error is not None:
            raise self._output.error
        return status

    async def catch_up(self) -> None:
        pass


def _ports_of(work_dir: Path) -> list[int]:
    """The ports that were given out under this lease; they stay on record until it is gone."""
    path = work_dir / _PORTS
    return [int(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _end_all(lease: Lease) -> list[psutil.Process]:
    """End every process of the lease; returns those that would not go."""
    living = members(lease)
    # The guard ignores SIGTERM: it goes with SIGKILL, when nothing else is left to watch.
    if guarded := [process for process in living if not _is_guard(process)]:
        _end(signal.SIGTERM, living, guarded)
        living = members(lease)
    _end(signal.SIGKILL, living, living)
    return members(lease)


def _end(number: signal.Signals, processes: list[psutil.Process], waited_for: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)
    _wait_for_end(waited_for, GRACE_S)


def _wait_for_end(processes: list[psutil.Process], seconds: float) -> None:
    """Wait until all have ended. By looking, not by waitpid: their exit statuses belong to whoever started them."""
    end, pause_s = time.monotonic() + seconds, 0.001
    while any(map(_lives, processes)) and time.monotonic() < end:
        time.sleep(pause_s)
        pause_s = min(0.02, pause_s * 2)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_guard(process: psutil.Process) -> bool:
    try:
        return guard.__file__ in process.cmdline()
    except psutil.Error:
        return False


def _still_taken(ports: list[int]) -> list[int]:
    """The ports that stay taken; the threads of a killed process may hold its sockets for a moment after it."""
    end = time.monotonic() + _PORT_PATIENCE_S
    while (busy := [port for port in ports if _is_taken(port)]) and time.monotonic() < end:
        time.sleep(0.05)
    return busy


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        # As a server would bind: connections that are winding down are no hindrance, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False


PLUGIN = LocalProvisioner

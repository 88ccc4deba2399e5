"""This machine: a work directory, and one process group that ends with the run or with the client."""

from __future__ import annotations

import asyncio
import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from provisioners.contract import Clearance, Gone, Host, Lease, MayStillBill, Offer, Output, Process, Release, Site
from provisioners.onhost import guard
from recipes.errors import HostCommandFailed, NoMachine
from recipes.spec import Resources
from recipes.units import GIB, Accelerators, format_size

GRACE_S = 10.0
MARKER = "RECIPE_LEASE"
# Variables of the client's own Python that would mislead the ones that it starts.
_DROPPED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


class LocalProvisioner:
    """Leases of the machine that recipe runs on."""

    name = "local"
    billable = False

    def __init__(self, site: Site) -> None:
        self._site = site
        self._guards: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, list[int]] = {}

    async def offers(self, resources: Resources) -> list[Offer]:
        """This machine, if it has what is asked for. Raises NoMachine."""
        _check_size(resources)
        here = Offer(
            provider=self.name,
            id=socket.gethostname(),
            memory_gib=psutil.virtual_memory().total / GIB,
            cpus=psutil.cpu_count(),
            price_usd_per_h=resources.price_per_hour,
        )
        if resources.accelerators is None:
            return [here]
        wanted = [resources.accelerators, *(f.accelerators for f in resources.any_of if f.accelerators)]
        found = await asyncio.to_thread(_accelerators)
        for want in wanted:
            matching = [memory for name, memory in found if _is_a(name, want)]
            if len(matching) >= want.count:
                return [replace(here, accelerator=want.name, count=want.count, memory_gib=min(matching))]
        have = ", ".join(name for name, _ in found) or "none"
        raise NoMachine(
            f"this machine has no {' or '.join(map(str, wanted))}; accelerators found: {have}",
            advice="leave resources.accelerators out to run on the CPU",
        )

    async def create(self, offer: Offer, clearance: Clearance, lease: Lease) -> Lease:
        """Make the work directory and start the guard, which leads the lease's process group."""
        work_dir = self._site.home / "work" / lease.name
        work_dir.mkdir(parents=True)
        guarding = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(GRACE_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
            env=_environment(lease.name, {}),
            cwd=work_dir,
        )
        self._guards[lease.name] = guarding
        return replace(lease, id=str(guarding.pid), details={"work_dir": str(work_dir)})

    async def host(self, lease: Lease) -> Host:
        return LocalHost(lease, self._site.cache, self._ports.setdefault(lease.name, []))

    async def destroy(self, lease: Lease) -> Release:
        """SIGTERM to the whole group, SIGKILL to what is left, and a look that nothing is."""
        left = await asyncio.to_thread(_end_all, lease)
        guarding = self._guards.pop(lease.name, None)
        if guarding is not None:
            assert guarding.stdin is not None
            guarding.stdin.close()
            await asyncio.to_thread(guarding.wait)
        if left:
            pids = " ".join(str(process.pid) for process in left)
            return MayStillBill(f"processes {pids} could not be ended", f"kill -9 {pids}")
        busy = [port for port in self._ports.pop(lease.name, []) if _is_taken(port)]
        if busy:
            return MayStillBill(f"port {busy[0]} is still taken by another process", f"lsof -i :{busy[0]}")
        work_dir = self._site.home / "work" / lease.name
        await asyncio.to_thread(shutil.rmtree, work_dir, ignore_errors=True)
        return Gone(f"process group {lease.id} is empty, no process carries the lease's mark, its ports are free")

    def command_to_end(self, lease: Lease) -> str:
        return f"kill -9 -- -{lease.id}" if lease.id else f"pgrep -f {guard.__file__}"


class LocalHost:
    """This machine as a host: commands join the lease's process group."""

    python = sys.executable

    def __init__(self, lease: Lease, cache_dir: Path, ports: list[int]) -> None:
        self._lease, self._ports = lease, ports
        self.work_dir = Path(lease.details["work_dir"])
        self.cache_dir = cache_dir

    async def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], on_output: Output, cwd: Path | None = None
    ) -> Process:
        assert self._lease.id is not None
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=int(self._lease.id),
                env=_environment(self._lease.name, env),
                cwd=cwd or self.work_dir,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise HostCommandFailed(f"{argv[0]}: {error.strerror}") from error
        return LocalProcess(process, on_output)

    async def write(self, name: str, text: str) -> Path:
        path = self.work_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    async def provide(self, path: Path) -> Path:
        return path

    async def fetch(self, pattern: str, into: Path) -> list[Path]:
        return await asyncio.to_thread(self._copy, pattern, into)

    def _copy(self, pattern: str, into: Path) -> list[Path]:
        copied = []
        for name in sorted(glob.glob(pattern, root_dir=self.work_dir, recursive=True)):
            source, target = self.work_dir / name, into / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
                copied.append(target)
        return copied

    async def free_port(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        self._ports.append(port)
        return port

    def address(self, port: int) -> str:
        return f"127.0.0.1:{port}"


class LocalProcess:
    """A child of this process; its output is read as it comes, so that it never waits for us."""

    def __init__(self, process: asyncio.subprocess.Process, on_output: Output) -> None:
        self._process = process
        self._reader = asyncio.create_task(self._read(on_output))

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        status = await self._process.wait()
        # A grandchild may hold the pipe open for longer; what the process itself said has arrived by then.
        await asyncio.wait([self._reader], timeout=0.5)
        return status

    async def _read(self, on_output: Output) -> None:
        assert self._process.stdout is not None
        while block := await self._process.stdout.read(65536):
            on_output(block)


def _environment(lease_name: str, env: Mapping[str, str]) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key not in _DROPPED}
    return {**inherited, **env, MARKER: lease_name}


def _members(lease: Lease) -> list[psutil.Process]:
    """Every living process of the lease: in its group, or started under its marker and gone from the group.

    Both signs are needed: a process may leave the group, and one that renames itself overwrites its environment.
    """
    group = int(lease.id) if lease.id and _leads(int(lease.id), lease.name) else None
    found = []
    for process in psutil.process_iter():
        try:
            ours = os.getpgid(process.pid) == group or process.environ().get(MARKER) == lease.name
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _leads(pid: int, lease_name: str) -> bool:
    """Whether the group of this number is the lease's: its leader is the guard, or is gone.

    A number is not given to a new process as long as a group uses it.
    """
    try:
        return psutil.Process(pid).environ().get(MARKER) == lease_name
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return True
    except (psutil.Error, OSError):
        return False


def _end_all(lease: Lease) -> list[psutil.Process]:
    """End every process of the lease; returns those that would not go."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        living = _members(lease)
        for process in living:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        # The guard ignores SIGTERM: it goes with SIGKILL, when nothing else is left to watch.
        waited = [process for process in living if number == signal.SIGKILL or not _is_guard(process)]
        _wait_for_end(waited, GRACE_S)
    return _members(lease)


def _wait_for_end(processes: list[psutil.Process], seconds: float) -> None:
    """Wait until all have ended. By looking, not by waitpid: their exit statuses belong to whoever started them."""
    end = time.monotonic() + seconds
    while any(map(_lives, processes)) and time.monotonic() < end:
        time.sleep(0.02)


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


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _check_size(resources: Resources) -> None:
    cpus, memory = psutil.cpu_count() or 1, psutil.virtual_memory().total
    if resources.cpus and resources.cpus.value > cpus:
        raise NoMachine(f"resources.cpus asks for {resources.cpus.value}; this machine has {cpus}")
    if resources.memory and resources.memory.value > memory:
        asked = format_size(resources.memory.value)
        raise NoMachine(f"resources.memory asks for {asked}; this machine has {memory / GIB:.1f} GiB")


def _accelerators() -> list[tuple[str, float]]:
    """Name and memory in GiB of each NVIDIA GPU of this machine."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (row.rsplit(",", 1) for row in listed.splitlines() if "," in row)
    return [(name.strip(), float(memory) / 1024) for name, memory in rows]


def _is_a(name: str, wanted: Accelerators) -> bool:
    """Whether the driver's name of a GPU is the kind that was asked for: A100-80GB is an "NVIDIA A100 80GB PCIe"."""
    words = wanted.name.replace("-", " ").upper().split()
    return all(word in name.upper().replace(" ", "") for word in words)


PLUGIN = LocalProvisioner

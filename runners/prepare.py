"""The prepare phase: the engine's environment and the model, at the same time."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from provisioners.contract import BootJob, Host
from provisioners.masking import Mask
from recipes.errors import HostCommandFailed
from runners import registry
from runners.boot import DRIVER, FETCH, INSTALL, Places, boot_of
from runners.engine import find_failure
from runners.events import Advanced, Listener, Noted, Warned
from runners.lines import LineBuffer
from runners.models import HubModel
from runners.plan import Plan
from runners.together import together

if TYPE_CHECKING:
    from runners.stack_volumes import StackVolume


@dataclass(frozen=True)
class Prepared:
    """What lies ready on the host."""

    python: str
    """The Python of the engine's environment."""
    onhost: Path
    model_path: str
    installed: bool = False
    """Whether the engine was installed now."""
    downloaded_bytes: int = 0
    """Of the model, what was not there before."""


RunJob = Callable[[BootJob, Callable[[str], None]], Awaitable[int]]
"""Runs a job to its end and has each of its lines heard; returns its exit status."""


class Driver(Protocol):
    """What needs things of its own on the host."""

    async def make_ready(self, host: Host, job: BootJob, run: RunJob) -> None:
        """Bring them there; the job makes its environment. Raises HostCommandFailed."""
        ...


@dataclass(frozen=True)
class _Log:
    """Where the commands' lines are kept."""

    file: IO[bytes]
    mask: Mask

    def keep(self, line: bytes) -> str:
        """Write the line without its secrets; returns it so."""
        masked = self.mask.line(line)
        self.file.write(masked + b"\n")
        self.file.flush()
        return masked.decode("utf-8", "replace").rstrip()


async def prepare(
    plan: Plan,
    host: Host,
    env: Mapping[str, str],
    log_path: Path,
    mask: Mask,
    emit: Listener,
    driver: Driver | None = None,
) -> Prepared:
    """Install and download, or join a machine that has begun with both at its start.

    What the commands print is kept in the log, but for secrets. Raises HostCommandFailed.
    """
    places = Places.of(host)
    boot = boot_of(plan, places, env)
    await host.ready_for(boot)
    jobs = {job.name: job for job in boot.jobs}
    with log_path.open("ab") as file:
        log = _Log(file, mask)

        async def run_job(job: BootJob, heard: Callable[[str], None]) -> int:
            return await run(host, job.name, job.argv, env, heard, log)

        async with together(HostCommandFailed) as group:
            engine = group.create_task(_engine(plan, host, jobs.get(INSTALL), env, log, emit))
            model = group.create_task(_model(plan, host, jobs.get(FETCH), env, log, emit))
            if driver is not None:
                group.create_task(driver.make_ready(host, jobs[DRIVER], run_job))
    python, installed = engine.result()
    model_path, downloaded_bytes = model.result()
    if plan.mounted is not None and plan.model.hub is not None:
        _note_stack(plan.mounted, plan.model.hub, host, downloaded_bytes, log_path.parent.name, emit)
    return Prepared(python, Path(places.onhost), model_path, installed, downloaded_bytes)


def _note_stack(
    volume: StackVolume, hub: HubModel, host: Host, downloaded_bytes: int, run_id: str, emit: Listener
) -> None:
    """The next plan knows that this download is paid for."""
    from runners.stack_volumes import after_prepare  # few runs have such a volume

    now, site = datetime.now(UTC), registry.site()
    noted = after_prepare(volume, hub, host, downloaded_bytes, site=site, run_id=run_id, at=now)
    if noted.missed:
        emit(Warned("prepare", noted.missed))
    if noted.brought:
        emit(Noted("prepare", noted.brought))


async def _engine(
    plan: Plan, host: Host, job: BootJob | None, env: Mapping[str, str], log: _Log, emit: Listener
) -> tuple[str, bool]:
    """Its Python, and whether it was installed now."""
    if job is None:
        return host.python, False
    lines: list[str] = []

    def heard(line: str) -> None:
        lines.append(line)
        emit(Advanced("prepare", f"{plan.engine.name} {plan.engine_version}: {line[:120]}"))

    status = await run(host, job.name, job.argv, env, heard, log)
    if status != 0:
        failure = find_failure("\n".join(lines[-200:]), _INSTALL_FAILURES, log_name="install.log")
        raise HostCommandFailed(
            f"{plan.engine.name} {plan.engine_version} could not be installed: {failure.cause}",
            advice=failure.advice,
        )
    done: dict[str, Any] = json.loads(lines[-1])
    emit(Noted("prepare", f"installed in {done['seconds']:.1f} s" if done["installed"] else "already installed"))
    return str(done["python"]), bool(done["installed"])


async def _model(
    plan: Plan, host: Host, job: BootJob | None, env: Mapping[str, str], log: _Log, emit: Listener
) -> tuple[str, int]:
    """Where it lies, and what had to be downloaded of it."""
    if plan.model.hub and job:
        on = f" on stack {plan.mounted.ref}" if plan.mounted and plan.mounted.place is not None else ""
        folder, downloaded_bytes = await _download(plan.model.hub, on, job, host, env, log, emit)
        return plan.model.loaded_from(folder), downloaded_bytes
    if plan.model.path:
        return str(await host.provide(plan.model.path)), 0
    return "", 0


async def _download(
    hub: HubModel, on: str, job: BootJob, host: Host, env: Mapping[str, str], log: _Log, emit: Listener
) -> tuple[Path, int]:
    said: dict[str, Any] = {}
    speed = _Speed()

    def heard(line: str) -> None:
        if line.startswith("{"):
            said.update(json.loads(line))
        if progress := said.pop("progress", None):
            done = f"{progress['bytes'] / 1e6:,.1f} of {progress['total'] / 1e6:,.1f} MB"
            emit(Advanced("prepare", f"{hub.repo}: {done}{speed.told(progress['bytes'])}"))

    status = await run(host, job.name, job.argv, env, heard, log)
    if "path" in said:
        downloaded_bytes = int(said.get("downloaded", hub.bytes))
        emit(Noted("prepare", _brought(hub, on, downloaded_bytes, speed.average())))
        return Path(said["path"]), downloaded_bytes
    error = said.get("error") or {
        "message": f"the download ended with exit status {status}",
        "advice": "see install.log",
    }
    raise HostCommandFailed(error["message"], advice=error["advice"])


def _brought(hub: HubModel, on: str, downloaded_bytes: int, rate: str) -> str:
    """What was there, and what had to be fetched; `on` says where."""
    model = f"{hub.repo} @ {hub.commit[:7]}, {hub.bytes / 1e6:,.1f} MB"
    if downloaded_bytes <= 0:
        return f"{model}: found{on}, 0 B downloaded"
    missing = "" if downloaded_bytes >= hub.bytes else f" ({downloaded_bytes / 1e6:,.1f} MB were missing)"
    return f"{model}: downloaded{missing}{rate}"


class _Speed:
    """Bytes per second, from the progress that is reported."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._last = (0.0, 0)

    def told(self, stored: int) -> str:
        now = time.monotonic()
        before, self._last = self._last, (now, stored)
        self._first = self._first or self._last
        return self._words(before, self._last) if before[0] else ""

    def average(self) -> str:
        return self._words(self._first, self._last) if self._first else ""

    @staticmethod
    def _words(begin: tuple[float, int], end: tuple[float, int]) -> str:
        seconds, stored = end[0] - begin[0], end[1] - begin[1]
        return f" at {stored / seconds / 1e6:,.1f} MB/s" if seconds > 0.1 and stored > 0 else ""


async def run(
    host: Host, name: str, argv: Sequence[str], env: Mapping[str, str], heard: Callable[[str], None], log: _Log
) -> int:
    """Run a command to its end; each line that it prints is kept and heard. Returns its exit status."""
    buffer = LineBuffer()

    def read(block: bytes) -> None:
        for line in buffer.feed(block):
            heard(log.keep(line))

    process = await host.start(name, argv, env=env, on_output=read)
    return await process.wait()


_INSTALL_FAILURES = (
    (
        r"No matching distribution found for \S+",
        "check engine.version; see which releases there are at the package index",
    ),
    (r"No solution found when resolving dependencies[\s\S]{0,300}", "check engine.version"),
    (r"cannot write [^\n]*", "set XDG_CACHE_HOME to a folder that you may write to"),
    (r"No space left on device", "free some disk, or set XDG_CACHE_HOME to a larger one"),
    (r"ensurepip is not available[^\n]*", "install the venv module: apt-get install python3-venv"),
    (r"(?:Temporary failure in name resolution|Network is unreachable|Connection refused)[^\n]*", "check the network"),
)

"""The client's side of a driver: brings it to the machine, starts or joins it, and takes down what it says."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import runners.engines
import runners.workloads
from provisioners.contract import BootJob, Host, Process
from provisioners.site import recipe_cache
from provisioners.threads import in_thread
from recipes.errors import EngineFailed, HostCommandFailed, RecipeError, WorkloadFailed
from runners.drive import Measured
from runners.driver.belongings import files_of, relocated, stage, stage_earlier
from runners.driver.notes import Notes
from runners.driver.order import KEY, DriveOrder, reference_to
from runners.events import Advanced, Driven, Listener, Noted
from runners.launch import Running
from runners.lines import LineBuffer
from runners.plan import Plan
from runners.prepare import RunJob
from runners.run_folder import DRIVER_BEGUN, RunFolder
from runners.telemetry import TelemetryFile
from runners.telemetry.host import clock_offset
from runners.travel import archive

DRIVE = "drive"
"""The name of its command on the machine."""


_SYNCED_EVERY_S = 1.0
_SILENCE_S = 3600.0
"""So long a driver is waited for that cannot be heard."""


@dataclass(frozen=True)
class _Place:
    """Where things lie on the machine."""

    python: str
    archive: Path
    root: str
    tokenizer: str
    earlier: str | None


class DriverBug(Exception):
    """The driver failed in a way that is nobody's fault but recipe's; its own traceback is in the notes."""


class HostDrive:
    """A drive that goes on on its machine. What it says is on disk here as soon as it is heard, each row once."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        measured: Measured,
        emit: Listener,
        usd: Callable[[], float | None],
        telemetry: TelemetryFile,
    ) -> None:
        self._plan, self._folder, self._measured, self._emit, self._usd = plan, folder, measured, emit, usd
        self._telemetry = telemetry
        self._lines = LineBuffer()
        self._place: _Place | None = None
        self._process: Process | None = None
        self._host: Host | None = None
        self._running: Running | None = None
        self._ready = asyncio.Event()
        self._end: dict[str, Any] | None = None
        self._notes: Notes | None = None
        self._sampled = 0
        self._driving = False

    async def make_ready(self, host: Host, job: BootJob, run: RunJob) -> None:
        """Bring what the driver needs, while its environment is made there. Raises HostCommandFailed."""
        async with asyncio.TaskGroup() as group:
            python = group.create_task(self._environment(job, run))
            brought = group.create_task(self._bring(host))
        self._place = _Place(python.result(), *brought.result())

    async def begin(self, host: Host, running: Running) -> None:
        """Start the driver, which waits for the engine by itself; or join it, and hear all that it has said."""
        place, endpoint = self._place, running.endpoint
        assert place is not None
        self._host, self._running, self._sampled = host, running, len(running.log.samples)
        offset_s = clock_offset(self._folder, host)
        self._measured.at, self._measured.clock_offset_s = "host", offset_s
        heard = (self._folder, self._measured, self._telemetry, self._emit)
        self._notes = await in_thread(Notes, *heard, offset_s=offset_s)
        order = DriveOrder(
            run_id=self._folder.run_id,
            recipe=relocated(self._plan.recipe, place.root),
            tokenizer=place.tokenizer,
            engine=_engine_of(self._plan),
            engine_version=self._plan.engine_version or "",
            workload=_workload_of(self._plan),
            model=endpoint.model,
            url=endpoint.url,
            base=endpoint.base,
            process=running.process.pid if running.process else None,
            identity=self._plan.identity,
            documents=self._plan.estimate.documents,
            unit=self._plan.estimate.unit,
            memory=asdict(self._plan.memory) if self._plan.memory else None,
            root=place.root,
            earlier=place.earlier,
            ready_within_s=self._plan.recipe.limits.deadlines.launch,
        )
        path = await host.write("drive.json", order.text())
        argv = [place.python, str(place.archive), str(path)]
        env = {KEY: endpoint.key} if endpoint.key else {}
        self._process = await host.start(DRIVE, argv, env=env, on_output=self._hear, counts=True)
        self._folder.write_json(DRIVER_BEGUN, {"job": DRIVE, "work": str(host.work_dir), "python": place.python})

    async def ready(self) -> None:
        """Return when the driver has seen the engine generate. Raises as `ended` does if it ends before."""
        assert self._process is not None
        ended, ready = asyncio.ensure_future(self._process.wait()), asyncio.ensure_future(self._ready.wait())
        try:
            await asyncio.wait([ended, ready], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in (ended, ready):
                future.cancel()
        if not self._ready.is_set():
            await self.ended()

    async def ended(self) -> None:
        """Return when everything is done and at home. Raises what the drive raised on the machine."""
        assert self._process is not None
        assert self._notes is not None
        status = await self._process.wait()
        end = self._end
        if end is None:
            said = f": {self._notes.last_words}" if self._notes.last_words else ""
            raise HostCommandFailed(
                f"the driver on the machine ended with status {status}{said}",
                advice="see driver.log; recipe up again goes on from what it has done",
            )
        if "bug" in end:
            bug = DriverBug(end["message"])
            bug.add_note(end["bug"])
            raise bug
        if "failed" in end:
            raise _RAISED.get(end["failed"], WorkloadFailed)(end["message"], advice=end["advice"])

    async def drive(self) -> None:
        """The drive phase: heard to its end. Raises as `ended` does, and EngineFailed when the engine ended."""
        assert self._running is not None
        assert self._host is not None
        self._driving = True
        # Without contact the driver works on, and to give the machine up for that would be to lose its work.
        self._host.bear_silence(_SILENCE_S)
        syncing = asyncio.create_task(self._sync())
        try:
            await self._running.while_alive(self.ended())
        finally:
            syncing.cancel()
            self._host.bear_silence()

    async def catch_up(self) -> None:
        """Hear everything that it has said so far."""
        if self._process is not None:
            await self._process.catch_up()

    def close(self) -> None:
        """What was measured is complete, as far as it came home."""
        if self._running is not None:
            self._measured.log.extend(self._running.log.samples[self._sampled :])
        if self._notes is not None:
            self._notes.close()

    async def _sync(self) -> None:
        """Bring what came home to the disk every second, so that a power cut takes no more; beside the work."""
        assert self._notes is not None
        while True:
            await asyncio.sleep(_SYNCED_EVERY_S)
            await asyncio.to_thread(self._notes.sync)

    async def _environment(self, job: BootJob, run: RunJob) -> str:
        """Its Python there."""
        lines: list[str] = []

        def heard(line: str) -> None:
            lines.append(line)
            self._emit(Advanced("prepare", f"driver: {line[:120]}"))

        if await run(job, heard) != 0:
            said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
            raise HostCommandFailed(
                f"the driver's environment could not be made: {said}",
                advice="see install.log; workload.where: client needs no driver",
            )
        return str(json.loads(lines[-1])["python"])

    async def _bring(self, host: Host) -> tuple[Path, str, str, str | None]:
        """The driver itself, the files of the recipe, and what was asked before: to where they lie there."""
        plugins = [r.partition(":")[0] for r in (_engine_of(self._plan), _workload_of(self._plan))]
        packed = await in_thread(archive, recipe_cache() / "drivers", plugins)
        tokenizer = _file_of(self._plan.model.counting_tokenizer())
        with tempfile.TemporaryDirectory(prefix="recipe-") as made:
            files = await in_thread(lambda: stage(files_of(self._plan.recipe, tokenizer), Path(made) / "files"))
            there = await host.provide(files)
            root = "" if there == files else str(there)
            earlier = await self._bring_earlier(host, Path(made))
        return await host.provide(packed), root, f"{root}{tokenizer.absolute()}", earlier

    async def _bring_earlier(self, host: Host, folder: Path) -> str | None:
        """What was asked before a driver was started there; it has that itself, for as long as the machine knows it."""
        begun = f"runs/{self._folder.run_id}/{DRIVER_BEGUN}"
        if (self._folder.path / DRIVER_BEGUN).exists() and await host.fetch(begun, folder / "there"):
            return None
        staged = await in_thread(stage_earlier, self._folder, folder / "earlier")
        if staged is None:
            return None
        there = await host.provide(staged)
        if there == staged:
            there = host.work_dir / "earlier"
            await in_thread(shutil.copytree, staged, there, dirs_exist_ok=True)
        return str(there)

    def _hear(self, block: bytes) -> None:
        assert self._running is not None
        assert self._notes is not None
        for line in self._lines.feed(block):
            self._take(self._running.log.mask.line(line), self._notes)

    def _take(self, line: bytes, notes: Notes) -> None:
        try:
            said = json.loads(line) if line.startswith(b'{"') else None
        except ValueError:
            said = None
        match said:
            case {"file": str(name), "row": dict(row)}:
                notes.row(name, row)
            case {"output": str(name), "text": str(text)}:
                notes.output(name, text)
            case {"driven": dict(data), "sums": dict(sums)}:
                notes.sums(sums)
                self._show(data)
            case {"noted": str(message)}:
                self._emit(Noted("drive", message))
            case {"ready": _}:
                self._ready.set()
            case {"end": dict(end), "sums": dict(sums)}:
                notes.sums(sums)
                self._end = end
            case {"at": _}:
                pass
            case _:
                notes.besides(line)

    def _show(self, driven: Mapping[str, Any]) -> None:
        """How far it is; what is heard again of a time before counts for nothing."""
        if self._driving:
            known = {field.name: driven[field.name] for field in fields(Driven) if field.name in driven}
            self._emit(Driven(**{**known, "usd": self._usd()}))


_RAISED: Mapping[str, type[RecipeError]] = {
    kind.__name__: kind for kind in (EngineFailed, HostCommandFailed, WorkloadFailed)
}
"""What a drive can fail with on its machine; everything else is a failure of the work."""


def _engine_of(plan: Plan) -> str:
    return reference_to(runners.engines, "gpu_recipe.engines", plan.engine.name)


def _workload_of(plan: Plan) -> str:
    return reference_to(runners.workloads, "gpu_recipe.workloads", plan.workload.name)


def _file_of(tokenizer: Path) -> Path:
    return tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer

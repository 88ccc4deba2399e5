"""The driver: `driver.zip ORDER.json` on the machine. It does a run's drive against the engine there, and says how.

Every line that it prints is a JSON object: {"file", "row"} for a row of one of the run's files, {"output", "text"} for
an output, {"driven"} for how far it is, {"noted"} for what people should know, {"ready"} once the engine answers,
{"at"} as a sign of life, and {"end"} as the last. It needs nobody who listens.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from provisioners.masking import Mask
from recipes.errors import EngineFailed, RecipeError
from runners.client import Endpoint, Transport, open_transport
from runners.drive import Measured, drive
from runners.driver.hosted import Engine, HostedPlan, SilentLog, hosted_plan
from runners.driver.mirror import Mirror, line
from runners.driver.order import KEY, DriveOrder
from runners.events import Driven, Event, Noted, Warned
from runners.http.loop import run as run_in_loop
from runners.launch import Running, until_ready
from runners.run_folder import DRIVER_BEGUN, RunFolder
from runners.telemetry import TelemetryFile

_TOLD_EVERY_S = 0.1
_DRIVEN_EVERY_S = 1.0
_ALIVE_EVERY_S = 5.0


class Voice:
    """Says lines, each in one piece. Whoever listened may have gone; the work goes on."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, data: bytes) -> None:
        with suppress(BrokenPipeError):
            while data:
                data = data[os.write(self._descriptor, data) :]

    def say(self, **what: Any) -> None:
        self(line(what))


class Progress:
    """What the drive tells of itself, handed on: notes at once, how far it is once a second."""

    def __init__(self, voice: Voice, measured: Measured) -> None:
        self._voice, self._measured = voice, measured
        self._last: Driven | None = None
        self._told: Driven | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case Driven():
                self._last = event
            case Noted() | Warned():
                self._voice.say(noted=event.message)

    def tell(self) -> None:
        if self._last is not None and self._last != self._told:
            self._told = self._last
            self._voice.say(driven=asdict(self._last), sums=_sums(self._measured))


def main(arguments: list[str]) -> int:
    """Drive; returns 0 when the last line says how it ended."""
    path, voice = Path(arguments[0]), Voice(sys.stdout.fileno())
    measured = Measured()
    try:
        order = DriveOrder.read(path)
        folder = _folder(path.parent, order)
        mirror = Mirror(folder, order.root, voice)
        try:
            run_in_loop(_run(order, folder, measured, mirror, voice))
        finally:
            mirror.tell_all()
        said: dict[str, Any] = {}
    except Exception as error:
        said = _failure(error)
    voice.say(end=said, sums=_sums(measured))
    return 0


async def _run(order: DriveOrder, folder: RunFolder, measured: Measured, mirror: Mirror, voice: Voice) -> None:
    progress = Progress(voice, measured)
    telling = asyncio.create_task(_tell(mirror, progress, voice))
    key = os.environ.pop(KEY, None)
    mask = Mask([key or ""])
    preparing = asyncio.create_task(asyncio.to_thread(hosted_plan, order))
    try:
        async with open_transport() as transport:
            engine = Engine(order.process) if order.process is not None else None
            running = Running(Endpoint(order.url, order.model, key, order.base), engine, SilentLog(mask), _bare(order))
            await _ready(running, transport, order.ready_within_s)
            plan = await running.while_alive(preparing)
            voice.say(ready=datetime.now(UTC).isoformat())
            # Not thinned out: what is added to it is told as it comes.
            telemetry = TelemetryFile(folder.path / "telemetry.jsonl", limit_bytes=None)
            await drive(plan, running, transport, folder, measured, progress, lambda: None, telemetry)
    finally:
        preparing.cancel()
        telling.cancel()
        progress.tell()


def _bare(order: DriveOrder) -> HostedPlan:
    """The plan without its inputs: enough to ask the engine whether it is there."""
    return hosted_plan(order, inputs=False)


async def _ready(running: Running, transport: Transport, within_s: float | None) -> None:
    try:
        async with asyncio.timeout(within_s):
            await running.while_alive(until_ready(running, transport))
    except TimeoutError:
        raise EngineFailed(f"the engine did not answer within {within_s:.0f} s", advice="see engine.log") from None


async def _tell(mirror: Mirror, progress: Progress, voice: Voice) -> None:
    loop = asyncio.get_running_loop()
    driven = alive = loop.time()
    voice.say(at=datetime.now(UTC).isoformat())
    while True:
        await asyncio.sleep(_TOLD_EVERY_S)
        mirror.tell()
        now = loop.time()
        if now - driven >= _DRIVEN_EVERY_S:
            driven = now
            progress.tell()
        if now - alive >= _ALIVE_EVERY_S:
            alive = now
            voice.say(at=datetime.now(UTC).isoformat())


def _folder(work: Path, order: DriveOrder) -> RunFolder:
    """The run's folder here; with what was asked before, if this is the first driver that works in it."""
    path = work / "runs" / order.run_id
    if not path.is_dir() and order.earlier:
        part = work / "runs.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(order.earlier, part)
        part.rename(work / "runs")
    folder = RunFolder(path)
    folder.outputs.mkdir(parents=True, exist_ok=True)
    folder.write_text(DRIVER_BEGUN, "{}\n")
    return folder


def _failure(error: Exception) -> dict[str, Any]:
    """Why it failed, so that the client can raise the same."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, RecipeError):
        return {"failed": type(error).__name__, "message": error.message, "advice": error.advice}
    if isinstance(error, OSError):
        return {
            "failed": "HostCommandFailed",
            "message": f"the driver on the machine: {error}",
            "advice": "see whether its disk is full",
        }
    return {"bug": "".join(traceback.format_exception(error)), "message": f"{type(error).__name__}: {error}"}


def _sums(measured: Measured) -> dict[str, Any]:
    """What the rows do not tell."""
    return {
        "resumed": measured.resumed,
        "taken_answers": measured.taken_answers,
        "taken_outputs": measured.taken_outputs,
        "concurrency": measured.concurrency,
    }

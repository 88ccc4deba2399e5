"""The sampler of a run's machine, from here: brought there, started or joined, and heard."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from provisioners.contract import Host, Process
from recipes.errors import NoMachine
from runners.environments import ONHOST
from runners.lines import LineBuffer
from runners.run_folder import RunFolder
from runners.telemetry.file import TelemetryFile
from runners.telemetry.wire import Facts, Lost, Sample, Wire

SAMPLER = "telemetry"
"""The name of its command on the machine; a sampler that was started again has a number behind it."""
SCRIPT, GPU_SCRIPT = ONHOST / "sample_host.py", ONHOST / "sample_gpus.py"
_WORTH_IT_S = 0.5
"""A run that is over sooner is not disturbed."""
_LAST_WORDS_S = 5.0
_CLOCK, _NUMBER = "clock.json", "sampler.json"
_PAUSES_S = (2.0, 10.0, 60.0, 300.0)
"""Before a sampler that ended is started again, each time; after that it is left at that."""
_STEADY_S = 600.0
"""One that ran for so long may end so many times anew."""


class HostSampler:
    """Samples the machine of a run for as long as the run holds it. Nothing that becomes of it concerns the run."""

    def __init__(self, file: TelemetryFile) -> None:
        self._file = file
        self._lines, self._wire = LineBuffer(), Wire()
        self._offset_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self._began = datetime.now(UTC)
        self._ended = ""
        self._said = b""

    def begin(self, host: Host, folder: RunFolder) -> None:
        """Beside everything else."""
        self._file.remind()
        self._offset_s, self._began = clock_offset(folder, host), datetime.now(UTC)
        self._task = asyncio.create_task(self._sample(host, folder), name="telemetry")

    async def catch_up(self) -> None:
        """Hear what it has said so far, if that can be had soon."""
        if self._process is not None and self._task is not None and not self._task.done():
            with suppress(Exception):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._process.catch_up()

    async def finish(self) -> None:
        """Hear no more. If nothing was heard for a while, that is a gap."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None
        if self._ended or self._process is not None:
            self._file.unsampled(datetime.now(UTC), self._began, self._ended or "the machine could not be heard")

    async def _sample(self, host: Host, folder: RunFolder) -> None:
        """Sample until this is cancelled. A sampler that ends is started again, a few times."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(_WORTH_IT_S)
        # A command's name stands for what it has said: one that ended is not joined again, by no client.
        number, pauses = (folder.read_json(_NUMBER) or {"number": 1})["number"], list(_PAUSES_S)
        while True:
            began = loop.time()
            try:
                self._ended = await self._sampled(host, SAMPLER if number == 1 else f"{SAMPLER}-{number}")
                self._file.unsampled(datetime.now(UTC), self._began, self._ended)
                number += 1
                with suppress(OSError):
                    folder.write_json(_NUMBER, {"number": number})
            except NoMachine as error:  # which the run itself tells
                self._ended = f"the machine could not be sampled: {error}"
                return
            except Exception as error:
                self._ended = f"the machine could not be sampled: {error}"
                logging.getLogger(__name__).debug("the sampler failed", exc_info=True)
            if loop.time() - began > _STEADY_S:
                pauses = list(_PAUSES_S)
            if not pauses:
                self._file.warn(
                    f"{self._ended}; it was tried {len(_PAUSES_S) + 1} times, and there are no samples more"
                )
                return
            pause_s = pauses.pop(0)
            self._file.warn(f"{self._ended}; it is tried again in {pause_s:.0f} s, and what is missing is a gap")
            await asyncio.sleep(pause_s)

    async def _sampled(self, host: Host, name: str) -> str:
        """One sampler from its beginning to its end; why it ended."""
        script, nvml = await host.provide(SCRIPT), find_spec("pynvml")
        libraries = [GPU_SCRIPT, Path(nvml.origin)] if nvml and nvml.origin else []
        argv = [host.python, "-IS", str(script), *[str(await host.provide(path)) for path in libraries]]
        self._lines, self._wire, self._said = LineBuffer(), Wire(), b""
        self._process = await host.start(name, argv, env={}, on_output=self._hear)
        self._ended = ""
        status = await self._process.wait()
        said = self._said.decode("utf-8", "replace").strip()
        return f"the sampler ended with status {status}" + (f": {said}" if said else "")

    def _hear(self, block: bytes) -> None:
        for line in self._lines.feed(block):
            match self._wire.read(line):
                case Facts(at, facts):
                    self._file.machine(self._moment(at), facts)
                case Lost(at, gpu, uuid, why):
                    self._file.lost(self._moment(at), gpu, uuid, why)
                case Sample(number, at, values):
                    self._file.host(self._moment(at), number, values)
                case None:
                    self._said = line or self._said

    def _moment(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(seconds - self._offset_s, UTC)


def clock_offset(folder: RunFolder, host: Host) -> float:
    """By how much the machine's clock is ahead of the run's, in seconds: as the first client of the run has found it.

    A later client measures something a little different; but what is heard twice has to have the same time twice.
    """
    if (known := folder.read_json(_CLOCK)) is not None:
        return float(known["offset_s"])
    if offset_s := round(host.clock_offset_s, 3):
        folder.write_json(_CLOCK, {"offset_s": offset_s})
    return offset_s

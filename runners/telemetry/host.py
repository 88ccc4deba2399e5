"""The sampler of a run's machine, from here: brought there, started or joined, and heard."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from provisioners.contract import Host, Process
from runners.environments import ONHOST
from runners.lines import LineBuffer
from runners.run_folder import RunFolder
from runners.telemetry.file import TelemetryFile
from runners.telemetry.wire import Facts, Lost, Sample, Wire

SAMPLER = "telemetry"
"""The name of its command on the machine."""
SCRIPT = ONHOST / "sample_host.py"
_WORTH_IT_S = 0.5
"""A run that is over sooner is not disturbed."""
_LAST_WORDS_S = 5.0
_CLOCK = "clock.json"


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

    def begin(self, host: Host, offset_s: float) -> None:
        """Beside everything else. `offset_s`: by how much the machine's clock is ahead of the run's."""
        self._offset_s, self._began = offset_s, datetime.now(UTC)
        self._task = asyncio.create_task(self._sample(host), name="telemetry")

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

    async def _sample(self, host: Host) -> None:
        try:
            await asyncio.sleep(_WORTH_IT_S)
            script, nvml = await host.provide(SCRIPT), find_spec("pynvml")
            library = [str(await host.provide(Path(nvml.origin)))] if nvml and nvml.origin else []
            argv = [host.python, "-IS", str(script), *library]
            self._process = await host.start(SAMPLER, argv, env={}, on_output=self._hear)
            status = await self._process.wait()
            said = self._said.decode("utf-8", "replace").strip()
            self._ended = f"the sampler ended with status {status}" + (f": {said}" if said else "")
        except Exception as error:
            self._ended = f"the machine could not be sampled: {error}"
            logging.getLogger(__name__).debug("the sampler failed", exc_info=True)

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

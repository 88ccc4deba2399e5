"""Watches an engine while it works: its metrics page every second, its log line by line."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from runners.client import Endpoint, Transport
from runners.engine import Engine, EngineSample, LogSample
from runners.lines import LineBuffer
from runners.masking import Mask
from runners.measurement import Timed

INTERVAL_S = 1.0
_PATIENCE_S = 5.0
_TAIL_BYTES = 200_000


class EngineLog:
    """Keeps an engine's output whole in a file, but for secrets, and reads its lines as they come."""

    def __init__(self, path: Path, engine: Engine, mask: Mask) -> None:
        self._file: IO[bytes] = path.open("ab")
        self._path, self._engine, self.mask = path, engine, mask
        self._lines = LineBuffer()
        self.samples: list[Timed[LogSample]] = []

    def feed(self, block: bytes) -> None:
        lines = self._lines.feed(block)
        self._file.write(b"".join(self.mask.line(line) + b"\n" for line in lines))
        self._file.flush()
        for line in lines:
            if sample := self._engine.log_line(line.decode("utf-8", "replace")):
                self.samples.append(Timed(datetime.now(UTC), sample))

    def tail(self) -> str:
        """The end of the log, for finding the cause of a failure."""
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - _TAIL_BYTES))
            return (file.read() + self.mask.line(self._lines.rest)).decode("utf-8", "replace")

    def close(self) -> None:
        with suppress(OSError):
            self._file.write(self.mask.line(self._lines.rest))
        with suppress(OSError):  # what could not be written is tried once more here
            self._file.close()


class MetricsSampler:
    """Reads the engine's metrics into telemetry.jsonl while it is entered, at its beginning and end as well."""

    def __init__(self, transport: Transport, endpoint: Endpoint, engine: Engine, path: Path) -> None:
        self._transport, self._endpoint, self._engine, self._path = transport, endpoint, engine, path
        self.samples: list[Timed[EngineSample]] = []
        self.on_sample: Callable[[], None] = lambda: None

    async def __aenter__(self) -> MetricsSampler:
        await self._sample()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._sample()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += INTERVAL_S
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self._sample()
            self.on_sample()

    async def _sample(self) -> None:
        """One reading; whatever keeps it from being read or written leaves a gap, and the drive goes on."""
        if self._engine.metrics_path is None:
            return
        try:
            text, at = await self._read(self._engine.metrics_path), datetime.now(UTC)
            if sample := self._engine.metrics(text):
                self.samples.append(Timed(at, sample))
                self._write({"at": at.isoformat(timespec="milliseconds"), "source": "engine", **asdict(sample)})
        except Exception:
            logging.getLogger(__name__).debug("a gap in the telemetry", exc_info=True)

    async def _read(self, page: str) -> str:
        headers = self._endpoint.headers
        _, body = await self._transport.get(self._endpoint.url + page, headers=headers, timeout_s=_PATIENCE_S)
        return body.decode("utf-8", "replace")

    def _write(self, row: dict[str, Any]) -> None:
        # Opened for each row, so that nothing is left open however the drive ends.
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

"""Watches an engine while it works: its metrics page every second, its log line by line."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import IO

from provisioners.masking import Mask
from runners.client import Endpoint, Transport
from runners.engine import Engine, EngineSample, LogSample
from runners.lines import LineBuffer
from runners.measurement import Timed
from runners.telemetry.file import GAP_S, TelemetryFile
from runners.telemetry.rows import INTERVAL_S

_PATIENCE_S = 5.0
_WORTH = 4.0
"""A look is not repeated before so many times as long as it took: some engines need milliseconds to write the page."""
_EARLY_S = 0.02
_TRIES = 3
_TAIL_BYTES = 200_000
_METRIC = re.compile(r"^[A-Za-z_:][\w:]*(\{.*\})? [-+.\dIN]", re.MULTILINE)
"""A line of Prometheus' text format."""


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
    """Reads the engine's metrics into telemetry.jsonl while it is entered, at its beginning and end as well.

    Whoever steers by them may ask for more looks than are written: see `on_look` and `look_again_s`.
    """

    def __init__(self, transport: Transport, endpoint: Endpoint, engine: Engine, file: TelemetryFile) -> None:
        self._transport, self._endpoint, self._file = transport, endpoint, file
        self._page = Page(engine)
        self.samples: list[Timed[EngineSample]] = []
        """What was written, one a second."""
        self.on_page: Callable[[str], None] = lambda _: None
        """Hears the whole page, each time that a row is due."""
        self.on_sample: Callable[[], None] = lambda: None
        self.on_look: Callable[[EngineSample], None] = lambda _: None
        self.look_again_s: Callable[[], float] = lambda: INTERVAL_S
        self._seen_at = datetime.now(UTC)
        self._trouble = ""

    async def __aenter__(self) -> MetricsSampler:
        self._seen_at = datetime.now(UTC)
        await self._look(write=True)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._look(write=True)
        if self._page.path is not None:
            self._mark_gap(datetime.now(UTC))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due, took_s = loop.time() + INTERVAL_S, 0.0
        while True:
            now = loop.time()
            await asyncio.sleep(min(max(self.look_again_s(), _WORTH * took_s), max(0.0, due - now)))
            began = loop.time()
            write = began >= due - _EARLY_S
            await self._look(write=write)
            took_s = loop.time() - began
            if write:
                due = max(due + INTERVAL_S, began)
                self.on_sample()

    async def _look(self, *, write: bool) -> None:
        """One reading; whatever keeps it from being read or written leaves a gap, and the drive goes on."""
        if self._page.path is None:
            return
        try:
            status, body = await self._transport.get(
                self._endpoint.url + self._page.path, headers=self._endpoint.headers, timeout_s=_PATIENCE_S
            )
            at, page = datetime.now(UTC), body.decode("utf-8", "replace")
            if status != HTTPStatus.OK:
                self._trouble = f"the metrics page answered HTTP {status}"
            if write and status == HTTPStatus.OK:
                self.on_page(page)
            if sample := self._page.read(status, page):
                self.on_look(sample)
                if write:
                    self._mark_gap(at)
                    self.samples.append(Timed(at, sample))
                    self._file.engine(at, asdict(sample))
        except Exception as error:
            self._trouble = f"the metrics page did not answer: {error or type(error).__name__}"
            logging.getLogger(__name__).debug("a gap in the telemetry", exc_info=True)

    def _mark_gap(self, at: datetime) -> None:
        """If the last sample was long ago."""
        missing_s, self._seen_at = (at - self._seen_at).total_seconds(), at
        why, self._trouble = self._trouble or "the metrics page took long to answer", ""
        if missing_s > GAP_S:
            self._file.gap("engine", at, missing_s, why)


class Page:
    """The page with an engine's metrics. That of an endpoint may be any engine's: whoever understands it reads it."""

    def __init__(self, engine: Engine) -> None:
        self.path = engine.metrics_path
        self._foreign = engine.model_form == "none"
        self._readers: Sequence[Engine] = (engine,)
        self._tries = _TRIES

    def read(self, status: int, text: str) -> EngineSample | None:
        """What it says. An endpoint without such a page, or with one that nobody knows, is soon not asked again."""
        if not self._foreign:
            return self._readers[0].metrics(text)
        if len(self._readers) == 1 and status == HTTPStatus.OK:
            self._readers = (*self._readers, *_others(self._readers[0], text))
        for reader in self._readers if status == HTTPStatus.OK else ():
            if sample := reader.metrics(text):
                self._readers, self._foreign = (reader,), False
                return sample
        self._tries -= 1
        if not self._tries:
            self.path = None
        return None


def _others(engine: Engine, text: str) -> list[Engine]:
    """The engines to be asked whether they know a page: those whose names are in it; all, if it has none of them."""
    from runners import registry  # the plug-ins are loaded only if there is a page to understand

    if not _METRIC.search(text):
        return []
    names = [name for name in registry.installed().engines if name != engine.name]
    found = [registry.engine(name) for name in [name for name in names if name in text] or names]
    return [other for other in found if other.metrics_path is not None]

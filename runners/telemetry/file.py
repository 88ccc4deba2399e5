"""telemetry.jsonl: each row once, gaps marked, and never large."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from runners.telemetry.alarms import Alarms
from runners.telemetry.figures import Figures
from runners.telemetry.rows import INTERVAL_S, instant, line_of, read_rows
from runners.telemetry.thinning import thinned_copy

LIMIT_BYTES = 16_000_000
GAP_S = 2.5 * INTERVAL_S
"""Longer than this between two samples is a gap."""
_UNSAMPLED = "no samples were taken: the machine was stopped, or had no time"
_Row = dict[str, Any]


class TelemetryFile:
    """Takes rows whose `at` is on the run's clock. Never raises: what cannot be written is missing, and nothing more.

    A file that another client of the run has written is gone on with. `told` hears each row that is new, `warn` what
    people should know of them.
    """

    def __init__(
        self,
        path: Path,
        told: Callable[[_Row], None] = lambda _: None,
        warn: Callable[[str], None] = lambda _: None,
        *,
        limit_bytes: int | None = LIMIT_BYTES,
    ) -> None:
        self._path, self._told, self._limit = path, told, limit_bytes
        self.warn = warn
        self._alarms = Alarms()
        self._part = path.with_name(path.name + ".part")
        self.figures = Figures()
        self._machine: _Row | None = None
        self._lost: dict[int, str] = {}
        self._number = -1
        self._sampled_at: datetime | None = None
        self._gap_until: datetime | None = None
        self._missing_why = ""
        self._known_until = ""
        self._thinning = False
        self._thread: threading.Thread | None = None
        self._meanwhile: list[bytes] = []
        self._bytes, self._torn = 0, False
        self._join()

    def machine(self, at: datetime, facts: Mapping[str, Any]) -> None:
        """What the machine is; written if that is new."""
        if self._machine != facts:
            self._machine = dict(facts)
            self._add({"at": instant(at), "source": "machine", **facts})

    def host(self, at: datetime, number: int, sample: Mapping[str, Any]) -> None:
        """A sample of the machine. Its number grows; what was heard before is not written again."""
        if number <= self._number:
            return
        since = self._since()
        if since is not None and ((missing_s := (at - since).total_seconds()) > GAP_S or self._missing_why):
            self.gap("host", at, missing_s, self._missing_why or _UNSAMPLED)
        self._number, self._sampled_at, self._gap_until, self._missing_why = number, at, None, ""
        for gpu in [gpu["index"] for gpu in sample.get("gpus", ()) if gpu["index"] in self._lost]:
            uuid = self._lost.pop(gpu) or self._uuid(gpu)
            self._add({"at": instant(at), "source": "back", "gpu": gpu, "uuid": uuid})
        self._add({"at": instant(at), "source": "host", "n": number, **sample})

    def lost(self, at: datetime, gpu: int, uuid: str, why: str) -> None:
        """A GPU does not answer any more."""
        heard_before = self._sampled_at is not None and at < self._sampled_at
        if gpu not in self._lost and not heard_before:
            self._lost[gpu] = uuid = uuid or self._uuid(gpu)
            self._add({"at": instant(at), "source": "lost", "gpu": gpu, "uuid": uuid, "why": why})

    def engine(self, at: datetime, sample: Mapping[str, Any]) -> None:
        """What the engine's page said."""
        self._add({"at": instant(at), "source": "engine", **{name: _plain(value) for name, value in sample.items()}})

    def gap(self, of: str, at: datetime, seconds: float, why: str) -> None:
        """Samples are missing, up to this moment."""
        self._add({"at": instant(at), "source": "gap", "of": of, "seconds": round(seconds, 3), "why": why})

    def told_before(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of the engine is one that an earlier client of this run has written."""
        return instant(datetime.fromisoformat(row["at"])) <= self._known_until

    def unsampled(self, at: datetime, began: datetime, why: str) -> None:
        """The samples of the machine have ended, or never begun. If others come, that is why some are missing."""
        self._missing_why, self._gap_until = why, self._since() or began
        if (missing_s := (at - self._gap_until).total_seconds()) > GAP_S:
            self.gap("host", at, missing_s, why)
            self._gap_until = at

    def remind(self) -> None:
        """Warn of what an earlier client of this run was warned of."""
        for message in self._alarms.told:
            self.warn(message)

    def close(self) -> None:
        """Nothing is left half-done."""
        if self._thread is not None:
            self._thread.join()
            self._take_thinned()

    def _join(self) -> None:
        """See what there is."""
        with suppress(OSError):
            self._part.unlink(missing_ok=True)
        if not self._path.is_file():
            return
        with suppress(OSError):
            with self._path.open("rb") as file:
                self._bytes = file.seek(0, 2)
                file.seek(max(0, self._bytes - 1))
                self._torn = file.read(1) not in (b"", b"\n")
            for row in read_rows(self._path):
                self._know(row)

    def _since(self) -> datetime | None:
        """Until when it is known how the machine was, or that this is not known."""
        known = [at for at in (self._sampled_at, self._gap_until) if at is not None]
        return max(known, default=None)

    def _uuid(self, gpu: int) -> str:
        known = self._machine["gpus"] if self._machine and "gpus" in self._machine else []
        return next((str(one["uuid"]) for one in known if one["index"] == gpu), "")

    def _know(self, row: _Row) -> None:
        self.figures.add(row)
        self._alarms.heard(row)
        match row["source"]:
            case "host":
                self._number, self._sampled_at = int(row["n"]), datetime.fromisoformat(row["at"])
            case "engine":
                self._known_until = max(self._known_until, row["at"])
            case "gap" if row["of"] == "engine":
                self._known_until = max(self._known_until, row["at"])
            case "gap":
                self._gap_until = datetime.fromisoformat(row["at"])
            case "machine":
                self._machine = {name: value for name, value in row.items() if name not in ("at", "source")}
            case "lost":
                self._lost[row["gpu"]] = row["uuid"]
            case "back":
                self._lost.pop(row["gpu"], None)
            case _:
                pass

    def _add(self, row: _Row) -> None:
        row = {name: value for name, value in row.items() if value is not None}
        self.figures.add(row)
        try:
            self._write(line_of(row))
        except OSError:
            self._torn = True
            logging.getLogger(__name__).debug("a row of telemetry could not be written", exc_info=True)
        self._told(row)
        for message in self._alarms.heard(row):
            self.warn(message)

    def _write(self, line: bytes) -> None:
        data = b"\n" + line if self._torn else line
        # Opened for each row, so that nothing is left open however the run ends.
        with self._path.open("ab", buffering=0) as file:
            file.write(data)
        self._torn = False
        self._bytes += len(data)
        if self._thinning:
            self._meanwhile.append(line)
        elif self._limit is not None and self._bytes > self._limit:
            self._thin(self._limit)

    def _thin(self, limit_bytes: int) -> None:
        """Begin to write a smaller file beside this one, which goes on growing until that takes its place."""
        self._thinning, self._meanwhile = True, []
        size = self._bytes

        def work() -> None:
            try:
                thinned_copy(self._path, self._part, whole_bytes=size, limit_bytes=limit_bytes)
            except OSError:
                self._part.unlink(missing_ok=True)

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            work()
            self._take_thinned()
            return

        def away() -> None:
            work()
            with suppress(RuntimeError):  # the loop has ended; `close` sees to it
                loop.call_soon_threadsafe(self._take_thinned)

        self._thread = threading.Thread(target=away, name="telemetry")
        self._thread.start()

    def _take_thinned(self) -> None:
        """The smaller file, with what came meanwhile, takes the place of the other."""
        if not self._thinning:
            return
        self._thinning, self._thread = False, None
        if not self._part.exists():
            self._limit = self._bytes + LIMIT_BYTES // 4 if self._limit is not None else None  # try again later
            return
        try:
            with self._part.open("ab") as file:
                file.writelines(self._meanwhile)
                size = file.tell()
            self._part.replace(self._path)
            self._bytes = size
        except OSError:
            with suppress(OSError):
                self._part.unlink(missing_ok=True)
        self._meanwhile = []


def _plain(value: float | None) -> float | int | None:
    """As short as it can be written without saying less than a thousandth."""
    if value is None or not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else round(value, 4)

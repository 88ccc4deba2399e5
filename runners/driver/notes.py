"""What a driver says, written down at home: rows into the run's files, outputs, what was measured. Each of it once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from provisioners.files import write_whole
from recipes.errors import HostCommandFailed
from runners.answers import rows_of
from runners.drive import Measured
from runners.driver.mirror import FILES
from runners.engine import EngineSample
from runners.events import Answered, Listener
from runners.measurement import Timed
from runners.run_folder import Rows, RunFolder, record_of
from runners.telemetry import TelemetryFile


class Notes:
    """The run's folder, while a driver is heard.

    A driver that is joined is heard from its beginning, and one that was started anew tells again what its folder
    holds: a row that is on disk already is not written again, and one that was heard already does not count again.
    """

    def __init__(
        self,
        folder: RunFolder,
        measured: Measured,
        telemetry: TelemetryFile,
        emit: Listener = lambda _: None,
        *,
        offset_s: float = 0.0,
    ) -> None:
        """Open the files, and see what is in them. Raises OSError.

        The driver's times are moved back by `offset_s`, the same for every client of the run.
        """
        self._folder, self._measured, self._telemetry = folder, measured, telemetry
        self._emit, self._offset_s = emit, offset_s
        self._heard: set[int] = set()
        self._outputs: dict[str, Path] = {}
        rows = rows_of(folder.path / "requests.jsonl", "id", "document", "started_at")
        measured.earlier = tuple(map(record_of, rows))
        paths = {name: folder.path / f"{name}.jsonl" for name in FILES if name != "telemetry"}
        self._known = {name: _digests_in(path) for name, path in paths.items()}
        self._files = {name: Rows(path) for name, path in paths.items()}
        self._log: IO[bytes] = (folder.path / "driver.log").open("ab")
        self.last_words = ""
        """The last line of what it said besides."""

    def row(self, name: str, row: dict[str, Any]) -> None:
        """A row of one of the files. Raises OSError if it cannot be written."""
        row = self._on_our_clock(row)
        digest = _digest(name, json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        if name not in FILES or digest in self._heard:
            return
        self._heard.add(digest)
        if name == "telemetry":
            self._sampled(row)
            return
        if name == "documents":
            path = self._outputs.get(row.get("output", ""))
            if path is None:
                return
            row = {**row, "output": path.name}
            self._measured.outputs.append(path)
        if digest not in self._known[name]:
            self._files[name].append(row)
        if name == "requests":
            record = record_of(row)
            self._measured.records.append(record)
            self._emit(Answered(record))

    def _on_our_clock(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._offset_s:
            for name in ("at", "started_at"):
                if name in row:
                    moment = datetime.fromisoformat(row[name]) - timedelta(seconds=self._offset_s)
                    row = {**row, name: moment.isoformat()}
        return row

    def _sampled(self, row: Mapping[str, Any]) -> None:
        """What the engine's page said there; an earlier client may have written it down."""
        at, known = datetime.fromisoformat(row["at"]), self._telemetry.told_before(row)
        if row["source"] == "engine":
            sample = EngineSample(**{field.name: row.get(field.name) for field in fields(EngineSample)})
            self._measured.metrics.append(Timed(at, sample))
            if not known:
                self._telemetry.engine(at, asdict(sample))
        elif row["source"] == "gap" and not known:
            self._telemetry.gap(row["of"], at, row["seconds"], row["why"])

    def output(self, name: str, text: str) -> None:
        """An output's file: under its own name, or another's if this one holds something else."""
        data = text.encode("utf-8", "replace")
        own = self._folder.outputs / name
        if self._folder.outputs.resolve() not in own.resolve().parents:
            raise HostCommandFailed(f"the driver named an output {name!r}, which leads out of its folder")
        path, number = own, 0
        while path.exists() and path.read_bytes() != data:
            number += 1
            path = own.with_name(f"{own.stem}.{number}{own.suffix}")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        self._outputs[name] = path

    def sums(self, sums: Mapping[str, Any]) -> None:
        """What it did not have to ask for, as far as it is."""
        measured = self._measured
        measured.resumed, measured.concurrency = sums["resumed"], sums["concurrency"]
        for counter, counts in (
            (measured.taken_answers, sums["taken_answers"]),
            (measured.taken_outputs, sums["taken_outputs"]),
        ):
            counter.clear()
            counter.update(counts)

    def besides(self, line: bytes) -> None:
        """What else it says: warnings, and the traceback of one that did not come as far as saying how it ended."""
        self.last_words = line.decode("utf-8", "replace").strip() or self.last_words
        self._log.write(line + b"\n")
        self._log.flush()

    def sync(self) -> None:
        """Put what was written on the disk; takes its time, and may be called from another thread."""
        for file in self._files.values():
            file.sync()

    def close(self) -> None:
        """What was measured is complete, as far as it came home."""
        heard = {(record.id, record.started_at) for record in self._measured.records}
        earlier = self._measured.earlier
        self._measured.earlier = tuple(r for r in earlier if (r.id, r.started_at) not in heard)
        for file in self._files.values():
            file.close()
        self._log.close()


def _digests_in(path: Path) -> set[int]:
    if not path.is_file():
        return set()
    with path.open("rb") as file:
        return {_digest(path.stem, line.rstrip(b"\n")) for line in file}


def _digest(name: str, row: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(row, digest_size=8, key=name.encode()).digest())

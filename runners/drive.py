"""The drive phase: the workload against the engine, watched, every answer on disk before it counts."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

from provisioners.threads import in_thread
from runners.client import Client, Transport
from runners.engine import EngineSample, LogSample
from runners.events import Answered, Driven, Listener, Noted, PageRead
from runners.launch import Running
from runners.measurement import Timed
from runners.plan import Plan
from runners.records import RequestRecord
from runners.run_folder import Earlier, RecordFile, RunFolder
from runners.schedule.concurrency import Concurrency
from runners.schedule.schedule import Schedule
from runners.telemetry import MetricsSampler, TelemetryFile
from runners.thinning import Thinned
from runners.workload import Means

_SHOWN_EVERY_S = 0.1
_SYNCED_EVERY_S = 1.0


@dataclass
class Measured:
    """What a drive leaves behind, also one that was cut short."""

    records: list[RequestRecord] = field(default_factory=list)
    metrics: list[Timed[EngineSample]] = field(default_factory=list)
    log: list[Timed[LogSample]] = field(default_factory=list)
    outputs: list[Path] = field(default_factory=list)
    resumed: int = 0
    """Answers that were on disk already."""
    earlier: tuple[RequestRecord, ...] = ()
    """What earlier clients of this run measured."""
    taken_answers: Counter[str] = field(default_factory=Counter)
    """How many of them another run had, by its id."""
    taken_outputs: Counter[str] = field(default_factory=Counter)
    """How many of the outputs another run had written, by its id."""
    at: Literal["client", "host"] = "client"
    """Where the requests came from."""
    clock_offset_s: float = 0.0
    """By how much the clock there is ahead of this one's, on which all times are."""
    concurrency: dict[str, Any] | None = None
    """How many requests were allowed to be under way at once; None if the workload sees to that itself."""
    telemetry: dict[str, Any] | None = None
    """The figures of the machine's samples and the engine's, as a result has them."""


class DriveRecorder:
    """Takes what the workload yields: to disk, to the measurement, to whoever watches."""

    def __init__(
        self,
        file: RecordFile,
        measured: Measured,
        documents: int,
        emit: Listener,
        usd: Callable[[], float | None],
        earlier: Earlier,
        *,
        identity: str = "",
        outputs: Path | None = None,
    ) -> None:
        self._file, self._measured, self._documents, self._emit, self._usd = file, measured, documents, emit, usd
        self._earlier, self._identity, self._outputs = earlier, identity, outputs
        self._records = Thinned(measured.records)
        self._expected, self._level = 0, 1
        self._prompt_tokens, self._output_tokens = 0, 0
        self._started = time.monotonic()
        self._shown_at = -math.inf
        self.latest_sample: Callable[[], EngineSample | None] = lambda: None
        self.on_record: Callable[[RequestRecord], None] = lambda _: None
        self.unit = "document"

    def answered(self, id: str, key: str) -> str | None:  # noqa: A002
        kept = self._earlier.answers.find(id, key := self._whole(key))
        if kept is None:
            return None
        if kept.run_id != self._earlier.run_id:
            self._file.taken_over(id, key, kept)
            self._measured.taken_answers[kept.run_id] += 1
        self._measured.resumed += 1
        self._changed()
        return kept.text

    def output_of(self, document: str, key: str = "") -> Path | None:
        found = self._earlier.output_of(document, key := self._whole(key))
        if found is None:
            return None
        path = found.path
        if found.run_id != self._earlier.run_id:
            if self._outputs is None:
                return None
            path = linked(path, self._outputs)
            self._file.document_done(document, path, key, taken_from=found.run_id)
            self._measured.taken_outputs[found.run_id] += 1
        self._measured.outputs.append(path)
        self._changed()
        return path

    def record(self, record: RequestRecord, text: str | None, key: str) -> None:
        self._file.write(record, text, self._whole(key))
        self._records.add(record)
        self._level = max(self._level, record.level)
        self._prompt_tokens += record.prompt_tokens
        self._output_tokens += record.output_tokens
        self.on_record(record)
        self._emit(Answered(record))
        self._changed()

    def expect(self, requests: int) -> None:
        self._expected += requests
        self._changed()

    def document_done(self, document: str, output: Path, key: str = "") -> None:
        self._file.document_done(document, output, self._whole(key))
        self._measured.outputs.append(output)
        self._changed()

    def _whole(self, key: str) -> str:
        """With the model that the request does not name in full."""
        return f"{self._identity}-{key}" if key and self._identity else key

    def _changed(self) -> None:
        """Tell who watches, but not of each of very many answers."""
        if time.monotonic() - self._shown_at >= _SHOWN_EVERY_S:
            self.show()

    def show(self) -> None:
        self._shown_at = time.monotonic()
        elapsed = max(self._shown_at - self._started, 1e-3)
        sample = self.latest_sample() or EngineSample()
        self._emit(
            Driven(
                done=len(self._measured.records) + self._measured.resumed,
                expected=self._expected,
                level=self._level,
                documents_done=len(self._measured.outputs),
                documents=self._documents,
                prompt_tokens_per_s=self._prompt_tokens / elapsed,
                output_tokens_per_s=self._output_tokens / elapsed,
                running=sample.running,
                waiting=sample.waiting,
                kv_usage=sample.kv_usage,
                usd=self._usd(),
                unit=self.unit,
            )
        )


async def drive(
    plan: Plan,
    running: Running,
    transport: Transport,
    folder: RunFolder,
    measured: Measured,
    emit: Listener,
    usd: Callable[[], float | None],
    telemetry: TelemetryFile,
) -> None:
    """Do the work. `measured` grows as it goes, so that it holds what there is whatever ends this.

    Raises WorkloadFailed when requests or documents failed, and EngineFailed when the engine ended.
    """
    earlier = await in_thread(folder.earlier)
    measured.earlier = earlier.records
    if others := [run_id for run_id in earlier.held if run_id != folder.run_id]:
        emit(Noted("drive", f"goes on from what {' and '.join(others)} had; recipe up --fresh would not"))
    file = RecordFile(folder)
    recorder = DriveRecorder(
        file,
        measured,
        plan.estimate.documents,
        emit,
        usd,
        earlier,
        identity=plan.identity,
        outputs=folder.outputs,
    )
    recorder.unit = plan.estimate.unit
    settings = plan.recipe.workload
    client = Client(transport, running.endpoint, settings, mask=running.log.mask)
    schedule = Schedule(Concurrency(settings.at_once, start=slots_of(plan)))
    sampler = MetricsSampler(transport, running.endpoint, plan.engine, telemetry)
    recorder.latest_sample = lambda: sampler.samples[-1].sample if sampler.samples else None

    sampler.on_page = lambda page: emit(PageRead(running.log.mask(page)))
    sampler.on_sample, sampler.on_look = recorder.show, schedule.looked
    sampler.look_again_s = lambda: schedule.concurrency.look_again_s
    recorder.on_record, client.on_refused = schedule.answered, schedule.refused
    before = len(running.log.samples)
    syncing = asyncio.create_task(_synced(file))
    try:
        async with sampler:
            means = Means(client, schedule, running.endpoint, folder.outputs, recorder)
            await running.while_alive(plan.workload.drive(plan.prepared, means))
    finally:
        recorder.show()
        syncing.cancel()
        measured.metrics.extend(sampler.samples)
        measured.concurrency = schedule.summary()
        measured.log.extend(running.log.samples[before:])
        earlier.answers.close()
        file.close()


async def _synced(file: RecordFile) -> None:
    """Bring what was written to the disk every second, so that a power cut takes no more; beside the work."""
    while True:
        await asyncio.sleep(_SYNCED_EVERY_S)
        await asyncio.to_thread(file.sync)


def linked(path: Path, folder: Path) -> Path:
    """The file under the first free name in another folder: the same bytes, which outlive the first name."""
    stem = re.sub(r"-\d{4}$", "", path.stem)
    for i in count():
        target = folder / f"{stem}-{i:04d}{path.suffix}"
        try:
            os.link(path, target)
        except FileExistsError:
            continue
        except OSError:  # a file system that knows no links
            part = target.with_name(f".{target.name}.part")
            shutil.copyfile(path, part)
            part.replace(target)
        return target
    raise AssertionError("numbers do not end")


def slots_of(plan: Plan) -> int | None:
    """How many requests of the workload's mean size the engine has room for, as far as the plan knows."""
    memory = plan.memory
    if memory is None or memory.running_at_mean < 1:
        return None
    return min(memory.slots or memory.running_at_mean, memory.running_at_mean) * plan.recipe.engine.data_parallel_size

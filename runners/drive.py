"""The drive phase: the workload against the engine, watched, every answer on disk before it counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from runners.client import Client
from runners.engine import EngineSample, LogSample
from runners.events import Driven, Listener
from runners.launch import Running
from runners.measurement import Timed
from runners.plan import Plan
from runners.records import RequestRecord
from runners.run_folder import Earlier, RecordFile, RunFolder
from runners.schedule.concurrency import Concurrency
from runners.schedule.schedule import Schedule
from runners.telemetry import MetricsSampler
from runners.workload import Means


@dataclass
class Measured:
    """What a drive leaves behind, also one that was cut short."""

    records: list[RequestRecord] = field(default_factory=list)
    metrics: list[Timed[EngineSample]] = field(default_factory=list)
    log: list[Timed[LogSample]] = field(default_factory=list)
    outputs: list[Path] = field(default_factory=list)
    resumed: int = 0
    """Answers that an earlier client of this run had on disk."""
    earlier: tuple[RequestRecord, ...] = ()
    """What that client measured."""


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
    ) -> None:
        self._file, self._measured, self._documents, self._emit, self._usd = file, measured, documents, emit, usd
        self._earlier = earlier
        self._expected, self._level = 0, 1
        self._prompt_tokens, self._output_tokens = 0, 0
        self._started = time.monotonic()
        self.latest_sample: Callable[[], EngineSample | None] = lambda: None

    def answered(self, id: str, key: str) -> str | None:  # noqa: A002
        text = self._earlier.answers.get((id, key))
        if text is not None:
            self._measured.resumed += 1
            self.show()
        return text

    def output_of(self, document: str) -> Path | None:
        path = self._earlier.outputs.get(document)
        if path is not None:
            self._measured.outputs.append(path)
            self.show()
        return path

    def record(self, record: RequestRecord, text: str | None, key: str) -> None:
        self._file.write(record, text, key)
        self._measured.records.append(record)
        self._level = max(self._level, record.level)
        self._prompt_tokens += record.prompt_tokens
        self._output_tokens += record.output_tokens
        self.show()

    def expect(self, requests: int) -> None:
        self._expected += requests
        self.show()

    def document_done(self, document: str, output: Path) -> None:
        self._file.document_done(document, output)
        self._measured.outputs.append(output)
        self.show()

    def show(self) -> None:
        elapsed = max(time.monotonic() - self._started, 1e-3)
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
            )
        )


async def drive(
    plan: Plan,
    running: Running,
    session: aiohttp.ClientSession,
    folder: RunFolder,
    measured: Measured,
    emit: Listener,
    usd: Callable[[], float | None],
) -> None:
    """Do the work. `measured` grows as it goes, so that it holds what there is whatever ends this.

    Raises WorkloadFailed when requests or documents failed, and EngineFailed when the engine ended.
    """
    earlier = folder.earlier()
    measured.earlier = earlier.records
    file = RecordFile(folder)
    recorder = DriveRecorder(file, measured, plan.estimate.documents, emit, usd, earlier)
    settings = plan.recipe.workload
    client = Client(session, running.endpoint, settings, mask=running.log.mask)
    schedule = Schedule(Concurrency(settings.at_once, start=slots_of(plan)))
    sampler = MetricsSampler(session, running.endpoint, plan.engine, folder.path / "telemetry.jsonl")
    recorder.latest_sample = lambda: sampler.samples[-1].sample if sampler.samples else None

    def on_sample() -> None:
        schedule.concurrency.sampled(sampler.samples[-1].sample, schedule.under_way)
        schedule.changed()
        recorder.show()

    sampler.on_sample = on_sample
    before = len(running.log.samples)
    try:
        async with sampler:
            means = Means(client, schedule, running.endpoint, folder.outputs, recorder)
            await running.while_alive(plan.workload.drive(plan.prepared, means))
    finally:
        measured.metrics.extend(sampler.samples)
        measured.log.extend(running.log.samples[before:])
        file.close()


def slots_of(plan: Plan) -> int | None:
    """How many requests of the workload's mean size the engine has room for, as far as the plan knows."""
    memory = plan.memory
    if memory is None or memory.running_at_mean < 1:
        return None
    return min(memory.slots or memory.running_at_mean, memory.running_at_mean) * plan.recipe.engine.data_parallel_size

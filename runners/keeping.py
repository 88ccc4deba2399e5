"""`up --keep`: the engine stays after the work for whoever wants to talk to it, until somebody or a limit ends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from runners.client import open_transport
from runners.engine import EngineSample
from runners.events import Advanced, Listener, Noted
from runners.launch import Running
from runners.run_folder import RunFolder
from runners.telemetry import MetricsSampler, TelemetryFile
from runners.terminal.words import clock_time, dollars

IDLE_S = 1800.0
"""A rented machine that nobody asks anything is kept so long, where the recipe does not say how long."""
_LOOK_S = 1.0


class Idleness:
    """How long nobody has asked the engine anything, from its own counters; what it does not count is not known."""

    def __init__(self, now: float) -> None:
        self._since, self._before = now, EngineSample()

    def seconds(self, sample: EngineSample, now: float) -> float:
        """Since it last worked; each call with its newest state."""
        counted = (sample.prompt_tokens_total, sample.output_tokens_total)
        if sample.running or counted != (self._before.prompt_tokens_total, self._before.output_tokens_total):
            self._since = now
        self._before = sample
        return now - self._since


async def keep(
    running: Running,
    folder: RunFolder,
    until: datetime | None,
    emit: Listener,
    usd: Callable[[], float | None],
    telemetry: TelemetryFile,
) -> None:
    """Return when a limit is reached; being cancelled is the usual end. Raises EngineFailed if the engine ends.

    The machine hears from its client all the while, so that it lets itself go soon after the client is gone.
    """
    if running.process is None:
        emit(Noted("keep", "the endpoint is not this run's own: there is nothing to keep"))
        return
    emit(Noted("keep", _offer(running, folder, until)))
    await running.while_alive(_watched(running, folder, until, emit, usd, telemetry))


async def _watched(
    running: Running,
    folder: RunFolder,
    until: datetime | None,
    emit: Listener,
    usd: Callable[[], float | None],
    telemetry: TelemetryFile,
) -> None:
    plan = running.plan
    limit_s = plan.recipe.limits.idle_duration or (IDLE_S if plan.provisioner.billable else None)
    idle = Idleness(time.monotonic())
    async with (
        open_transport() as transport,
        MetricsSampler(transport, running.endpoint, plan.engine, telemetry) as sampler,
    ):
        while until is None or datetime.now(UTC) < until:
            await asyncio.sleep(_LOOK_S)
            if not sampler.samples:  # nobody can say whether it works
                emit(Advanced("keep", _state(folder, usd(), None)))
                continue
            idle_s = idle.seconds(sampler.samples[-1].sample, time.monotonic())
            del sampler.samples[:-1]
            emit(Advanced("keep", _state(folder, usd(), idle_s)))
            if limit_s is not None and idle_s >= limit_s:
                emit(Noted("keep", f"nobody has asked anything for {clock_time(idle_s)}: letting go"))
                return
    emit(Noted("keep", "its time is over: letting go"))


def _offer(running: Running, folder: RunFolder, until: datetime | None) -> str:
    price = running.plan.offer.usd_per_h
    parts = [
        f"recipe chat {folder.run_id} talks to it",
        f"{dollars(price)}/h" if price else "",
        f"until {until:%H:%M} UTC at the latest" if until else "",
        f"Ctrl-C or recipe down {folder.run_id} ends it",
    ]
    return " · ".join(filter(None, parts))


def _state(folder: RunFolder, usd: float | None, idle_s: float | None) -> str:
    parts = [f"recipe chat {folder.run_id}", dollars(usd), "" if idle_s is None else f"idle {clock_time(idle_s)}"]
    return " · ".join(filter(None, parts))

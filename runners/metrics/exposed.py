"""A run that goes on, as a metrics page has it: hears its events, and says its series whenever somebody asks."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from runners.answers import rows_of
from runners.events import (
    Answered,
    Driven,
    Event,
    LeaseChanged,
    Noted,
    PageRead,
    PhaseEnded,
    PhaseStarted,
    RunEnded,
    RunStarted,
    Sampled,
    Warned,
)
from runners.metrics.passing import sums_of
from runners.metrics.series import Point, points
from runners.metrics.state import TAKEN_OVER, RunState, Told, moment

if TYPE_CHECKING:
    from runners.live import LiveRun

KEPT_S = 300.0
"""How long the sums of a run that has ended stay on a page that goes on; Prometheus looks back so far."""


class ExposedRun:
    """Heard in the run's thread, read in that of the page."""

    def __init__(self, live: LiveRun) -> None:
        self._live, self._lock = live, threading.Lock()
        self._state = RunState(_told(live), live.clock.started_at.timestamp())
        self._page = ""

    def heard(self, event: Event) -> None:
        with self._lock:
            self._hear(event, time.time())

    def read(self) -> tuple[list[Point], str, tuple[str, str]]:
        """Its series now, the engine's own page, and the run's id and recipe."""
        at = time.time()
        with self._lock:
            told = self._state.told
            return list(points(self._state, at)), self._page, (told.run_id, told.recipe)

    @property
    def ended_at(self) -> float | None:
        return self._state.ended_at

    def _hear(self, event: Event, at: float) -> None:
        state = self._state
        state.price_usd_per_h = _price(self._live)
        match event:
            case Answered():
                state.answered(event.record)
            case Sampled():
                state.sampled(event.sample)
            case PageRead():
                self._page = event.text
            case Driven():
                state.documents_done = event.documents_done
            case RunStarted():
                self._started(event)
            case PhaseStarted():
                state.phase_started(event.phase, at)
            case PhaseEnded():
                self._phase_ended(event, at)
            case LeaseChanged():
                state.lease_changed(event.state, at)
            case Noted(phase="provision"):
                state.refused()
            case Warned():
                state.warnings += 1
            case RunEnded():
                state.ended(event.status, at)
                self._page = sums_of(self._page)
            case _:
                pass

    def _started(self, event: RunStarted) -> None:
        """Of a run that is taken over the clock knows by now when it began."""
        self._state.deadline = moment(event.deadline) if event.deadline else None
        self._state.began = self._live.clock.started_at.timestamp()

    def _phase_ended(self, event: PhaseEnded, at: float) -> None:
        """What another client asked for was of use; here it is counted for nothing else."""
        self._state.phase_ended(event.phase, event.seconds, event.usd, at)
        if event.phase != TAKEN_OVER:
            return
        for row in rows_of(self._live.folder.path / "requests.jsonl", "started_at", "e2e_s"):
            begin = moment(row["started_at"])
            self._state.busy.add(begin, begin + row["e2e_s"])


def _told(live: LiveRun) -> Told:
    plan = live.plan
    offer = plan.offer
    return Told(
        run_id=live.folder.run_id,
        recipe=plan.recipe.name,
        model=plan.model.identifier,
        engine=plan.engine.name,
        engine_version=plan.engine_version or "",
        provider=offer.provider,
        accelerators=accelerators(offer.accelerator, offer.count),
        documents=plan.estimate.documents,
        budget_usd=plan.recipe.limits.max_cost,
        price_usd_per_kwh=plan.recipe.resources.price_per_kwh,
    )


def accelerators(name: str | None, count: int) -> str:
    """As a recipe writes them."""
    return f"{name}:{count}" if name else ""


def _price(live: LiveRun) -> float | None:
    """Of the machine and its disks."""
    price = live.clock.price_usd_per_h
    return None if price is None else price + live.clock.storage_usd_per_h

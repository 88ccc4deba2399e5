"""What is known of a run at this moment."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from runners.events import (
    Advanced,
    Answered,
    Driven,
    Event,
    Interrupted,
    LeaseChanged,
    Noted,
    PhaseEnded,
    PhaseStarted,
    RunEnded,
    RunStarted,
    Sampled,
    Warned,
)
from runners.live.left import Expected, Progress, left_s
from runners.live.rates import KEPT_S, Rates
from runners.records import RequestRecord

if TYPE_CHECKING:  # whoever only reads live.json needs none of what makes a run
    from runners.clock import Clock
    from runners.plan import Plan
    from runners.run_folder import RunFolder

LIVE = "live.json"
"""There while a run goes on; nobody needs it afterwards."""
SCHEMA_VERSION = 1
_SHOWN = ("machine", "host", "engine")
_WARNINGS = 5
_LONGEST = 500
"""Characters of a message: who watches has one line for it."""


class LiveRun:
    """Hears every event of a run; whoever wants to know how it stands reads its fields, or its `document`."""

    def __init__(self, plan: Plan, folder: RunFolder, clock: Clock) -> None:
        self.plan, self.folder, self.clock = plan, folder, clock
        self.started: RunStarted | None = None
        self.phase: tuple[str, datetime] | None = None
        """The one that is on, and since when."""
        self.ended_phases: list[PhaseEnded] = []
        self.driven: Driven | None = None
        self.samples: dict[str, dict[str, Any]] = {}
        """The newest row of telemetry of each source."""
        self.history: deque[tuple[datetime, float, float]] = deque(maxlen=KEPT_S)
        """When how many prompt and output tokens had been counted, as the engine's metrics came in."""
        self.rates = Rates()
        self.warnings: deque[str] = deque(maxlen=_WARNINGS)
        self.stopping: Interrupted | None = None
        """The last wish to stop."""
        self.lost_gpus: dict[int, str] = {}
        """Why each is lost that is."""
        self.answers = 0
        self.leased = False
        """Whether something may be billing."""
        self.ended: RunEnded | None = None
        self._notes: dict[str, list[str]] = {}
        self._doing = ""

    def heard(self, event: Event) -> None:
        match event:
            case Answered():
                self.answers += 1
                self.rates.answer(time.time(), event.record.prompt_tokens, event.record.output_tokens)
                self.answered(event.record)
            case Driven():
                self.driven = event
            case Sampled():
                self._sampled(dict(event.sample))
            case Advanced():
                self._doing = event.message
            case Noted():
                self._notes.setdefault(event.phase, []).append(self._told(event.message))
            case _:
                self._turned(event)

    def _turned(self, event: Event) -> None:
        """What seldom happens."""
        match event:
            case RunStarted():
                self.started = event
            case PhaseStarted():
                self.phase, self._doing = (event.phase, datetime.now(UTC)), ""
            case PhaseEnded():
                self.ended_phases.append(event)
                self.phase = None
            case Warned():
                self.warnings.append(self._told(event.message))
            case Interrupted():
                self.stopping = event
            case LeaseChanged():
                self.leased = event.state != "gone"
            case RunEnded():
                self.ended = event
            case _:
                pass

    def answered(self, record: RequestRecord) -> None:
        """For who counts requests; here they are not."""

    def _sampled(self, row: dict[str, Any]) -> None:
        self.samples[row["source"]] = row
        if row["source"] == "engine" and row.get("output_tokens_total") is not None:
            at = datetime.fromisoformat(row["at"])
            counted = (row.get("prompt_tokens_total") or 0.0, row["output_tokens_total"])
            self.history.append((at, *counted))
            self.rates.counters(at, *counted)
        elif row["source"] == "lost":
            self.lost_gpus[row["gpu"]] = self._told(str(row.get("why", "")))
        elif row["source"] == "back":
            self.lost_gpus.pop(row["gpu"], None)

    def _told(self, message: str) -> str:
        """As it may be shown: whatever repeats a secret does not get it further."""
        return self.plan.mask(message)[:_LONGEST]

    def document(self) -> dict[str, Any]:
        """What live.json holds. Instants are UTC; `usd` and `left_s` are as of `at`."""
        plan, now = self.plan, datetime.now(UTC)
        left, spent, rate = self.left_s(now), self.clock.spent_usd(), self.clock.usd_per_h
        return {
            "schema_version": SCHEMA_VERSION,
            "run_id": self.folder.run_id,
            "recipe": plan.recipe.name,
            "tags": list(plan.recipe.tags),
            "pid": os.getpid(),
            "at": _instant(now),
            "started_at": _instant(self.clock.started_at),
            "model": plan.model.identifier,
            "engine": {"name": plan.engine.name, "version": plan.engine_version},
            "machine": self._machine(),
            "phase": self._phase(),
            "phases": [
                {
                    "name": e.phase,
                    "seconds": round(e.seconds, 3),
                    "usd": e.usd,
                    "ok": e.ok,
                    "note": self._told(e.note) or " ∥ ".join(self._notes.get(e.phase, []))[:_LONGEST],
                }
                for e in self.ended_phases
            ],
            "stopping": None if self.stopping is None else {"now": self.stopping.second},
            "usd": spent,
            "price_usd_per_h": self.clock.price_usd_per_h,
            "usd_per_h": rate,
            "billing": self.leased,
            "max_cost_usd": plan.recipe.limits.max_cost,
            "deadline": self.started.deadline if self.started else None,
            "left_s": None if left is None else round(left, 1),
            "usd_at_end": None if left is None or spent is None or rate is None else spent + rate * left / 3600,
            "driven": None if self.driven is None else _fields(self.driven),
            "rates": self.rates.document(now),
            "samples": {source: row for source, row in self.samples.items() if source in _SHOWN},
            "lost_gpus": [{"index": index, "why": why} for index, why in sorted(self.lost_gpus.items())],
            "warnings": list(self.warnings),
        }

    def _machine(self) -> dict[str, Any]:
        """What was asked for first; what came of that is in the provision phase's note."""
        offer = self.plan.offers[0] if self.plan.offers else None
        return {
            "provider": self.plan.provisioner.name,
            "accelerator": offer.accelerator if offer else None,
            "count": offer.count if offer else 0,
            "region": offer.region if offer else None,
        }

    def _phase(self) -> dict[str, Any] | None:
        if self.phase is None:
            return None
        name, since = self.phase
        doing = self._told(self._doing) or " ∥ ".join(self._notes.get(name, []))[:_LONGEST]
        return {"name": name, "started_at": _instant(since), "doing": doing}

    def left_s(self, now: datetime) -> float | None:
        """About how long it still takes, in seconds; None if nobody can say."""
        if self.phase is None or self.stopping is not None:
            return None
        forecast = self.plan.forecast
        phases = [
            Expected(name=p.name, likely_s=p.seconds.likely, high_s=p.seconds.high)
            for p in (forecast.phases if forecast else ())
        ]
        name, since = self.phase
        driven = self.driven
        progress = (
            None
            if driven is None
            else Progress(answered=self.answers or driven.done, done=driven.done, expected=driven.expected)
        )
        ended = [e.phase for e in self.ended_phases]
        return left_s(phases, ended, name, (now - since).total_seconds(), progress)


def _fields(driven: Driven) -> dict[str, Any]:
    return {each.name: getattr(driven, each.name) for each in fields(driven)}


def _instant(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")

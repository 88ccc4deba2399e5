"""A run as it goes on, in one value: for the metrics page, for who watches, and for other processes as live.json."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from runners.clock import Clock
from runners.events import (
    Answered,
    Driven,
    Event,
    PhaseEnded,
    PhaseStarted,
    RunEnded,
    RunStarted,
    Sampled,
    Warned,
)
from runners.plan import Plan
from runners.records import RequestRecord
from runners.run_folder import RunFolder

LIVE = "live.json"
"""There while a run goes on; nobody needs it afterwards."""
SCHEMA_VERSION = 1
_WARNINGS = 5
_HISTORY = 300


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
        self.history: deque[tuple[datetime, float, float]] = deque(maxlen=_HISTORY)
        """When how many prompt and output tokens had been counted, as the engine's metrics came in."""
        self.warnings: deque[str] = deque(maxlen=_WARNINGS)
        self.ended: RunEnded | None = None

    def heard(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.started = event
            case PhaseStarted():
                self.phase = (event.phase, datetime.now(UTC))
            case PhaseEnded():
                self.ended_phases.append(event)
                self.phase = None
            case Driven():
                self.driven = event
            case Sampled():
                self._sampled(dict(event.sample))
            case Answered():
                self.answered(event.record)
            case Warned():
                self.warnings.append(event.message)
            case RunEnded():
                self.ended = event
            case _:
                pass

    def answered(self, record: RequestRecord) -> None:
        """For who counts requests; here they are not."""

    def _sampled(self, row: dict[str, Any]) -> None:
        self.samples[row["source"]] = row
        if row["source"] == "engine":
            counted = (row.get("prompt_tokens_total") or 0.0, row.get("output_tokens_total") or 0.0)
            self.history.append((datetime.fromisoformat(row["at"]), *counted))

    def document(self) -> dict[str, Any]:
        """What live.json holds."""
        plan, now = self.plan, datetime.now(UTC)
        driven = self.driven
        return {
            "schema_version": SCHEMA_VERSION,
            "run_id": self.folder.run_id,
            "recipe": plan.recipe.name,
            "pid": os.getpid(),
            "at": now.isoformat(timespec="milliseconds"),
            "started_at": self.clock.started_at.isoformat(timespec="milliseconds"),
            "model": plan.model.identifier,
            "engine": plan.engine.name,
            "phase": {"name": self.phase[0], "started_at": self.phase[1].isoformat()} if self.phase else None,
            "phases": [
                {"name": e.phase, "seconds": round(e.seconds, 3), "usd": e.usd, "ok": e.ok} for e in self.ended_phases
            ],
            "usd": self.clock.spent_usd(),
            "price_usd_per_h": self.clock.price_usd_per_h,
            "max_cost_usd": plan.recipe.limits.max_cost,
            "deadline": self.started.deadline if self.started else None,
            "driven": None if driven is None else {name: getattr(driven, name) for name in driven.__dataclass_fields__},
            "samples": self.samples,
            "history": [[at.isoformat(timespec="milliseconds"), *counted] for at, *counted in self.history],
            "warnings": list(self.warnings),
        }


class LiveFile:
    """Keeps live.json as new as a second. It is written whole, or not at all, and its loss is nobody's."""

    def __init__(self, live: LiveRun, *, every_s: float = 1.0) -> None:
        self._live, self._every_s = live, every_s
        self._path = live.folder.path / LIVE
        self._written_at = 0.0

    def heard(self, event: Event) -> None:
        if event.lasting or time.monotonic() - self._written_at >= self._every_s:
            self._write()

    def _write(self) -> None:
        self._written_at = time.monotonic()
        part = self._path.with_name(f"{LIVE}.part")
        with suppress(OSError):
            part.write_text(json.dumps(self._live.document()), encoding="utf-8")
            part.replace(self._path)

    def close(self) -> None:
        """The run has ended."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

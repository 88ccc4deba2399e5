"""The phases of a run on one clock: each begins where the one before ended, so that their sum is the run."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

# The phases in which a machine is leased.
LEASED = ("provision", "prepare", "launch", "drive", "collect", "release")


@dataclass(frozen=True)
class PhaseTime:
    name: str
    started_at: datetime
    seconds: float
    usd: float | None

    def row(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "started_at": self.started_at.isoformat(timespec="milliseconds"),
            "seconds": round(self.seconds, 3),
            "usd": None if self.usd is None else round(self.usd, 8),
        }


class Clock:
    """Times phases, and what they cost at the price of the lease."""

    def __init__(self) -> None:
        self.price_usd_per_h: float | None = None
        """Of the lease, once it is known."""
        self._leased = True
        self._mark = time.monotonic()
        self.started_at = datetime.now(UTC)
        self._mark_at = self.started_at
        self.phases: list[PhaseTime] = []

    def end_phase(self, name: str) -> PhaseTime:
        """The phase that ends now; the next begins now."""
        now, at = time.monotonic(), datetime.now(UTC)
        phase = PhaseTime(name, self._mark_at, now - self._mark, self._usd(name, now - self._mark))
        self._mark, self._mark_at = now, at
        self.phases.append(phase)
        return phase

    def nothing_leased(self) -> None:
        """There never was a machine: no phase was billed, and none will be."""
        self._leased = False
        self.phases = [replace(phase, usd=self._usd(phase.name, phase.seconds)) for phase in self.phases]

    def billed_seconds(self) -> float:
        """Of the leased phases that have ended."""
        return sum(phase.seconds for phase in self.phases if self._billed(phase.name))

    def spent_usd(self) -> float | None:
        """So far, the phase that is on included."""
        running = time.monotonic() - self._mark if self.phases else 0.0
        return self._usd("drive", self.billed_seconds() + running)

    def _usd(self, name: str, seconds: float) -> float | None:
        if not self._billed(name):
            return 0.0 if self.price_usd_per_h is not None else None
        return None if self.price_usd_per_h is None else self.price_usd_per_h * seconds / 3600

    def _billed(self, name: str) -> bool:
        return self._leased and name in LEASED

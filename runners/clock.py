"""The phases of a run on one clock: each begins where the one before ended, so that their sum is the run."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class PhaseTime:
    name: str
    started_at: datetime
    seconds: float
    billed_seconds: float
    usd: float | None

    def row(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "started_at": self.started_at.isoformat(timespec="milliseconds"),
            "seconds": round(self.seconds, 3),
            "usd": None if self.usd is None else round(self.usd, 8),
        }


class Clock:
    """Times phases, and what they cost while something is leased."""

    def __init__(self) -> None:
        self.price_usd_per_h: float | None = None
        """Of the lease, once it is known."""
        self._leased_from: float | None = None
        self._leased_until = math.inf
        self._mark = time.monotonic()
        self.started_at = datetime.now(UTC)
        self._mark_at = self.started_at
        self.phases: list[PhaseTime] = []

    def leased(self, at: datetime | None = None) -> None:
        """From now on something may be billing; or from a moment on that another client has seen."""
        self._leased_from = time.monotonic()
        if at is not None:
            ago = max(0.0, (datetime.now(UTC) - at).total_seconds())
            self._leased_from -= ago
            self._mark, self._mark_at, self.started_at = self._mark - ago, at, at

    def released(self, at: datetime | None) -> None:
        """Nothing bills any more since that moment, or since now."""
        ago = max(0.0, (datetime.now(UTC) - at).total_seconds()) if at else 0.0
        self._leased_until = time.monotonic() - ago

    def not_leased(self) -> None:
        """What was asked for was not had: nothing has been billed."""
        self._leased_from = None

    def end_phase(self, name: str) -> PhaseTime:
        """The phase that ends now; the next begins now."""
        now, at = time.monotonic(), datetime.now(UTC)
        billed = self._billed_since(self._mark, now)
        phase = PhaseTime(name, self._mark_at, now - self._mark, billed, self._usd(billed))
        self._mark, self._mark_at = now, at
        self.phases.append(phase)
        return phase

    def billed_seconds(self) -> float:
        """Of the phases that have ended."""
        return sum(phase.billed_seconds for phase in self.phases)

    def spent_usd(self) -> float | None:
        """So far, the phase that is on included."""
        return self._usd(self.billed_seconds() + self._billed_since(self._mark, time.monotonic()))

    def _billed_since(self, begin: float, end: float) -> float:
        if self._leased_from is None:
            return 0.0
        return max(0.0, min(end, self._leased_until) - max(begin, self._leased_from))

    def _usd(self, billed_seconds: float) -> float | None:
        return None if self.price_usd_per_h is None else self.price_usd_per_h * billed_seconds / 3600

"""The phases of a run on one clock: each begins where the one before ended, so that their sum is the run.

Time is kept in whole milliseconds from the run's beginning on, so that what is written down sums up without a rest, and
a wall clock that is set meanwhile moves nothing.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

USD_DIGITS = 10
"""Decimals of a dollar that are kept: enough for a second on the cheapest machine, and few enough to add up exactly."""


@dataclass(frozen=True)
class PhaseTime:
    name: str
    started_at: datetime
    seconds: float
    billed_seconds: float
    usd: float | None
    billed_from: datetime | None = None
    """The first moment of it that was billed; None if nothing was."""

    def row(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "started_at": self.started_at.isoformat(timespec="milliseconds"),
            "seconds": self.seconds,
            "usd": self.usd,
        }


class Clock:
    """Times phases, and what they cost while something is leased."""

    def __init__(self) -> None:
        self.price_usd_per_h: float | None = None
        """Of the lease, once it is known; without its disks."""
        self.storage_usd_per_h = 0.0
        """Of the lease's disks, where they are billed besides."""
        self._leased_from: int | None = None
        self._leased_until: float = math.inf
        self._origin = time.monotonic()
        now = datetime.now(UTC)
        self.started_at = now.replace(microsecond=now.microsecond // 1000 * 1000)
        self._mark = 0
        """Milliseconds from the origin to the end of the last phase."""
        self.phases: list[PhaseTime] = []

    @property
    def ended_at(self) -> datetime:
        """The end of the last phase."""
        return self._at(self._mark)

    @property
    def usd_per_h(self) -> float | None:
        """All that is billed by the hour; None while the price is unknown."""
        return None if self.price_usd_per_h is None else self.price_usd_per_h + self.storage_usd_per_h

    def leased(self, at: datetime | None = None) -> None:
        """From now on something may be billing; or from a moment on that another client has seen."""
        self._leased_from = self._now()
        if at is not None:
            ago = max(0, round((datetime.now(UTC) - at).total_seconds() * 1000))
            # The run began then: what was counted from its beginning on moves on by as much.
            self._origin -= (ago - self._leased_from) / 1000
            self.started_at = at.replace(microsecond=at.microsecond // 1000 * 1000)
            self._leased_from = self._mark = 0

    def released(self, at: datetime | None) -> None:
        """Nothing bills any more since that moment, or since now."""
        ago = max(0.0, (datetime.now(UTC) - at).total_seconds()) if at else 0.0
        self._leased_until = self._now() - round(ago * 1000)

    def not_leased(self) -> None:
        """What was asked for was not had: nothing has been billed."""
        self._leased_from = None

    def end_phase(self, name: str) -> PhaseTime:
        """The phase that ends now; the next begins now."""
        begin, end = self._mark, max(self._mark, self._now())
        billed = self._billed(begin, end)
        since = self._at(max(begin, self._leased_from or 0)) if billed else None
        phase = PhaseTime(name, self._at(begin), (end - begin) / 1000, billed / 1000, self._usd(billed), since)
        self._mark = end
        self.phases.append(phase)
        return phase

    def billed_seconds(self) -> float:
        """Of the phases that have ended."""
        return round(math.fsum(phase.billed_seconds for phase in self.phases), 3)

    def total_usd(self) -> float | None:
        """What the phases that have ended cost together."""
        if self.usd_per_h is None:
            return None
        return round(math.fsum(phase.usd or 0.0 for phase in self.phases), USD_DIGITS)

    def spent_usd(self) -> float | None:
        """So far, the phase that is on included."""
        on = self._usd(self._billed(self._mark, self._now()))
        before = math.fsum(phase.usd or 0.0 for phase in self.phases)
        return None if on is None else before + on

    def _now(self) -> int:
        return round((time.monotonic() - self._origin) * 1000)

    def _at(self, mark: int) -> datetime:
        return self.started_at + timedelta(milliseconds=mark)

    def _billed(self, begin: int, end: int) -> int:
        """Milliseconds."""
        if self._leased_from is None:
            return 0
        return max(0, int(min(end, self._leased_until)) - max(begin, self._leased_from))

    def _usd(self, billed_ms: int) -> float | None:
        return None if self.usd_per_h is None else round(self.usd_per_h * billed_ms / 3_600_000, USD_DIGITS)

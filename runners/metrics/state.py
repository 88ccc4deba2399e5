"""What the series of a run are made of, at one moment. Grows by what happens, heard live or read from its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runners.metrics.histogram import E2E_S, TPOT_S, TTFT_S, Busy, Histogram
from runners.records import RequestRecord
from runners.telemetry.energy import EnergyMeter

PHASES = ("plan", "provision", "prepare", "launch", "drive", "collect", "release")
"""Those of every run; one that was taken over or kept has others besides."""
TAKEN_OVER = "before"
"""What another client has begun: the first phase of the one that goes on, and as long as its machine is there."""


@dataclass(frozen=True)
class Told:
    """What is known of a run before anything is measured."""

    run_id: str
    recipe: str
    model: str = ""
    engine: str = ""
    engine_version: str = ""
    provider: str = ""
    accelerators: str = ""
    documents: int = 0
    budget_usd: float | None = None
    price_usd_per_kwh: float | None = None
    """Of a machine without a price by the hour."""


@dataclass
class RunState:
    """Moments are seconds since 1970. Nothing in it is a share of something that is not over."""

    told: Told
    began: float
    price_usd_per_h: float | None = None
    deadline: float | None = None
    phase: str | None = None
    phase_began: float = 0.0
    phase_seconds: dict[str, float] = field(default_factory=dict)
    """Of those that have ended."""
    phases_usd: float = 0.0
    leased_from: float | None = None
    leased_until: float | None = None
    billed_s: float = 0.0
    """Of the phases that have ended."""
    outcome: str | None = None
    ended_at: float | None = None
    warnings: int = 0
    documents_done: int = 0
    requests: Counter[str] = field(default_factory=lambda: Counter(ok=0, failed=0))
    retried: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    ttft: Histogram = field(default_factory=lambda: Histogram(TTFT_S))
    tpot: Histogram = field(default_factory=lambda: Histogram(TPOT_S))
    e2e: Histogram = field(default_factory=lambda: Histogram(E2E_S))
    busy: Busy = field(default_factory=Busy)
    machine: Mapping[str, Any] = field(default_factory=dict)
    rows: dict[str, tuple[float, Mapping[str, Any]]] = field(default_factory=dict)
    """The newest row of telemetry of each source, and its moment."""
    throttled: dict[Any, dict[str, None]] = field(default_factory=dict)
    """Why each GPU was throttled once, by its index: from then on it is said whether it still is."""
    energy: EnergyMeter = field(default_factory=EnergyMeter)
    requests_host: str | None = None
    """The hostname that the histogram of the requests has; it stays, because with another it would be another.

    Known as soon as the machine is, since a rate needs a zero to begin with.
    """

    def __post_init__(self) -> None:
        self.phase, self.phase_began = "plan", self.began

    def phase_started(self, name: str, at: float) -> None:
        """Each begins where the one before ended."""
        self.phase = name

    def phase_ended(self, name: str, seconds: float, usd: float | None, at: float) -> None:
        if name == TAKEN_OVER:
            self.leased_from = self.phase_began = at - seconds
        self.billed_s += self._billed(self.phase_began, at)
        self.phase_seconds[name] = self.phase_seconds.get(name, 0.0) + seconds
        self.phases_usd += usd or 0.0
        self.phase, self.phase_began = None, at

    def lease_changed(self, state: str, at: float) -> None:
        if state == "intended":
            self.leased_from, self.leased_until = at, None
        elif state == "gone":
            self.leased_until = at

    def refused(self) -> None:
        """What was asked for was not had: nothing has been billed."""
        self.leased_from = None

    def answered(self, record: RequestRecord) -> None:
        self.requests[record.status] += 1
        self.retried += record.tries > 1
        self.prompt_tokens += record.prompt_tokens
        self.cached_tokens += record.cached_tokens
        self.output_tokens += record.output_tokens
        if self.requests_host is None:
            self.requests_host = str(self.machine.get("hostname") or "")
        begin = record.started_at.timestamp()
        self.busy.add(begin, begin + record.e2e_s)
        if record.status != "ok":
            return
        self.e2e.observe(record.e2e_s)
        if record.ttft_s is not None:
            self.ttft.observe(record.ttft_s)
        if record.tpot_s is not None:
            self.tpot.observe(record.tpot_s)

    def sampled(self, row: Mapping[str, Any]) -> None:
        source = row.get("source")
        if self.told.price_usd_per_kwh is not None and source in ("host", "gap"):
            self.energy.add(row)
        if source == "machine":
            self.machine = row
            if self.requests_host is None and row.get("hostname"):
                self.requests_host = str(row["hostname"])
        elif source in ("host", "engine"):
            self.rows[source] = (moment(row["at"]), row)
            for gpu in row.get("gpus") or ():
                for reason in gpu.get("throttle") or ():
                    self.throttled.setdefault(gpu.get("index"), {})[str(reason)] = None

    def ended(self, status: str, at: float) -> None:
        self.outcome, self.ended_at = status, at

    def seconds_in(self, at: float) -> dict[str, float]:
        """Of each phase, the one that is on as far as it has come."""
        seconds = dict(self.phase_seconds)
        if self.phase is not None:
            seconds[self.phase] = seconds.get(self.phase, 0.0) + max(0.0, at - self.phase_began)
        return seconds

    def billed_seconds(self, at: float) -> float:
        return self.billed_s + (self._billed(self.phase_began, at) if self.outcome is None else 0.0)

    def cost_usd(self, at: float) -> float | None:
        """So far: the phases that have ended as they were booked, and the one that is on by the price.

        Without a price by the hour, what its electricity costs, as far as anybody has told of it.
        """
        if self.price_usd_per_h is None:
            return self._energy_usd()
        now = self._billed(self.phase_began, at) if self.outcome is None else 0.0
        return self.phases_usd + self.price_usd_per_h * now / 3600

    def _energy_usd(self) -> float | None:
        found, price = self.energy.energy(), self.told.price_usd_per_kwh
        if found is None or price is None:
            return None
        return ((found.gpu_wh or 0.0) + (found.cpu_wh or 0.0)) / 1000 * price

    def _billed(self, begin: float, end: float) -> float:
        if self.leased_from is None:
            return 0.0
        until = end if self.leased_until is None else min(end, self.leased_until)
        return max(0.0, until - max(begin, self.leased_from))


def moment(text: str) -> float:
    """Of a time as the run's files have it."""
    return datetime.fromisoformat(text).timestamp()

"""A machine that may be billing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from provisioners.contract import Lease

Client = Literal["running", "gone", "elsewhere"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A lease that may be billing."""

    lease: Lease
    client: Client
    """Whether the run's client lives on this machine, has gone, or was never seen here."""
    state: str
    since: datetime | None = None
    until: datetime | None = None
    """When it went by itself, of one that was not let go: nothing is billed after that."""
    driver: bool = False
    """Whether its run's work was given to a driver on it, which goes on alone."""
    held_by: str | None = None
    """The stack that keeps it until its deadline, whether anybody uses it or not."""
    backend: str | None = None
    """Where that stack's state lies, if not in the backend of now: there the command that names the stack finds it."""

    def usd(self, now: datetime) -> float | None:
        """What it has cost so far by our own count."""
        price = self.lease.usd_per_h
        if price is None or self.since is None:
            return None
        return price * max(0.0, ((self.until or now) - self.since).total_seconds()) / 3600

    def row(self) -> dict[str, Any]:
        lease, now = self.lease, datetime.now(UTC)
        return {
            "run_id": lease.run_id,
            "name": lease.name,
            "provider": lease.provider,
            "id": lease.id,
            "state": self.state,
            "client": self.client,
            "driver": self.driver,
            "held_by": self.held_by,
            "backend": self.backend,
            "price_usd_per_h": lease.price_usd_per_h,
            "since": self.since.isoformat(timespec="seconds") if self.since else None,
            "until": self.until.isoformat(timespec="seconds") if self.until else None,
            "usd": self.usd(now),
            "deadline": lease.deadline.isoformat(timespec="seconds") if lease.deadline else None,
        }

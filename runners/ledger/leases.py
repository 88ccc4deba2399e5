"""What leases have cost by now, where no result says it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from provisioners.guarded import gone_since
from provisioners.journal import Entry
from provisioners.journal import Journal as Journal


def so_far(entries: Iterable[Entry], now: datetime, *, since: datetime | None = None) -> dict[str, float]:
    """What the leases have cost by now in dollars, or from `since` on: by run, as far as their prices are known."""
    usd: dict[str, float] = {}
    for entry in entries:
        begin, price = entry.asked_at, entry.lease.usd_per_h
        if begin is None or price is None:
            continue
        end = (gone_since(entry.lease) or now) if entry.open else entry.changed_at
        seconds = (end - (max(begin, since) if since else begin)).total_seconds()
        usd[entry.lease.run_id] = usd.get(entry.lease.run_id, 0.0) + price * max(0.0, seconds) / 3600
    return usd

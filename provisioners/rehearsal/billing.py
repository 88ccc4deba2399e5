"""The bill of pods, in time buckets, from the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from provisioners.rehearsal.clock import rfc3339
from provisioners.rehearsal.ledger import Ledger, Span
from provisioners.rehearsal.problems import Problem

SIZES = ("hour", "day", "week", "month", "year")
_DEFAULT_DAYS = 30
_MOST_BUCKETS = 10_000


@dataclass(frozen=True)
class Query:
    """A resolved window, on boundaries of its buckets."""

    size: str
    start: datetime
    end: datetime
    pod: str | None


def read_query(given: Mapping[str, str], now: datetime) -> Query:
    """Raises Problem: 422 for a form, 400 for a combination."""
    size = given.get("bucketSize", "day")
    if size not in SIZES:
        raise Problem(422, "Request validation failed.", errors=[f"bucketSize: must be one of {', '.join(SIZES)}"])
    if "lastN" in given:
        if "startTime" in given or "endTime" in given:
            raise Problem(400, "lastN and startTime/endTime are mutually exclusive")
        if not given["lastN"].isdigit() or int(given["lastN"]) < 1:
            raise Problem(422, "Request validation failed.", errors=["lastN: must be an integer of at least 1"])
        start = floor(now, size)
        for _ in range(int(given["lastN"]) - 1):
            start = floor(start - timedelta(microseconds=1), size)
        return Query(size, start, following(floor(now, size), size), given.get("podId"))
    end = _instant(given, "endTime", now)
    start = floor(_instant(given, "startTime", now - timedelta(days=_DEFAULT_DAYS)), size)
    last = floor(end, size)
    return Query(size, start, end if last == end else following(last, size), given.get("podId"))


def answer(ledger: Ledger, query: Query, *, until: float) -> dict[str, Any]:
    """Records per pod and bucket; money that was spent after `until` is not there yet."""
    spans: dict[str, list[Span]] = {}
    for span in ledger.spans(query.pod):
        spans.setdefault(span.pod, []).append(span)
    records: list[dict[str, Any]] = []
    for start, end in _buckets(query):
        for pod, its in spans.items():
            amounts = _amounts(ledger, its, start.timestamp(), min(end.timestamp(), until))
            if amounts["totalAmount"]:
                window = {"startTime": rfc3339(start.timestamp()), "endTime": rfc3339(end.timestamp())}
                records.append({**window, "podId": pod, **amounts})
    totals = {name: sum(record[name] for record in records) for name in _NOTHING}
    window = {"startTime": rfc3339(query.start.timestamp()), "endTime": rfc3339(query.end.timestamp())}
    return {
        "records": records,
        "metadata": {
            "query": {**window, "bucketSize": query.size, "podId": query.pod},
            "recordCount": len(records),
            "uniquePodCount": len({record["podId"] for record in records}),
            "totals": totals,
        },
    }


def floor(instant: datetime, size: str) -> datetime:
    """The beginning of the bucket in which an instant lies."""
    hour = instant.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    return {
        "hour": hour,
        "day": day,
        "week": day - timedelta(days=day.weekday()),
        "month": day.replace(day=1),
        "year": day.replace(month=1, day=1),
    }[size]


def following(start: datetime, size: str) -> datetime:
    """The beginning of the next bucket."""
    longest = {"hour": 1 / 24, "day": 1, "week": 7, "month": 31, "year": 366}[size]
    return floor(start + timedelta(days=longest), size)


_NOTHING = {"totalAmount": 0.0, "gpuAmount": 0.0, "cpuAmount": 0.0, "diskAmount": 0.0}


def _buckets(query: Query) -> Iterable[tuple[datetime, datetime]]:
    start = query.start
    for _ in range(_MOST_BUCKETS):
        if start >= query.end:
            return
        end = following(start, query.size)
        yield start, end
        start = end


def _amounts(ledger: Ledger, spans: Iterable[Span], start: float, end: float) -> dict[str, float]:
    amounts = dict(_NOTHING)
    for span in spans:
        hours = ledger.seconds(max(start, span.start), end if span.until is None else min(end, span.until)) / 3600
        amounts["gpuAmount"] += hours * span.rates.gpu_usd_per_h
        amounts["diskAmount"] += hours * span.rates.disk_usd_per_h
    amounts["totalAmount"] = amounts["gpuAmount"] + amounts["diskAmount"]
    return amounts


def _instant(given: Mapping[str, str], name: str, default: datetime) -> datetime:
    if name not in given:
        return default
    try:
        instant = datetime.fromisoformat(given[name])
    except ValueError:
        raise Problem(422, "Request validation failed.", errors=[f"{name}: must be an RFC 3339 time"]) from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)

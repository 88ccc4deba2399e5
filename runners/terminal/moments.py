"""Moments as people write them: 2026-11, 2026-11-01, 2026-11-01T12:00, today, yesterday, 12h, 7d."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_AGO = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*([mhdw])(?: ago)?")
_MONTH = re.compile(r"\d{4}-\d{2}")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime) -> datetime | None:
    """What the text says, in UTC if it names no time zone; a span means so long before now. None if it is no time."""
    word = text.strip().lower()
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if word in ("today", "yesterday"):
        return midnight - timedelta(days=word == "yesterday")
    try:
        if ago := _AGO.fullmatch(word):
            return now - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
        at = datetime.fromisoformat(f"{word}-01" if _MONTH.fullmatch(word) else text.strip())
    except (ValueError, OverflowError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)

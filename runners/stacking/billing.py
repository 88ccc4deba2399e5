"""What of a stack bills, and what a change ends, as data: people and scripts are told the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Billing:
    """What bills until its stack is destroyed, as of the stack's last update."""

    what: str
    """In a few words, with its price."""
    id: str
    usd_per_h: float | None = None
    usd_per_month: float | None = None
    until: datetime | None = None
    """When it ends by itself."""
    gone: str = ""
    """The proof that it has ended meanwhile, where this machine has one."""
    way_out: str = ""
    """What ends it where Pulumi is of no help."""

    @property
    def over(self) -> bool:
        """Whether it has ended: let go, or by itself."""
        return bool(self.gone) or (self.until is not None and self.until <= datetime.now(UTC))

    def __str__(self) -> str:
        return f"nothing: {self.what} is gone: {self.gone}" if self.gone else self.what

    def data(self) -> dict[str, Any]:
        """For --json."""
        return {
            "what": self.what,
            "id": self.id,
            "usd_per_h": self.usd_per_h,
            "usd_per_month": self.usd_per_month,
            "until": self.until.astimezone(UTC).isoformat(timespec="seconds") if self.until else None,
        }


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """Why a change replaces something."""

    because: tuple[str, ...]
    """What differs, in the recipe's own words, such as "resources.accelerators A40:1 → L40S:1"."""
    ends: str
    """What is deleted for it."""

    def lines(self) -> Iterator[tuple[str, str]]:
        """Each with its label."""
        yield from (("because" if i == 0 else "", line) for i, line in enumerate(self.because))
        yield "ends", self.ends


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Where two plain mappings differ: the path, the value of before and that of now; None where there is none."""
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) or isinstance(new, Mapping):
            inner = differences(old or {}, new or {})
            yield from ((f"{key}.{path}", earlier, later) for path, earlier, later in inner)
        elif old != new:
            yield key, old, new

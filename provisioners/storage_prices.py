"""What providers take for disks, where their catalogue tells no price of them.

The prices stand in storage_prices.csv, with the day on which they were seen and where. Nobody asks the provider for
them, so they are assumed; its bill, once it is there, stands beside what was counted with them.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TABLE = Path(__file__).with_suffix(".csv")
_HOURS_PER_MONTH = 365 * 24 / 12


@dataclass(frozen=True, kw_only=True)
class StoragePrice:
    """Of a gigabyte (10⁹ bytes) of one kind of disk: while the machine runs, or always, if it outlives machines."""

    usd_per_gb_month: float
    seen_on: str
    source: str

    @property
    def usd_per_gb_h(self) -> float:
        return self.usd_per_gb_month / _HOURS_PER_MONTH


@cache
def storage_prices(provider: str) -> Mapping[str, StoragePrice]:
    """By the kind of disk; empty for a provider that the table does not have."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        return {
            row["kind"]: StoragePrice(
                usd_per_gb_month=float(row["usd_per_gb_month"]), seen_on=row["seen_on"], source=row["source"]
            )
            for row in csv.DictReader(file)
            if row["provider"] == provider
        }

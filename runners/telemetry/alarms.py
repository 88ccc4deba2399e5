"""What in the rows of telemetry people should be warned of: GPUs that are lost, and those that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

_MOST = 3
"""Of a GPU that goes and comes back again and again, so many losses are told."""


class Alarms:
    """Takes the rows in their order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        """Every sentence so far."""
        self._lost_at: dict[int, datetime] = {}
        self._losses: dict[int, int] = {}

    def heard(self, row: Mapping[str, Any]) -> list[str]:
        """Sentences that are new with this row."""
        if row["source"] not in ("machine", "lost", "back"):
            return []
        said = [message for message in self._said(row) if message not in self.told]
        self.told += said
        return said

    def _said(self, row: Mapping[str, Any]) -> list[str]:
        at = datetime.fromisoformat(row["at"])
        if row["source"] == "machine":
            why = row.get("gpus_unknown")
            return [f"NVIDIA's driver is there but could not be asked, so GPUs are not sampled: {why}"] if why else []
        gpu = row["gpu"]
        if row["source"] == "lost":
            self._lost_at[gpu] = at
            self._losses[gpu] = self._losses.get(gpu, 0) + 1
            return self._of_loss(gpu, at, row)
        since = self._lost_at.pop(gpu, at)
        if self._losses.get(gpu, 0) > _MOST:
            return []
        return [f"GPU {gpu} is back: it was lost for {(at - since).total_seconds():,.0f} s, and is sampled again"]

    def _of_loss(self, gpu: int, at: datetime, row: Mapping[str, Any]) -> list[str]:
        if self._losses[gpu] > _MOST:
            return [f"GPU {gpu} goes on being lost and coming back; telemetry.jsonl has each time"]
        name = f" ({row['uuid']})" if row.get("uuid") else ""
        return [f"GPU {gpu}{name} was lost at {at:%H:%M:%S} UTC: {row['why']}"]

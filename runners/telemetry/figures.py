"""What telemetry comes to: the figures of a run's result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runners.telemetry.energy import Energy as Energy
from runners.telemetry.energy import EnergyMeter
from runners.telemetry.energy import energy as energy
from runners.telemetry.rows import INTERVAL_S

MOST_GAPS = 200
"""So many gaps are listed at most, the longest; all are counted."""


@dataclass
class _Spread:
    """The mean over time and the highest of what was sampled."""

    _sum: float = 0.0
    _seconds: float = 0.0
    _max: float | None = None

    def add(self, value: float | None, seconds: float) -> None:
        if value is not None:
            self._sum += value * seconds
            self._seconds += seconds
            self._max = value if self._max is None else max(self._max, value)

    def row(self, digits: int) -> dict[str, float | None]:
        return {
            "mean": round(self._sum / self._seconds, digits) if self._seconds else None,
            "max": self._highest(digits),
        }

    def highest(self, digits: int) -> dict[str, float | None]:
        return {"max": self._highest(digits)}

    def _highest(self, digits: int) -> float | None:
        return None if self._max is None else round(self._max, digits)


@dataclass
class _Gpu:
    uuid: str | None = None
    name: str | None = None
    utilization: _Spread = field(default_factory=_Spread)
    memory_used_mib: _Spread = field(default_factory=_Spread)
    power_w: _Spread = field(default_factory=_Spread)
    temperature_c: _Spread = field(default_factory=_Spread)
    throttled_s: dict[str, float] = field(default_factory=dict)
    lost_at: str | None = None
    """When it was lost last."""
    back_at: str | None = None
    """Since when it has been there again."""

    def add(self, sample: Mapping[str, Any], seconds: float) -> None:
        for name in ("utilization", "memory_used_mib", "power_w", "temperature_c"):
            getattr(self, name).add(sample.get(name), seconds)
        for reason in sample.get("throttle", ()):
            self.throttled_s[reason] = self.throttled_s.get(reason, 0.0) + seconds


class Figures:
    """Takes the rows of telemetry.jsonl in their order, each as it comes: what is thinned out later counts in full."""

    def __init__(self) -> None:
        self._samples: dict[str, int] = {}
        self._gaps: list[dict[str, Any]] = []
        self._cpu, self._ram = _Spread(), _Spread()
        self._gpus: dict[int, _Gpu] = {}
        self._at: datetime | None = None
        self._meter = EnergyMeter()

    def add(self, row: Mapping[str, Any]) -> None:
        source = row["source"]
        self._samples[source] = self._samples.get(source, 0) + 1
        self._meter.add(row)
        match source:
            case "host":
                self._host(row)
            case "machine":
                for gpu in row.get("gpus", ()):
                    known = self._gpu(gpu["index"])
                    known.uuid, known.name = gpu.get("uuid"), gpu.get("name")
            case "gap":
                self._gap(row)
            case "lost":
                lost = self._gpu(row["gpu"])
                lost.lost_at, lost.back_at = row["at"], None
            case "back":
                self._gpu(row["gpu"]).back_at = row["at"]
            case _:
                pass

    def energy(self) -> Energy | None:
        """As `energy` has it of all rows."""
        return self._meter.energy()

    def row(self) -> dict[str, Any] | None:
        """The `telemetry` of a result; None if nothing was sampled."""
        if not self._samples:
            return None
        return {
            "interval_s": INTERVAL_S,
            "samples": dict(self._samples),
            "gaps": sorted(self._gaps, key=lambda gap: str(gap["at"])),
            "cpu": self._cpu.row(4),
            "ram_used_mib": self._ram.row(1),
            "gpus": [self._gpu_row(index, gpu) for index, gpu in sorted(self._gpus.items())],
        }

    def _host(self, row: Mapping[str, Any]) -> None:
        at = datetime.fromisoformat(row["at"])
        # A sample stands for the time since the one before; the first, and the first after a gap, for an interval.
        seconds = max(0.0, (at - self._at).total_seconds()) if self._at is not None else INTERVAL_S
        self._at = at
        self._cpu.add(row.get("cpu"), seconds)
        self._ram.add(row.get("ram_used_mib"), seconds)
        for gpu in row.get("gpus", ()):
            self._gpu(gpu["index"]).add(gpu, seconds)

    def _gap(self, row: Mapping[str, Any]) -> None:
        if row["of"] == "host":
            self._at = None
        self._gaps.append({name: row[name] for name in ("at", "of", "seconds", "why")})
        if len(self._gaps) > MOST_GAPS:
            self._gaps.remove(min(self._gaps, key=lambda gap: float(gap["seconds"])))

    def _gpu(self, index: int) -> _Gpu:
        return self._gpus.setdefault(index, _Gpu())

    def _gpu_row(self, index: int, gpu: _Gpu) -> dict[str, Any]:
        watt_hours = self._meter.gpu_wh(index)
        return {
            "index": index,
            "uuid": gpu.uuid,
            "name": gpu.name,
            "utilization": gpu.utilization.row(4),
            "memory_used_mib": gpu.memory_used_mib.row(1),
            "power_w": gpu.power_w.row(1),
            "energy_wh": None if watt_hours is None else round(watt_hours, 6),
            "energy_seconds": round(self._meter.gpu_seconds(index), 3),
            "temperature_c": gpu.temperature_c.highest(1),
            "throttled_seconds": {reason: round(s, 3) for reason, s in sorted(gpu.throttled_s.items())},
            "lost_at": gpu.lost_at,
            "back_at": gpu.back_at,
        }

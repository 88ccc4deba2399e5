"""How much energy a machine took, from its samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_J_PER_WH = 3600.0


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What the GPUs and the CPU packages took between the first sample and the last."""

    gpu_wh: float | None
    """None if no GPU tells its power."""
    cpu_wh: float | None
    """None if the CPU does not tell (RAPL, which most rented machines hide)."""
    covered_seconds: float
    """Of how much time this is known; less than the run by boot, letting go and gaps.

    Where only some GPUs of the machine told, their share of the time counts.
    """
    source: str
    """How it was measured: "gpu counter", "gpu power" (integrated) and "rapl", those that there are, joined by +."""


def energy(rows: Iterable[Mapping[str, Any]]) -> Energy | None:
    """Of the rows of telemetry.jsonl; None if nothing in them tells of energy."""
    meter = EnergyMeter()
    for row in rows:
        meter.add(row)
    return meter.energy()


class EnergyMeter:
    """Adds up rows in their order.

    A counter's difference counts, also across a gap. Where there is only power, the mean of two samples is taken for
    the time between them (the trapezoidal rule), but not across a gap, of which nobody knows anything.
    """

    def __init__(self) -> None:
        self._at: datetime | None = None
        self._gap = False
        self._cpu: float | None = None
        self._before: dict[int, Mapping[str, Any]] = {}
        self._gpu_j: dict[int, float] = {}
        self._gpu_s: dict[int, float] = {}
        """For how long each GPU's energy is known."""
        self._there: set[int] = set()
        """Every GPU that was heard of."""
        self._cpu_j: float | None = None
        self._covered_s = 0.0
        self._ways: set[str] = set()

    def add(self, row: Mapping[str, Any]) -> None:
        if row["source"] == "gap" and row.get("of") == "host":
            self._gap = True
        elif row["source"] == "lost":
            self._there.add(row["gpu"])
        elif row["source"] == "machine":
            self._there.update(gpu["index"] for gpu in row.get("gpus", ()))
        elif row["source"] == "host":
            at = datetime.fromisoformat(row["at"])
            seconds = (at - self._at).total_seconds() if self._at else 0.0
            if seconds > 0:
                self._there.update(gpu["index"] for gpu in row.get("gpus", ()))
                told = sum([self._gpu(gpu, seconds) for gpu in row.get("gpus", ())])
                share = 1.0 if self._package(row.get("cpu_energy_j")) else 0.0
                self._covered_s += seconds * (told / len(self._there) if self._gpu_j else share)
            self._at, self._gap = at, False
            self._cpu = row.get("cpu_energy_j")
            self._before = {gpu["index"]: gpu for gpu in row.get("gpus", ())}

    def gpu_wh(self, index: int) -> float | None:
        """Of one GPU."""
        joules = self._gpu_j.get(index)
        return None if joules is None else joules / _J_PER_WH

    def gpu_seconds(self, index: int) -> float:
        """For how long one GPU's energy is known."""
        return self._gpu_s.get(index, 0.0)

    def energy(self) -> Energy | None:
        if not self._ways:
            return None
        return Energy(
            gpu_wh=sum(self._gpu_j.values()) / _J_PER_WH if self._gpu_j else None,
            cpu_wh=None if self._cpu_j is None else self._cpu_j / _J_PER_WH,
            covered_seconds=round(self._covered_s, 3),
            source="+".join(sorted(self._ways)),
        )

    def _gpu(self, gpu: Mapping[str, Any], seconds: float) -> bool:
        before = self._before.get(gpu["index"], {})
        joules, way = _grown(before.get("energy_j"), gpu.get("energy_j")), "gpu counter"
        if joules is None and not self._gap and "power_w" in before and "power_w" in gpu:
            joules, way = (before["power_w"] + gpu["power_w"]) / 2 * seconds, "gpu power"
        if joules is None:
            return False
        self._gpu_j[gpu["index"]] = self._gpu_j.get(gpu["index"], 0.0) + joules
        self._gpu_s[gpu["index"]] = self._gpu_s.get(gpu["index"], 0.0) + seconds
        self._ways.add(way)
        return True

    def _package(self, now: float | None) -> bool:
        joules = _grown(self._cpu, now)
        if joules is None:
            return False
        self._cpu_j = (self._cpu_j or 0.0) + joules
        self._ways.add("rapl")
        return True


def _grown(before: float | None, now: float | None) -> float | None:
    """By how much a counter grew; None if it is not known, or began anew."""
    return None if before is None or now is None or now < before else now - before

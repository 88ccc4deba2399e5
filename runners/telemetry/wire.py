"""What the sampler on a machine says (`onhost/sample_host.py`), read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SHARES = ("utilization", "memory_utilization")
_REASONS = {
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}
"""NVML's reasons why clocks are below their highest, by their bits (nvmlClocksEventReasons)."""


@dataclass(frozen=True)
class Facts:
    at: float
    facts: dict[str, Any]


@dataclass(frozen=True)
class Lost:
    at: float
    gpu: int
    uuid: str
    why: str


@dataclass(frozen=True)
class Sample:
    number: int
    at: float
    """Seconds since the epoch on the machine's clock."""
    values: dict[str, Any]


class Wire:
    """Reads its lines in their order: each tells what has changed since the one before."""

    def __init__(self) -> None:
        self._fields: Sequence[str] = ()
        self._gpu_fields: Sequence[str] = ()
        self._before: dict[str, list[str]] = {}

    def read(self, line: bytes) -> Facts | Lost | Sample | None:
        """What a line says; None for one that is no line of the sampler, such as what Python says when it fails."""
        try:
            if not line.startswith(b"{"):
                return self._sample(line.decode())
            said = json.loads(line)
            if "facts" in said:  # it begins, or has begun anew
                self._fields, self._gpu_fields, self._before = said["fields"], said["gpu_fields"], {}
                facts = {name: value for name, value in said["facts"].items() if value is not None}
                facts["gpus"] = [{k: v for k, v in gpu.items() if v is not None} for gpu in facts.get("gpus", ())]
                return Facts(float(said["at"]), facts)
            return Lost(float(said["at"]), int(said["lost"]), str(said["uuid"]), str(said["why"]))
        except (ValueError, KeyError, TypeError, IndexError):
            return None

    def _sample(self, line: str) -> Sample:
        """Raises ValueError, KeyError, IndexError."""
        whole, *gpus = line.split(";")
        number, at, *said = whole.split(",")
        values = self._restored("", said, self._fields)
        if gpus:
            values["gpus"] = [self._gpu(gpu) for gpu in gpus]
        return Sample(int(number), float(at), values)

    def _gpu(self, said: str) -> dict[str, Any]:
        index, *parts = said.split(",")
        known = self._restored(index, parts, self._gpu_fields)
        for name in _SHARES:
            if name in known:
                known[name] = round(known[name] / 100, 4)
        if "throttle" in known:
            known["throttle"] = [name for bit, name in _REASONS.items() if known["throttle"] & bit]
        return {"index": int(index), **known}

    def _restored(self, whose: str, said: list[str], names: Sequence[str]) -> dict[str, Any]:
        """With what has not changed; without what is unknown."""
        if len(said) != len(names):
            raise ValueError("not a sample")
        before = self._before.get(whose)
        now = [new or before[i] for i, new in enumerate(said)] if before else said
        self._before[whose] = now
        return {name: _number(text) for name, text in zip(names, now, strict=True) if text not in ("", "-")}


def _number(text: str) -> float | int:
    value = float(text)
    return int(value) if value.is_integer() else value

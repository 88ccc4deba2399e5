"""Network volumes: they outlive pods and the emulator, and bill until they are deleted."""

from __future__ import annotations

import json
import secrets
import shutil
import string
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

from provisioners.rehearsal import catalogue
from provisioners.rehearsal.faults import Mishaps
from provisioners.rehearsal.ledger import HOURS_PER_MONTH
from provisioners.rehearsal.pods import Workshop
from provisioners.rehearsal.problems import AnswerLost, Problem

USD_PER_GB_MONTH, USD_PER_FURTHER_GB_MONTH, FIRST_GB = 0.07, 0.05, 1000
"""Of the first terabyte, and of what lies above."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A network volume."""

    id: str
    name: str
    size_gb: int
    data_center: str
    type: str
    created_at: float = 0.0


def new_id(length: int = 14) -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(length))


class Volumes:
    """All of the account's."""

    def __init__(self, shop: Workshop, mishaps: Mishaps, mounted: Callable[[], set[str]]) -> None:
        """`mounted` names those that pods have now."""
        self._shop, self._mishaps, self._mounted = shop, mishaps, mounted
        self._file = shop.root / "volumes.json"
        kept = json.loads(self._file.read_text()) if self._file.exists() else []
        self._there = {volume["id"]: Volume(**volume) for volume in kept}
        self._gone: list[tuple[Volume, float]] = []
        """With the instant of their deletion."""

    def __iter__(self) -> Iterator[Volume]:
        return iter(list(self._there.values()))

    def get(self, volume_id: str) -> Volume | None:
        return self._there.get(volume_id)

    def listed(self) -> list[Volume]:
        """What a list shows now."""
        clock, faults = self._shop.clock, self._mishaps.faults
        lag, gone_lag = faults.volume_list_lag_s, faults.volume_list_lag_gone_s
        shown = [volume for volume in self if not (lag and clock.lasts(lag, volume.created_at))]
        return shown + [volume for volume, at in self._gone if gone_lag and clock.lasts(gone_lag, at)]

    def create(self, name: str, size_gb: int, data_center: str, volume_type: str | None) -> Volume:
        """Make one, with the faults that are due. Raises Problem, AnswerLost."""
        ledger, due = self._shop.ledger, self._mishaps.due
        center = catalogue.data_center_named(data_center)
        try:
            self._refuse_by_fault()
            if center is None or not center.volume_types or (volume_type and volume_type not in center.volume_types):
                raise Problem(400, f"data center {data_center!r} does not support this network volume")
        except Problem as problem:
            ledger.volume_asked(name, str(problem.status))
            raise
        made = self._make(name, size_gb, data_center, volume_type or center.volume_types[0])
        ledger.volume_asked(name, made.id)
        if due("volume_duplicate"):
            self._make(name, size_gb, data_center, made.type)
        if due("volume_lost_after"):
            raise AnswerLost(f"made {made.id}")
        if due("volume_500_after"):
            raise Problem(500, "internal server error")
        return made

    def change(self, volume: Volume, name: str, size_gb: int) -> Volume:
        """Raises Problem 400 for one that would become smaller; AnswerLost."""
        due = self._mishaps.due
        if size_gb < volume.size_gb:
            raise Problem(400, "a network volume cannot be made smaller")
        if due("volume_grow_500"):
            raise Problem(500, "internal server error")
        if due("volume_grow_ignored"):
            return volume
        changed = self._keep(replace(volume, name=name, size_gb=size_gb))
        if due("volume_grow_lost"):
            raise AnswerLost(f"changed {volume.id}")
        return changed

    def delete(self, volume: Volume) -> None:
        """Raises Problem 400 while a pod has it; AnswerLost."""
        due = self._mishaps.due
        if due("volume_delete_500"):
            raise Problem(500, "internal server error")
        if due("volume_delete_404"):
            raise Problem(404, "network volume not found")
        if due("volume_delete_ignored"):
            return
        if volume.id in self._mounted():
            raise Problem(400, "the network volume is in use by a pod")
        del self._there[volume.id]
        self._gone.append((volume, self._shop.clock.now()))
        self._shop.ledger.close_volume(volume.id)
        self._write()
        shutil.rmtree(self._shop.root / "volumes" / volume.id, ignore_errors=True)
        if due("volume_delete_lost"):
            raise AnswerLost(f"deleted {volume.id}")

    def _refuse_by_fault(self) -> None:
        due = self._mishaps.due
        if due("volume_429"):
            waits = {"Retry-After": str(self._mishaps.faults.retry_after_s)}
            raise Problem(429, "rate limit exceeded for the minute window", headers=waits)
        if due("volume_402"):
            raise Problem(402, "Your balance is too low to create this network volume.")
        if due("volume_500_before"):
            raise Problem(500, "internal server error")

    def _make(self, name: str, size_gb: int, data_center: str, volume_type: str) -> Volume:
        now = self._shop.clock.now()
        made = Volume(
            id=new_id(10), name=name, size_gb=size_gb, data_center=data_center, type=volume_type, created_at=now
        )
        return self._keep(made)

    def _keep(self, volume: Volume) -> Volume:
        """A new volume, or a changed one."""
        (self._shop.root / "volumes" / volume.id).mkdir(parents=True, exist_ok=True)
        self._there[volume.id] = volume
        self._shop.ledger.volume_has(volume.id, volume.name, volume.size_gb, usd_per_h(volume.size_gb))
        self._write()
        return volume

    def _write(self) -> None:
        self._file.write_text(json.dumps([asdict(volume) for volume in self]))


def usd_per_h(size_gb: int) -> float:
    """What a volume costs."""
    first = min(size_gb, FIRST_GB)
    return (first * USD_PER_GB_MONTH + (size_gb - first) * USD_PER_FURTHER_GB_MONTH) / HOURS_PER_MONTH

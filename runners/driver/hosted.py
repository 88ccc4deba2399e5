"""The plan, the engine and its log as a driver has them on the machine."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from recipes.errors import EngineFailed
from recipes.load import LoadedRecipe
from recipes.spec import Recipe
from runners.case import Memory
from runners.driver.order import DriveOrder, resolve
from runners.plan import Plan
from runners.telemetry import EngineLog
from runners.text.tokens import TokenCounter
from runners.workload import Estimate

_LOOKED_EVERY_S = 0.25


@dataclass(frozen=True, kw_only=True)
class HostedPlan(Plan):
    """What a drive asks of a plan; what only planning and letting go ask is not there."""

    own_identity: str = ""

    @property
    def identity(self) -> str:
        return self.own_identity


def hosted_plan(order: DriveOrder, *, inputs: bool = True) -> HostedPlan:
    """The plan that the order tells of; the inputs are read here, as by the client. Raises InvalidRecipe, Refused."""
    recipe = Recipe.model_validate_json(json.dumps(order.recipe))
    workload = resolve(order.workload)
    absent = cast(Any, None)
    return HostedPlan(
        loaded=LoadedRecipe(recipe, Path(), "", {}, "", ""),
        provisioner=absent,
        engine=resolve(order.engine),
        workload=workload,
        model=absent,
        offers=(),
        findings=(),
        prepared=workload.prepare(recipe, TokenCounter.from_path(Path(order.tokenizer))) if inputs else None,
        estimate=cast(Estimate, _Counts(order.documents, order.unit)),
        memory=_memory(order.memory),
        own_identity=order.identity,
    )


@dataclass(frozen=True)
class _Counts:
    """Of an estimate, what a drive shows."""

    documents: int
    unit: str


def _memory(data: Mapping[str, Any] | None) -> Memory | None:
    return None if data is None else Memory(**data)


class SilentLog(EngineLog):
    """For whoever does not hear the engine's log: that comes home by another way."""

    def __init__(self, mask: Any) -> None:
        self.mask = mask
        self.samples = []

    def feed(self, block: bytes) -> None:
        """Nothing is kept."""

    def tail(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is open."""


class Engine:
    """The engine's process, which is no child of the driver."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._started = _start_of(pid)

    async def wait(self) -> int:
        """Raises EngineFailed when it has ended: how, only its supervisor knows."""
        while self._started is not None and _start_of(self.pid) == self._started:
            await asyncio.sleep(_LOOKED_EVERY_S)
        raise EngineFailed("the engine has ended", advice="see engine.log")

    async def catch_up(self) -> None:
        """There is nothing to hear."""


def _start_of(pid: int) -> str | None:
    """What tells this process from another that gets its number; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return "alive" if not Path("/proc/self").exists() and _answers(pid) else None
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

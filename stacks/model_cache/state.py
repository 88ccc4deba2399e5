"""Which volumes the stacks of the backend know, as Pulumi says: also of updates that did not come to their end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from provisioners.contract import Site
from stacks.asking import asked_of
from stacks.automation import stacks
from stacks.reference import StackRef
from stacks.values import StackFailed

_PROGRAM = "model_cache"
_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Known:
    """What one stack's state knows of its volume."""

    ref: StackRef
    names: frozenset[str] = frozenset()
    """Under which it was asked for, whether or not it was made."""
    volume: Mapping[str, Any] = field(default_factory=dict)
    """Its outputs, such as `volume_id`; none if the state does not have it."""

    @property
    def volume_id(self) -> str:
        """Empty where it is not known."""
        return str(self.volume.get("volume_id") or "")


async def caches(site: Site) -> list[Known]:
    """Of all model caches in the backend. Raises NoEngine, NoSuchStack, StackFailed, UsageError."""
    refs = [StackRef.of(one.project, one.name) for one in await stacks(site) if one.resources != 0]
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(ref: StackRef) -> Known:
        async with turns:
            return await cache(site, ref)

    return list(await asyncio.gather(*(one(ref) for ref in refs if ref.program == _PROGRAM)))


async def cache(site: Site, ref: StackRef) -> Known:
    """Of one stack; it is there. Raises NoEngine, NoSuchStack, StackFailed, UsageError."""
    told = await asked_of(site, ref, "stack", "export")
    try:
        return _known(ref, told["deployment"].get("resources") or ())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"pulumi stack export of {ref}: nothing that can be read: {type(error).__name__}: {error}"
        raise StackFailed(message, advice=f"recipe stack preview {ref} may say more") from error


def _known(ref: StackRef, resources: Any) -> Known:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for one in resources:
        kind = str(one["type"]).rpartition(":")[2]
        found.setdefault(kind, []).append(one.get("outputs") or {})
    bearing = [*found.get("VolumeName", ()), *found.get("Volume", ())]
    names = frozenset(str(outs["unique_name"]) for outs in bearing if outs.get("unique_name"))
    return Known(ref=ref, names=names, volume=next(iter(found.get("Volume", ())), {}))

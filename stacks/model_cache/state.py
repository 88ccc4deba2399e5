"""What the states of the backend's caches know, as Pulumi says: also of updates that did not come to their end.

Pulumi writes a stack's outputs only when an update has come to its end; its resources, one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioners.at_once import all_of
from provisioners.contract import Site
from stacks.asking import asked_of
from stacks.automation import stacks
from stacks.events import kind_of
from stacks.model_cache.values import Held, merged
from stacks.reference import StackRef
from stacks.values import HIDDEN, StackFailed

_PROGRAM = "model_cache"
_AT_ONCE = 8
_SECRET = "4dabf18193072939515e22adb298388d"  # noqa: S105 (the mark of a secret in a state)
_OF_VOLUME = ("volume_id", "provisioner", "size_gb", "region", "usd_per_month")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What one stack's state knows."""

    ref: StackRef
    names: frozenset[str] = frozenset()
    """Under which it was asked for, whether or not it was made."""
    volume: Mapping[str, Any] = field(default_factory=dict)
    """Its outputs, such as `volume_id`; none if the state does not have it."""
    held: tuple[Held, ...] = ()
    """What machines have brought onto this volume."""
    inputs: str | None = None
    """What the program was last run with, JSON, whether or not that came to its end."""
    last: Mapping[str, Any] = field(default_factory=dict)
    """The outputs of the last update that came to its end; secrets hidden."""

    @property
    def volume_id(self) -> str:
        """Empty where it is not known."""
        return str(self.volume.get("volume_id") or "")

    @property
    def outputs(self) -> Mapping[str, Any]:
        """What it would put out if the last update had ended where it stopped; nothing without a volume."""
        if not self.volume_id:
            return {}
        same = self.last.get("volume_id") == self.volume_id
        told = [Held.of(one) for one in self.last.get("holds") or ()] if same else []
        made = {"name": self.volume["unique_name"], **{name: self.volume.get(name) for name in _OF_VOLUME}}
        return {**self.last, **made, "holds": [one.data() for one in merged(*told, *self.held)]}

    @property
    def whole(self) -> bool:
        """Whether its last update came to its end, as far as one sees."""
        return self.outputs == self.last


async def caches(site: Site) -> list[Known]:
    """Of all model caches in the backend. Raises NoEngine, NoSuchStack, StackFailed, UsageError."""
    refs = [StackRef.of(one.project, one.name) for one in await stacks(site) if one.resources != 0]
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(ref: StackRef) -> Known:
        async with turns:
            return await cache(site, ref)

    return await all_of(one(ref) for ref in refs if ref.program == _PROGRAM)


async def cache(site: Site, ref: StackRef) -> Known:
    """Of one stack; it is there. Raises NoEngine, NoSuchStack, StackFailed, UsageError."""
    told = await asked_of(site, ref, "stack", "export")
    try:
        return _known(ref, told["deployment"].get("resources") or ())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"pulumi stack export of {ref}: nothing that can be read: {type(error).__name__}: {error}"
        raise StackFailed(message, advice=f"recipe stack preview {ref} may say more") from error


def _known(ref: StackRef, resources: Sequence[Mapping[str, Any]]) -> Known:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for one in resources:
        found.setdefault(kind_of(str(one["type"])), []).append(one)
    names, volumes = found.get("VolumeName", []), found.get("Volume", [])
    bearing = [one.get("outputs") or {} for one in (*names, *volumes)]
    volume = next((one.get("outputs") or {} for one in volumes), {})
    models = [one.get("outputs") or {} for one in found.get("Model", ())]
    return Known(
        ref=ref,
        names=frozenset(str(outs["unique_name"]) for outs in bearing if outs.get("unique_name")),
        volume=volume,
        held=tuple(Held.of(outs["held"]) for outs in models if outs.get("volume_id") == volume.get("volume_id")),
        inputs=next((said for one in names if isinstance(said := one["inputs"].get("asked"), str)), None),
        last=next((_plain(one.get("outputs") or {}) for one in found.get("Stack", ())), {}),
    )


def _plain(outputs: Mapping[str, Any]) -> dict[str, Any]:
    hidden = {name for name, value in outputs.items() if isinstance(value, Mapping) and _SECRET in value}
    return {name: HIDDEN if name in hidden else value for name, value in outputs.items()}

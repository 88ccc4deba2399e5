"""Offers made of the table of accelerators alone, for judging where no provider has answered."""

from __future__ import annotations

from collections.abc import Iterator

from provisioners import accelerators
from provisioners.accelerators import Accelerator
from provisioners.contract import Offer
from provisioners.hardware import alternatives
from recipes.spec import Resources
from recipes.units import GIB

USUAL_COUNTS = (1, 2, 4, 8)


def assumed_offers(resources: Resources) -> list[Offer]:
    """What the recipe asks for, as the table knows it: the first alternative that it has."""
    disk_gib = resources.disk_size / GIB if resources.disk_size else None
    for asked in alternatives(resources)[:1]:
        found = accelerators.find(asked.name)
        return [
            Offer(
                provider=resources.provisioner,
                id=found.name if found else asked.name,
                accelerator=found.name if found else asked.name,
                count=asked.count,
                memory_gib=found.label_gb if found else None,
                disk_gib=disk_gib,
            )
        ]
    return []


def known_offers(provider: str) -> list[Offer]:
    """Every NVIDIA accelerator of the table in each usual count, without prices."""
    return [offer for one in accelerators.all_known() if one.vendor == "nvidia" for offer in _in_counts(one, provider)]


def _in_counts(one: Accelerator, provider: str) -> Iterator[Offer]:
    for count in (1,) if one.consumer else USUAL_COUNTS:
        yield Offer(provider=provider, id=one.name, accelerator=one.name, count=count, memory_gib=one.label_gb)

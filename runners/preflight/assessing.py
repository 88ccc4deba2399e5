"""An engine's own answer and, where it cannot know, what holds for every engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from provisioners.contract import Finding
from recipes.units import GIB
from runners.case import Assessment, Case
from runners.engine import Engine


def assessed(engine: Engine, case: Case) -> Assessment:
    """Whether the engine would start. Of an accelerator whose memory nobody knows nothing can be said."""
    accelerator = case.machine.accelerator
    if accelerator is not None and accelerator.usable_gib <= 0:
        return Assessment()
    said = engine.assess(case)
    if said.memory is not None:
        return said
    return replace(said, findings=(*said.findings, *_least(case)))


def _least(case: Case) -> Iterator[Finding]:
    """The stored weights, spread evenly over all accelerators, are the least that any engine needs of them."""
    machine, stored = case.machine, case.model.weight_bytes or case.model.download_bytes
    if machine.accelerator is None or not stored:
        return
    needed_gib = stored / GIB / max(1, machine.count * machine.hosts)
    usable_gib = machine.accelerator.usable_gib
    if needed_gib > usable_gib:
        yield Finding(
            level="block",
            code="weights",
            message=f"the files hold {stored / GIB:,.1f} GiB: at least {needed_gib:,.1f} GiB for each "
            f"{machine.accelerator.name}, which has {usable_gib:.1f}",
            numbers={"weights_gib_per_gpu": round(needed_gib, 2), "usable_gib_per_gpu": round(usable_gib, 2)},
            path="resources.accelerators",
        )

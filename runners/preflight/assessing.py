"""An engine's own answer and, where it cannot know, what holds for every engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from provisioners.contract import Finding
from recipes.units import GIB
from runners.case import Assessment, Case, Memory
from runners.engine import Engine


def assessed(engine: Engine, case: Case) -> Assessment:
    """Whether the engine would start. Of an accelerator whose memory nobody knows nothing can be said."""
    accelerator = case.machine.accelerator
    if accelerator is not None and accelerator.usable_gib <= 0:
        return Assessment()
    said = engine.assess(case)
    least = list(_least(case) if said.memory is None else _least_of_ram(case, said.memory))
    told = {finding.code for finding in said.findings if finding.level != "ok"}
    new = (finding for finding in least if finding.level == "block" or finding.code not in told)
    return replace(said, findings=(*said.findings, *new))


def _least_of_ram(case: Case, memory: Memory) -> Iterator[Finding]:
    """On the CPU the weights that an engine loads lie in RAM."""
    ram_gib, ranks = case.machine.ram_gib, case.accelerators_needed
    if case.machine.accelerator is not None or not ram_gib:
        return
    weights_gib = memory.weights_gib_per_gpu * ranks
    whole_gib = weights_gib + (memory.kv_gib_per_gpu + memory.activation_gib_per_gpu + memory.other_gib_per_gpu) * ranks
    if weights_gib <= ram_gib < whole_gib:
        yield Finding(
            level="warn",
            code="ram",
            message=f"with a full cache the engine takes {whole_gib:,.1f} GiB; the machine has {ram_gib:,.1f} GiB RAM",
            numbers={"needed_gib": round(whole_gib, 2), "ram_gib": round(ram_gib, 2)},
            path="engine",
        )
    elif weights_gib > ram_gib:
        yield Finding(
            level="block",
            code="ram",
            message=f"{weights_gib:,.1f} GiB of weights do not fit the machine's {ram_gib:,.1f} GiB of RAM",
            numbers={"weights_gib": round(weights_gib, 2), "ram_gib": round(ram_gib, 2)},
            path="model",
        )


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

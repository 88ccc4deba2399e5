"""What a machine has against what a recipe asks for; pure, for the provisioners whose machines are there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from provisioners.kinds import means
from recipes.spec import Resources
from recipes.units import GIB, Accelerators, format_size

# A driver reports a little less, or more, than the memory in a product's name: an A40's 48 GB are 46068 MiB.
_TOLERANCE = 0.08


@dataclass(frozen=True)
class Gpu:
    """One accelerator, as its driver describes it."""

    name: str
    memory_gib: float
    free_gib: float | None = None
    """What no other program has taken; None if nobody says."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What one machine has."""

    cpus: int
    memory_bytes: int
    disk_free_bytes: int
    gpus: tuple[Gpu, ...] = ()
    cuda: str | None = None
    """The newest CUDA that its driver knows, as major.minor; None without one."""


@dataclass(frozen=True)
class Match:
    """The accelerators of a machine that are what was asked for."""

    asked: Accelerators
    place: int
    """Of what was asked for among the recipe's alternatives; 0 is what it wants most."""
    memory_gib: float
    """Of the smallest of them."""
    free_gib: float | None = None
    """Of the one with the least."""


def shortage(resources: Resources, has: Hardware) -> str | None:
    """What a machine has too little of, in words; None if it has enough. Its accelerators are another question."""
    if resources.cpus and resources.cpus.value > has.cpus:
        return f"resources.cpus asks for {resources.cpus.value}; this machine has {has.cpus}"
    if resources.memory and resources.memory.value > has.memory_bytes:
        asked = format_size(resources.memory.value)
        return f"resources.memory asks for {asked}; this machine has {has.memory_bytes / GIB:.1f} GiB"
    if resources.disk_size and resources.disk_size > has.disk_free_bytes:
        asked = format_size(resources.disk_size)
        return f"resources.disk_size asks for {asked}; this machine has {has.disk_free_bytes / GIB:.1f} GiB free"
    return None


def alternatives(resources: Resources) -> list[Accelerators]:
    """What will do, in the order of preference; empty if a CPU will."""
    if resources.accelerators is None:
        return []
    return [resources.accelerators, *(f.accelerators for f in resources.any_of if f.accelerators)]


def match(resources: Resources, gpus: Sequence[Gpu]) -> Match | None:
    """The first alternative that the accelerators satisfy; None if they satisfy none."""
    for place, asked in enumerate(alternatives(resources)):
        found = [gpu for gpu in gpus if is_a(gpu, asked.name)]
        if len(found) >= asked.count:
            free = [gpu.free_gib for gpu in found if gpu.free_gib is not None]
            return Match(asked, place, min(gpu.memory_gib for gpu in found), min(free, default=None))
    return None


def no_match(resources: Resources, gpus: Sequence[Gpu]) -> str:
    """Why a machine's accelerators will not do, in words."""
    have = ", ".join(gpu.name for gpu in gpus) or "none"
    return f"this machine has no {' or '.join(map(str, alternatives(resources)))}; accelerators found: {have}"


def is_a(gpu: Gpu, wanted: str) -> bool:
    """Whether this is the kind that was asked for; a size may be that of the memory, as the driver reports it."""
    reported = (gpu.memory_gib, gpu.memory_gib * GIB / 10**9)
    return means(wanted, [gpu.name], lambda size: any(abs(memory - size) <= size * _TOLERANCE for memory in reported))


# The newest CUDA that each branch of NVIDIA's Linux driver knows; CUDA Toolkit release notes, table 3.
_CUDA_OF_BRANCH = {
    450: "11.0", 455: "11.1", 460: "11.2", 465: "11.3", 470: "11.4", 495: "11.5", 510: "11.6", 515: "11.7", 520: "11.8",
    525: "12.0", 530: "12.1", 535: "12.2", 545: "12.3", 550: "12.4", 555: "12.5", 560: "12.6", 565: "12.7", 570: "12.8",
    575: "12.9", 580: "13.0", 590: "13.1",
}  # fmt: skip


def cuda_of(driver: str) -> str | None:
    """The newest CUDA, as major.minor, that a driver such as 550.54.14 knows; None if nobody can say."""
    branch = driver.partition(".")[0]
    older = [known for known in _CUDA_OF_BRANCH if branch.isdigit() and known <= int(branch)]
    return _CUDA_OF_BRANCH[max(older)] if older else None

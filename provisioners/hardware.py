"""What a machine has against what a recipe asks for; pure, for the provisioners whose machines are there already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from recipes.spec import Resources
from recipes.units import GIB, Accelerators, format_size

# A driver reports a little less, or more, than the memory in a product's name: an A40's 48 GB are 46068 MiB.
_TOLERANCE = 0.08


@dataclass(frozen=True)
class Gpu:
    """One accelerator, as its driver describes it."""

    name: str
    memory_gib: float


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What one machine has."""

    cpus: int
    memory_bytes: int
    disk_free_bytes: int
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class Match:
    """The accelerators of a machine that are what was asked for."""

    asked: Accelerators
    place: int
    """Of what was asked for among the recipe's alternatives; 0 is what it wants most."""
    memory_gib: float
    """Of the smallest of them."""


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
        memory = [gpu.memory_gib for gpu in gpus if is_a(gpu, asked.name)]
        if len(memory) >= asked.count:
            return Match(asked, place, min(memory))
    return None


def no_match(resources: Resources, gpus: Sequence[Gpu]) -> str:
    """Why a machine's accelerators will not do, in words."""
    have = ", ".join(gpu.name for gpu in gpus) or "none"
    return f"this machine has no {' or '.join(map(str, alternatives(resources)))}; accelerators found: {have}"


def is_a(gpu: Gpu, wanted: str) -> bool:
    """Whether this is the kind that was asked for: A100-80GB is an "NVIDIA A100 80GB PCIe", A40-48GB an "NVIDIA A40".

    Words are compared as a whole, so that an L40S is no L4. What stands apart in the driver's name may be written as
    one, and a size may be that of the memory.
    """
    words = _words(gpu.name)
    has = {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    return all(word in has or _is_size(word, gpu) or _is_form(word, has) for word in _words(wanted))


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^A-Z0-9]+", text.upper()) if word]


def _is_size(word: str, gpu: Gpu) -> bool:
    size = re.fullmatch(r"(\d+)GB", word)
    if size is None:
        return False
    asked = int(size[1])
    reported = (gpu.memory_gib, gpu.memory_gib * GIB / 10**9)
    return any(abs(memory - asked) <= asked * _TOLERANCE for memory in reported)


def _is_form(word: str, has: set[str]) -> bool:
    """SXM is said as SXM4 by some names, and as HBM3 by others."""
    return word == "SXM" and any(re.fullmatch(r"SXM\d|HBM\d\w?", part) for part in has)

"""Which kinds of GPU of RunPod's catalogue a recipe's name means, and what people call them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from provisioners.kinds import means
from provisioners.providers.runpod.values import Gpu


def matching(wanted: str, catalogue: Iterable[Gpu]) -> list[Gpu]:
    """The kinds that a name means: those that bear it exactly, else those that have all its words."""
    found = list(catalogue)
    exact = [gpu for gpu in found if wanted.casefold() in (gpu.id.casefold(), gpu.name.casefold())]
    return exact or [gpu for gpu in found if means(wanted, [gpu.id, gpu.name], _memory_of(gpu))]


def full_name(gpu: Gpu) -> str:
    """What people call it, with its memory: A100 PCIe 80GB."""
    has_memory = gpu.memory_gb is None or re.search(rf"\b{gpu.memory_gb}\s*GB\b", gpu.name)
    return gpu.name if has_memory else f"{gpu.name} {gpu.memory_gb}GB"


def _memory_of(gpu: Gpu) -> Callable[[int], bool]:
    return lambda size: size == gpu.memory_gb

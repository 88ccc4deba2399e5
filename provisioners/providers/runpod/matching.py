"""Which kinds of GPU a recipe's name means: A100-80GB is an "NVIDIA A100 80GB PCIe" and an "NVIDIA A100-SXM4-80GB"."""

from __future__ import annotations

import re
from collections.abc import Iterable

from provisioners.providers.runpod.values import Gpu

# Words that make another kind of GPU of the same number: an RTX 3090 Ti is no RTX 3090.
_VARIANTS = frozenset({"TI", "SUPER", "SFF", "MAX", "LAPTOP"})
_SXM = frozenset({"HBM2", "HBM2E", "HBM3", "HBM3E"})


def matching(wanted: str, catalogue: Iterable[Gpu]) -> list[Gpu]:
    """The kinds that a name means: those that bear it exactly, else those that have all its words."""
    found = list(catalogue)
    exact = [gpu for gpu in found if wanted.casefold() in (gpu.id.casefold(), gpu.name.casefold())]
    return exact or [gpu for gpu in found if _is_a(gpu, _words(wanted))]


def full_name(gpu: Gpu) -> str:
    """What people call it, with its memory: A100 PCIe 80GB."""
    has_memory = gpu.memory_gb is None or re.search(rf"\b{gpu.memory_gb}\s*GB\b", gpu.name)
    return gpu.name if has_memory else f"{gpu.name} {gpu.memory_gb}GB"


def _is_a(gpu: Gpu, wanted: list[str]) -> bool:
    described = [_words(gpu.id), _words(gpu.name)]
    has = {joined for words in described for joined in _joined(words)}
    has |= {"SXM"} if any(word in _SXM or word.startswith("SXM") for word in has) else set()
    has |= {f"{gpu.memory_gb}GB"} if gpu.memory_gb else set()
    unasked = _VARIANTS & {word for words in described for word in words}
    return all(word in has for word in wanted) and all(any(variant in word for word in wanted) for variant in unasked)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^A-Z0-9]+", text.upper()) if word]


def _joined(words: list[str]) -> Iterable[str]:
    """Each run of neighbouring words written as one: RTX 3090 is also asked for as RTX3090."""
    return ("".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1))

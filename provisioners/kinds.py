"""Which kinds of accelerator a name means: A100-80GB is an "NVIDIA A100 80GB PCIe" and an "NVIDIA A100-SXM4-80GB"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

# Words that makers put before every name, and that people leave out.
_MAKERS = frozenset({"NVIDIA", "GEFORCE", "TESLA", "AMD", "INSTINCT", "QUADRO", "GENERATION"})
# Words that make another accelerator of the same number: an RTX 3090 Ti is no RTX 3090.
_VARIANTS = frozenset({"TI", "SUPER", "SFF", "MAX", "MAXQ", "LAPTOP", "ADA", "MIG", "FHHL"})
# The socket's form, which some names say by the memory that only it has.
_SXM = re.compile(r"SXM\d?|HBM\d\w?|OAM")


def means(wanted: str, names: Iterable[str], has_memory: Callable[[int], bool]) -> bool:
    """Whether an accelerator with these names is of the kind that is wanted.

    Every word that is wanted must be there as a whole, so that an L40S is no L4. What stands apart in a name may be
    written as one (RTX3090), and `80GB` is also said by the memory: `has_memory` tells whether it is of such a label.
    """
    asked = [word for word in _words(wanted) if word not in _MAKERS] or _words(wanted)
    described = [_words(name) for name in names]
    has = {joined for words in described for joined in _joined(words)}
    if any(_SXM.fullmatch(word) for word in has):
        has.add("SXM")
    unasked = [v for v in _VARIANTS if any(v in words for words in described) and not any(v in word for word in asked)]
    return bool(asked) and not unasked and all(word in has or _is_size(word, has_memory) for word in asked)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^A-Z0-9]+", text.upper()) if word]


def _joined(words: list[str]) -> Iterable[str]:
    """Each run of neighbouring words written as one."""
    return ("".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1))


def _is_size(word: str, has_memory: Callable[[int], bool]) -> bool:
    size = re.fullmatch(r"(\d+)GB", word)
    return size is not None and has_memory(int(size[1]))

"""Texts for runs that differ in nothing but their sizes."""

from __future__ import annotations

import random
import re
from pathlib import Path

from recipes import catalogue


def texts(folder: Path, rng: random.Random) -> None:
    """Documents from the sentences of the texts that ship with recipe, in ever other orders: an engine's prefix cache
    knows none of them."""
    whole = "\n\n".join(path.read_text(encoding="utf-8") for path in sorted((catalogue.ROOT / "texts").glob("*.txt")))
    sentences = re.findall(r"[A-Z][^.!?]+[.!?]", whole)
    folder.mkdir()
    for number in range(8):
        paragraphs = [" ".join(rng.sample(sentences, 5)) for _ in range(8 + 5 * number)]
        (folder / f"{number}.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")

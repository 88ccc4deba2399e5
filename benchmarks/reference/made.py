"""A text and a tokenizer for benchmarks that are given none: of the shape of a novel and of Llama's vocabulary."""

from __future__ import annotations

import random
from itertools import accumulate
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, trainers

_ONSETS = (
    "",
    "b",
    "br",
    "c",
    "ch",
    "d",
    "f",
    "g",
    "gr",
    "h",
    "l",
    "m",
    "n",
    "p",
    "qu",
    "r",
    "s",
    "st",
    "t",
    "th",
    "tr",
    "w",
)
_NUCLEI = ("a", "e", "i", "o", "u", "ea", "ou", "ie")
_CODAS = ("", "n", "r", "s", "t", "nd", "ll", "ght", "m", "d")
_VOCABULARY, _CHARACTERS = 7_000, 440_000


def novel(seed: int = 1) -> str:
    """440,000 characters in wrapped lines and paragraphs; how often words occur follows Zipf's law."""
    chance = random.Random(seed)
    words = [
        "".join(chance.choice(kind) for _ in range(chance.randint(1, 3)) for kind in (_ONSETS, _NUCLEI, _CODAS))
        for _ in range(_VOCABULARY)
    ]
    weights = list(accumulate(1 / rank for rank in range(1, _VOCABULARY + 1)))
    paragraphs, characters = [], 0
    while characters < _CHARACTERS:
        sentences = []
        for _ in range(chance.randint(2, 9)):
            said = chance.choices(words, cum_weights=weights, k=chance.randint(4, 30))
            sentences.append(f"{' '.join(said).capitalize()}{chance.choice('...;!?')}")
        paragraphs.append(_wrapped(" ".join(sentences)))
        characters += len(paragraphs[-1]) + 2
    return "\n\n".join(paragraphs) + "\n"


def _wrapped(text: str, width: int = 72) -> str:
    lines, line = [], ""
    for word in text.split(" "):
        if len(line) + len(word) >= width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".lstrip()
    return "\n".join([*lines, line])


def train_tokenizer(text: Path, path: Path) -> None:
    """Byte-fallback BPE over words that begin with ▁, as SentencePiece makes it for Llama."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=32_000, special_tokens=specials, show_progress=False)
    lines = (f" {word}" for word in text.read_text(encoding="utf-8").split())
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.save(str(path))

"""Small tokenizers of every kind that is met, made by training on a text of our own, and texts that try them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from recipes import catalogue

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
SPECIAL = ["<unk>", "<s>", "</s>", "<|end|>"]

WORDS = (
    *("it", "was", "the", "creature", "Ingolstadt", "antidisestablishmentarianism", "x" * 40, "I'll", "DON'T", "we've"),
    *(
        "über",
        "naïve",
        "straße",
        "漢字",
        "日本語、です。",
        "Привет",
        "e\u0301te\u0301",
        "\u0301",
        "\u212a",
        "ſ",
        "\u1fef",
    ),
    *("🙂", "👩‍👩‍👧", "\U0001f1e9\U0001f1ea", "\U0010ffff", "\ue000", "\u0378", "\U00031350", "١٢٣", "Ⅷ", "½"),
    *(
        "1234567",
        "3.14",
        "a/b",
        "//",
        "...",
        "?!",
        "—",
        "“so”",
        "don’t",
        "<s>",
        "</s>",
        "<|end|>",
        "<",
        "<s",
        "▁",
        "▁▁a",
    ),
    *("\0", "\1", "\x1c", "\x1f", "\x85", "\u200b", "\ufeff", "_", "^", "`", ";", "\u037e", "K"),
)
GLUE = (
    *([" "] * 12),
    *([", ", ". ", "\n", "\n\n"] * 2),
    *("", "", "  ", "   ", "\n\n\n", " \n", "\n ", "\t", "\r\n", "\r", ",\n", ".\n\n"),
    *("\u00a0", "\u3000", "\u2028", "\x0b", " \t ", "\n\t", "\r\n\r\n", "/\n/", "\n/"),
)


def random_text(seed: int, words: int = 80) -> str:
    choose = random.Random(seed)
    return "".join(choose.choice(WORDS) + choose.choice(GLUE) for _ in range(words))


@cache
def corpus() -> tuple[str, ...]:
    texts = [path.read_text(encoding="utf-8") for path in sorted((catalogue.ROOT / "texts").glob("*.txt"))]
    return tuple(texts * 3 + [random_text(seed).replace("<", "") for seed in range(60)])


def byte_level(pattern: str | None, **changes: Any) -> Tokenizer:
    """Byte-level BPE that cuts by this expression; by GPT-2's own, if none is given."""
    made = Tokenizer(models.BPE(ignore_merges=changes.get("ignore_merges", False)))
    byte_level_step = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    cut = [pre_tokenizers.Split(Regex(pattern), *changes.get("split", ("isolated", False)))] if pattern else []
    steps = [*changes.get("before", []), *cut, byte_level_step]
    made.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    if changes.get("nfc"):
        made.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False,
    ))  # fmt: skip
    return _beginning(made)


def sentencepiece(**changes: Any) -> Tokenizer:
    """BPE over whole texts with ▁ for spaces, its merges within words, and bytes for what is not in the vocabulary."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Metaspace(prepend_scheme="never", split=True)]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    made.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=1100,
            special_tokens=[*SPECIAL, *bytes_],
            limit_alphabet=90,
            initial_alphabet=["▁"],
            show_progress=False,
        ),
    )
    document = json.loads(_beginning(made).to_str())
    document["model"] |= {"byte_fallback": True, **changes.get("model", {})}
    vocabulary = document["model"]["vocab"]
    for run in (2, 3, 4, 8):  # runs of ▁, as Llama's vocabulary has them
        document["model"]["merges"].append(["▁" * (run - run // 2), "▁" * (run // 2)])
        vocabulary.setdefault("▁" * run, len(vocabulary))
    document["added_tokens"] = [token for token in document["added_tokens"] if not token["content"].startswith("<0x")]
    document["normalizer"], document["pre_tokenizer"] = changes.get("steps", (PREPEND, None))
    if "merge" in changes:
        a, b = changes["merge"]
        for part in (a, b, a + b):
            vocabulary.setdefault(part, len(vocabulary))
        document["model"]["merges"].insert(0, [a, b])
    return Tokenizer.from_str(json.dumps(document))


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPEND = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, REPLACE]}


def metaspace(scheme: str, *, split: bool = False) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


def word_piece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(
        corpus(), trainers.WordPieceTrainer(vocab_size=600, special_tokens=SPECIAL, show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return made


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer, made.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    made.train_from_iterator(
        corpus(),
        trainers.UnigramTrainer(vocab_size=500, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False),
    )
    return made


def _beginning(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


# Kind → how it is made, and the method that should be chosen for it.
KINDS: dict[str, tuple[Callable[[], Tokenizer], str]] = {
    "gpt2": (lambda: byte_level(None), "pieces"),
    "llama3": (lambda: byte_level(LLAMA3, ignore_merges=True), "pieces"),
    "removed": (lambda: byte_level(LLAMA3, split=("removed", True)), "pieces"),
    "qwen2": (lambda: byte_level(QWEN2, nfc=True), "pieces"),
    "o200k": (lambda: byte_level(O200K), "pieces"),
    "starcoder": (lambda: byte_level(None, before=[pre_tokenizers.Digits(individual_digits=True)]), "pieces"),
    "deepseek": (
        lambda: byte_level(
            DEEPSEEK,
            before=[
                pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
                pre_tokenizers.Split(Regex("[一-龥\u3040-ゟ゠-ヿ]+"), "isolated"),
            ],
        ),
        "pieces",
    ),
    "llama2": (sentencepiece, "words"),
    "mistral3": (lambda: sentencepiece(steps=(None, metaspace("first"))), "words"),
    "metaspace always": (lambda: sentencepiece(steps=(None, metaspace("always"))), "words"),
    "no prefix": (lambda: sentencepiece(steps=(REPLACE, None)), "words"),
    "unknown one by one": (lambda: sentencepiece(model={"byte_fallback": False, "fuse_unk": False}), "words"),
    "unknown together": (lambda: sentencepiece(model={"byte_fallback": False}), "words"),
    "unknown dropped": (lambda: sentencepiece(model={"byte_fallback": False, "unk_token": None}), "whole"),
    "merge over a space": (lambda: sentencepiece(merge=("t", "▁")), "whole"),
    "merge with a newline": (lambda: sentencepiece(merge=("\n", "▁")), "whole"),
    "merge of bytes": (lambda: sentencepiece(merge=("<0x0A>", "<0x0A>")), "whole"),
    "whole words first": (lambda: sentencepiece(model={"ignore_merges": True}), "whole"),
    "metaspace split": (lambda: sentencepiece(steps=(None, metaspace("always", split=True))), "whole"),
    "cuts words": (lambda: byte_level(r"[a-z ]+|\s+"), "whole"),
    "unreadable": (lambda: byte_level(r"(?<=a)b|\S+|\s+"), "whole"),
    "word pieces": (word_piece, "whole"),
    "unigram": (unigram, "whole"),
}

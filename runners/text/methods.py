"""How a tokenizer's counts add up: read from its tokenizer.json, with everything that could spoil it checked.

`words`: SentencePiece's BPE as Llama 2, Mistral and their kin have it. Nothing is cut before it is merged, but no merge
has another character before a ▁, or a newline beside another character: so no token reaches over such a place.
`pieces`: byte-level BPE as GPT-2, Llama 3, Qwen and their kin have it. An expression cuts the text before anything is
merged, and no match of it reaches over certain places (`patterns`).
`whole`: everything else; the tokenizer counts each text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from runners.text.patterns import Pattern, Unreadable, read

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
_BAR = "▁"

Lead = Literal["always", "unless there", "never"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to count, as plain data, so that it can be kept with the counts."""

    kind: Literal["words", "pieces", "whole"]
    added: tuple[str, ...] = ()
    """Texts that become one token wherever they stand; a text that has one is counted whole."""
    lead: Lead = "never"
    """For words: when a ▁ is put before a text."""
    lines: Literal["before", "after", ""] = ""
    """For pieces: where lines may be cut apart, before newlines or behind them, if at all."""
    source: str | None = None
    """For pieces: the expression for Python's `re`, on shapes."""
    nfc: bool = False
    """For pieces: whether text is brought to normal form C before."""

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Method:
        return cls(**{**document, "added": tuple(document["added"])})


class _No(Exception):
    """Counts do not add up, or nobody can tell."""


def method_of(tokenizer: Mapping[str, Any]) -> Method:
    """The method for this tokenizer.json."""
    for attempt in (_words, _pieces):
        try:
            return attempt(tokenizer)
        except (_No, Unreadable, KeyError, TypeError, AttributeError, ValueError):
            continue  # of another kind, or written in a way that this code does not know
    return Method(kind="whole")


def _need(condition: object) -> None:
    if not condition:
        raise _No


def _words(tokenizer: Mapping[str, Any]) -> Method:
    model = tokenizer["model"]
    _need(model["type"] == "BPE" and not model.get("dropout") and not model.get("ignore_merges"))
    _need(not model.get("continuing_subword_prefix") and not model.get("end_of_word_suffix"))
    lead = _lead(tokenizer)
    _need(_keeps_every_character(model))
    _need(_merges_stay_within_words(model))
    return Method(kind="words", lead=lead, added=_added(tokenizer, spoiled_by=_BAR + " "))


def _lead(tokenizer: Mapping[str, Any]) -> Lead:
    """Which of the two ways a ▁ is put before a text, if nothing else is done to it."""
    steps = list(_flat(tokenizer.get("normalizer"), "normalizers"))
    splits = list(_flat(tokenizer.get("pre_tokenizer"), "pretokenizers"))
    metaspaces = [step for step in splits if step["type"] == "Metaspace"]
    if metaspaces:
        _need(not steps and len(splits) == 1)
        return _lead_of_metaspace(metaspaces[0])
    kinds = sorted(step["type"] for step in steps)
    _need(kinds in (["Replace"], ["Prepend", "Replace"]))
    for step in steps:
        if step["type"] == "Prepend":
            _need(step["prepend"] == _BAR)
        else:
            _need(step["pattern"] == {"String": " "} and step["content"] == _BAR)
    # A cut at spaces does nothing where none are left.
    _need(all(s["type"] == "Split" and s["pattern"] == {"String": " "} and not s["invert"] for s in splits))
    return "always" if "Prepend" in kinds else "never"


def _lead_of_metaspace(step: Mapping[str, Any]) -> Lead:
    _need(step["replacement"] == _BAR and step.get("split") is False)
    scheme = step.get("prepend_scheme") or ("always" if step.get("add_prefix_space", True) else "never")
    _need(scheme in ("always", "first", "never"))
    return "never" if scheme == "never" else "unless there"


def _keeps_every_character(model: Mapping[str, Any]) -> bool:
    """Whether every character makes at least one token, and none is joined with its neighbour for being unknown."""
    vocabulary = model["vocab"]
    if model.get("byte_fallback") and all(token in vocabulary for token in _BYTE_TOKENS):
        return True
    if model.get("unk_token") not in vocabulary:
        return False
    return not model.get("fuse_unk") or (_BAR in vocabulary and "\n" in vocabulary)


def _merges_stay_within_words(model: Mapping[str, Any]) -> bool:
    merges: Sequence[Any] = model["merges"]
    in_pairs = bool(merges) and not isinstance(merges[0], str)
    joined = "\0".join(map("".join, merges)) if in_pairs else "\0".join(merges).replace(" ", "")
    if joined.count("\0") != max(0, len(merges) - 1):
        return False
    if model.get("byte_fallback") and re.search(r"<0x[0-9A-F]{2}>", joined):
        return False
    unknown = model.get("unk_token")
    if unknown and unknown in joined:
        return False
    return "\n" not in joined and not re.search(f"(?<![{_BAR}\0]){_BAR}", joined.lstrip(_BAR))


def _pieces(tokenizer: Mapping[str, Any]) -> Method:
    model = tokenizer["model"]
    _need(model["type"] == "BPE" and not model.get("dropout"))
    steps = list(_flat(tokenizer.get("normalizer"), "normalizers"))
    _need(all(step["type"] == "NFC" for step in steps))
    splits = list(_flat(tokenizer["pre_tokenizer"], "pretokenizers"))
    patterns: list[Pattern] = []
    for i, step in enumerate(splits):
        pattern = _pattern(step)
        _need(pattern.cut_before_space)
        patterns.append(pattern)
        if pattern.covers_blanks:
            _need(_act_alone(splits[i + 1 :]))
            break
    _need(patterns and patterns[-1].covers_blanks)
    only_bytes_follow = [s["type"] for s in splits[1:]] == ["ByteLevel"] and not splits[1].get("use_regex", True)
    alone = len(splits) == 1 and splits[0]["type"] == "ByteLevel"
    return Method(
        kind="pieces",
        lines=_lines(patterns),
        source=patterns[0].source if alone or (only_bytes_follow and not splits[1]["add_prefix_space"]) else None,
        nfc=bool(steps),
        added=_added(tokenizer, spoiled_by="K;`" if steps else ""),
    )


def _lines(patterns: Sequence[Pattern]) -> Literal["before", "after", ""]:
    if all(pattern.cut_before_newline for pattern in patterns):
        return "before"
    return "after" if all(pattern.cut_after_newlines for pattern in patterns) else ""


def _pattern(step: Mapping[str, Any]) -> Pattern:
    """The expression by which a pre-tokenizer cuts."""
    match step["type"]:
        case "ByteLevel":
            _need(not step["add_prefix_space"] and step.get("use_regex", True))
            return read(_GPT2)
        case "Digits":
            return read(r"\p{N}+")
        case "Split":
            _need((step["behavior"], bool(step["invert"])) in (("Isolated", False), ("Removed", True)))
            return read(step["pattern"]["Regex"])
    raise _No


def _act_alone(splits: Sequence[Mapping[str, Any]]) -> bool:
    """Whether what follows looks at one piece at a time, whatever its place."""
    return all(step["type"] in ("ByteLevel", "Digits", "Split", "Punctuation") for step in splits)


def _added(tokenizer: Mapping[str, Any], *, spoiled_by: str) -> tuple[str, ...]:
    """The added tokens. Those that are looked for in normalized text must be found in the text itself as well."""
    found = []
    for token in tokenizer.get("added_tokens") or ():
        if token.get("normalized"):
            _need(token["content"].isascii() or not spoiled_by)
            _need(not set(token["content"]) & set(spoiled_by))
        found.append(token["content"])
    return tuple(sorted(filter(None, found)))


def _flat(step: Mapping[str, Any] | None, inner: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a sequence, and of the sequences in it."""
    if step is None:
        return
    if step["type"] != "Sequence":
        yield step
        return
    for part in step[inner]:
        yield from _flat(part, inner)

"""GGUF files: metadata and what tensors there are, from a file's beginning. No data is read.

The format (version 2 and 3; little-endian): magic, version, counts of tensors and of key-value pairs, the pairs, then
each tensor's name, shape, type and offset. A tokenizer's vocabulary lies among the pairs and may take megabytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from recipes.errors import Refused
from runners.modelfacts.facts import Module
from runners.modelfacts.safetensors import Tensor

PIECE_BYTES = 1_000_000
_AGAIN = "fetch or convert it again"
_MOST = 10_000_000
"""More pairs, tensors or entries of a list has no model."""
_LONGEST_KEPT_LIST = 4_096

# Bytes and struct codes of the plain types of metadata, by their number.
_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9

TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
"""ggml's types: name, weights in a block, bytes of a block."""


@dataclass(frozen=True)
class Header:
    metadata: dict[str, Any]
    """Without lists that are longer than a few thousand entries: of those the length, as {"length": n}."""
    tensors: tuple[Tensor, ...] | None
    """None if the vocabulary was too long to read on, or a type is not known here."""


class _Unreadable(Exception):
    """What follows cannot be had, and is no fault of the file's."""


class _Reader:
    """Reads on from a file's beginning, in pieces, up to a limit. Raises Refused at the file's end."""

    def __init__(self, fetch: Callable[[int, int], bytes], name: str, most: int) -> None:
        self._fetch, self._name, self._most = fetch, name, most
        self._held = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        while self._at + count > len(self._held):
            self._more(self._at + count)
        self._at += count
        return self._held[self._at - count : self._at]

    def _more(self, wanted: int) -> None:
        begin = len(self._held)
        if wanted > self._most or begin >= self._most:
            raise _Unreadable
        piece = self._fetch(begin, min(PIECE_BYTES, self._most - begin))
        if not piece:
            raise Refused(f"{self._name} is cut off: it ends within its header, at byte {begin:,}", advice=_AGAIN)
        self._held += piece

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def count(self, what: str) -> int:
        found: int = self.number("Q")
        if found > _MOST:
            raise Refused(f"{self._name}: {found:,} {what}; the header is damaged", advice=_AGAIN)
        return found

    def text(self) -> str:
        length = self.count("bytes of text")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _LIST and depth < 3:
            return self._list(depth)
        if kind not in _PLAIN:
            raise Refused(f"{self._name}: metadata of unknown type {kind}; the header is damaged", advice=_AGAIN)
        return self.number(_PLAIN[kind])

    def _list(self, depth: int) -> Any:
        kind, length = self.number("I"), self.count("entries of a list")
        if kind in _PLAIN:
            code = f"<{length}{_PLAIN[kind]}"
            data = self.take(struct.calcsize(code))
            return list(struct.unpack(code, data)) if length <= _LONGEST_KEPT_LIST else {"length": length}
        kept = [self.value(kind, depth + 1) for _ in range(min(length, _LONGEST_KEPT_LIST))]
        for _ in range(length - len(kept)):
            self.value(kind, depth + 1)
        return kept if length <= _LONGEST_KEPT_LIST else {"length": length}


def read_header(fetch: Callable[[int, int], bytes], name: str, *, most: int = 1 << 30) -> Header:
    """The header of a file of which `fetch(start, length)` gives bytes (fewer at its end). Raises Refused.

    Reads at most so many bytes: if they end among the metadata, what came before is given, without tensors.
    """
    reader = _Reader(fetch, name, most)
    metadata: dict[str, Any] = {}
    try:
        if reader.take(4) != b"GGUF":
            raise Refused(f"{name} is no GGUF file: it does not begin with GGUF", advice=_AGAIN)
        if (version := reader.number("I")) not in (2, 3):
            raise Refused(f"{name}: GGUF version {version}, and 2 or 3 is readable", advice=_AGAIN)
        tensors, pairs = reader.count("tensors"), reader.count("pairs of metadata")
        for _ in range(pairs):
            key = reader.text()
            metadata[key] = reader.value(reader.number("I"))
        return Header(metadata, tuple(_tensor(reader, name) for _ in range(tensors)))
    except _Unreadable:
        return Header(metadata, None)


def _tensor(reader: _Reader, name: str) -> Tensor:
    key = reader.text()
    if (dimensions := reader.number("I")) > 8:
        raise Refused(f"{name}: {key!r:.80} has {dimensions} dimensions; the header is damaged", advice=_AGAIN)
    elements = prod(reader.count("elements") for _ in range(dimensions))
    kind = reader.number("I")
    reader.number("Q")
    if kind not in TYPES:
        raise _Unreadable  # a type that came after these; the file's size has to do
    label, weights, size = TYPES[kind]
    return Tensor(key, label, elements, -(-elements // weights) * size)


_STARTS: tuple[tuple[str, Module], ...] = (
    ("token_embd", "embedding"),
    ("position_embd", "embedding"),
    ("per_layer_token_embd", "embedding"),
    ("output_norm", "norm"),
    ("output", "lm_head"),
    ("v.", "vision"),
    ("mm.", "vision"),
)
_PARTS: tuple[tuple[str, Module], ...] = (
    ("_norm", "norm"),
    ("nextn.", "mtp"),
    ("ffn_gate_inp", "router"),
    ("exp_probs", "router"),
    ("_exps", "experts"),
    ("_shexp", "mlp"),
    ("ffn_", "mlp"),
    ("attn_", "attention"),
    ("ssm_", "attention"),
    ("shortconv", "attention"),
    ("time_mix", "attention"),
)


def module_of(name: str, layer_count: int = 0) -> Module:
    """The class of modules that a tensor belongs to, by llama.cpp's names."""
    for start, module in _STARTS:
        if name.startswith(start):
            return module
    return next((module for part, module in _PARTS if part in name), "other")

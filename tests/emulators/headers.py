"""Writes files that are all header: safetensors and GGUF as their formats have them, with no or sparse data."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I32": 4, "I64": 8, "U8": 1, "I8": 1}


def safetensors(tensors: Mapping[str, tuple[str, Sequence[int]]], *, data: bool = False) -> bytes:
    """A file with these tensors (type and shape); without its data, if not asked for."""
    listed: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + prod(shape) * SIZES[dtype]
        listed[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    header = json.dumps(listed).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + (bytes(end) if data else b"")


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def value(given: Any) -> bytes:
    """A value of GGUF's metadata, its type before it."""
    if isinstance(given, bool):
        return struct.pack("<I?", 7, given)
    if isinstance(given, int):
        return struct.pack("<II", 4, given)
    if isinstance(given, float):
        return struct.pack("<If", 6, given)
    if isinstance(given, str):
        return struct.pack("<I", 8) + text(given)
    kind = value(given[0])[:4]
    return struct.pack("<I", 9) + kind + struct.pack("<Q", len(given)) + b"".join(value(one)[4:] for one in given)


def gguf(metadata: Mapping[str, Any], tensors: Mapping[str, tuple[int, Sequence[int]]], *, version: int = 3) -> bytes:
    """A file with this metadata and these tensors (ggml's number of the type, and shape), without its data."""
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(metadata))
    pairs = b"".join(text(key) + value(one) for key, one in metadata.items())
    listed = b"".join(
        text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0)
        for name, (kind, shape) in tensors.items()
    )
    return head + pairs + listed

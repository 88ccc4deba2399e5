"""Token counts that outlive the process: one file for each tokenizer, in recipe's cache directory.

The file has two lines of JSON, what it is and the few units of text that was taken apart with care, and behind them the
counts of parts as bytes and the parts joined by spaces, which no part holds: reading it takes a tenth of the time that
counting anew takes. A file that is broken, of another format or of another release of tokenizers is as good as none.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from provisioners.files import write_whole
from runners.text.methods import Method

_FORMAT = 3
_MOST = 100_000
"""Parts in a file: about a megabyte."""
_MOST_UNITS = 20_000


@dataclass(frozen=True)
class Kept:
    """What is known of a tokenizer without opening it."""

    method: Method
    special_tokens: int
    known: dict[str, int] = field(default_factory=dict)
    """Counts of parts; see `sums`."""
    units: dict[str, int] = field(default_factory=dict)


def read_kept(path: Path) -> Kept | None:
    """What the file holds, if it is whole and of this release."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        header = json.loads(head)
        stamp = _stamp(body)
        if stamp != {key: header[key] for key in stamp}:
            return None
        units, _, body = body.partition(b"\n")
        counts = body[: header["parts"]]
        known = dict(zip(body[header["parts"] :].decode().split(" "), counts, strict=True)) if counts else {}
        return Kept(Method.of(header["method"]), header["special_tokens"], known, json.loads(units))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_kept(path: Path, kept: Kept) -> None:
    """Put the counts into the file, with those that are there; a cache that cannot be written is done without."""
    earlier = read_kept(path)
    known = _small({**(earlier.known if earlier else {}), **kept.known})
    units = dict(islice({**(earlier.units if earlier else {}), **kept.units}.items(), _MOST_UNITS))
    body = json.dumps(units).encode() + b"\n" + bytes(known.values()) + " ".join(known).encode()
    header: dict[str, Any] = {
        **_stamp(body),
        "parts": len(known),
        "special_tokens": kept.special_tokens,
        "method": kept.method.document(),
    }
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(header).encode() + b"\n" + body)


def _small(known: Mapping[str, int]) -> dict[str, int]:
    """What fits the file: counts of a byte, the parts that were met first, and nothing that has no bytes."""
    found: dict[str, int] = {}
    for part, tokens in known.items():
        if part and tokens < 256 and len(found) < _MOST:
            found[part] = tokens
    return found


def _stamp(body: bytes) -> dict[str, Any]:
    return {"format": _FORMAT, "tokenizers": version("tokenizers"), "crc32": zlib.crc32(body)}

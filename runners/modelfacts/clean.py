"""What strangers wrote (configs, headers, the Hub's answers), made fit to be shown and to be reckoned with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

_COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys instead of showing it: control characters (C0, C1), ends of lines, changes of direction; and
halves of characters, which cannot be written."""
_DEEPEST = 40
"""No config is nested deeper; what is, means to exhaust the reader."""
_LONGEST_NAME = 100

_LARGEST, _SMALLEST = 10**10, 1e-6
_ROPES = ("rope_scaling", "rope_parameters")
_KINDS_OF_ROPE = ("type", "rope_type")
_NUMBERS = frozenset({
    # How long a request may be
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len", "original_max_position_embeddings", "sliding_window", "factor",
    # Latent and sparse attention
    "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "index_topk", "index_head_dim",
    # The part that sees
    "mm_tokens_per_image", "downsample_ratio", "spatial_merge_size", "image_size", "patch_size", "hidden_size",
    "embed_dim",
})  # fmt: skip
"""Fields that engines' rules read from a config themselves."""
_MAY_BE_LISTS = frozenset({"image_size", "patch_size"})


def printable(text: str) -> str:
    r"""The text with what a terminal would obey written out, as in \x1b."""
    return _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)


def name_of(value: Any) -> str:
    """A name that somebody else gave; empty if it is no text."""
    if not isinstance(value, str):
        return ""
    return printable(value if len(value) <= _LONGEST_NAME else f"{value[:_LONGEST_NAME]}…")


def printable_in(value: Any, depth: int = 0) -> Any:
    """The same for every text in lists and mappings; None for what is nested too deep for any use."""
    if isinstance(value, str):
        return printable(value)
    if not isinstance(value, Mapping | list | tuple):
        return value
    if depth > _DEEPEST:
        return None
    if isinstance(value, Mapping):
        return {printable_in(key): printable_in(inner, depth + 1) for key, inner in value.items()}
    found = [printable_in(inner, depth + 1) for inner in value]
    return found if isinstance(value, list) else tuple(found)


def reckonable(config: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config without values that are no numbers where engines read numbers, and a sentence for each of them."""
    notes: dict[str, None] = {}
    return _reckonable(config, notes, within=""), tuple(notes)


def _reckonable(part: Mapping[str, Any], notes: dict[str, None], within: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in part.items():
        if value is None or (key in _NUMBERS and value == 0):
            found[key] = None  # as good as left out
        elif key in _NUMBERS and not (isinstance(value, list) and key in _MAY_BE_LISTS):
            if (number := _number(value)) is None:
                notes[_left_out(f"{within}.{key}" if within else key, value)] = None
            else:
                found[key] = number
        elif key in _ROPES and not isinstance(value, Mapping):
            notes[_left_out(key, value)] = None
        elif within and key in _KINDS_OF_ROPE:
            found[key] = name_of(value)
        elif isinstance(value, Mapping):
            found[key] = _reckonable(value, notes, within or (key if key in _ROPES else ""))
        else:
            found[key] = value
    return found


def _number(value: Any) -> int | float | None:
    """The number, also one that is written as text; None for what cannot be meant."""
    if isinstance(value, str):
        try:
            value = float(value) if len(value) <= _LONGEST_NAME else None
        except ValueError:
            return None
        value = int(value) if value is not None and isfinite(value) and value.is_integer() else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if value == value and _SMALLEST <= value <= _LARGEST else None


def _left_out(name: str, value: Any) -> str:
    return f"The config's {name} is {printable(repr(value))[:40]}: it is taken as left out."

"""Reads a config.json's fields: under each of their names, checked, with the model type's own defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from recipes.errors import Refused
from runners.modelfacts.clean import printable

_LARGEST = 10**10
"""No size in a config is larger; what is, is damaged or means to exhaust the reader."""
_MOST_LAYERS = 2_000

# The same size has other names in other families.
HIDDEN = ("hidden_size", "n_embd", "d_model", "model_dim")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num", "num_query_groups")
FEED_FORWARD = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "inner_hidden_size", "d_ff")
VOCABULARY = ("padded_vocab_size", "vocab_size")
POSITIONS = (
    "max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "model_max_length",
    "n_ctx", "max_target_positions",
)  # fmt: skip
HEAD_DIM = ("head_dim", "kv_channels", "attention_head_dim")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
EXPERTS_PER_TOKEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_topk",
    "moe_k",
    "moe_top_k",
    "top_k_experts",
    "top_k",
)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where fields were read, for sentences about them."""

    where: str = "config.json"
    advice: str = "mend the model's config.json, or fetch it again"
    names: Mapping[str, str] = field(default_factory=dict)
    """What fields are called there, if not as here."""

    def refusal(self, name: str, what: str) -> Refused:
        return Refused(f"{self.where}: {self.names.get(name, name)} {what}", advice=self.advice)


CONFIG = Origin()


@cache
def type_defaults() -> Mapping[str, Mapping[str, Any]]:
    """What a field means that a config leaves out, by model type: as transformers' configuration classes have it.

    A config that is nested in another (text_config) is saved without the fields that equal these.
    """
    found: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("defaults.json").read_text(encoding="utf-8"))
    return found


class Fields:
    """One config's fields; a None there counts as left out."""

    def __init__(self, config: Mapping[str, Any], model_type: str, *, origin: Origin = CONFIG) -> None:
        self.config = config
        self.model_type = model_type
        self.origin = origin
        self._defaults = type_defaults().get(model_type, {})

    def inner(self, name: str) -> Fields:
        """The fields of a part of the config (attn_config), which may be missing."""
        part = self.config.get(name)
        origin = replace(self.origin, where=f"{self.origin.where} {name}")
        return Fields(part if isinstance(part, Mapping) else {}, "", origin=origin)

    def any(self, *names: str) -> Any:
        """The first of these that is given, else the first that has a default; None without one."""
        for source in (self.config, self._defaults):
            for name in names:
                if (value := source.get(name)) is not None:
                    return value
        return None

    def gives(self, *names: str) -> bool:
        """Whether the config itself says it."""
        return any(self.config.get(name) is not None for name in names)

    def size(self, *names: str, default: int = 0) -> int:
        """A whole number. Raises Refused for anything else."""
        value = self.any(*names)
        return default if value is None else self._whole(names, value)

    def size_at(self, layer: int, *names: str, default: int = 0) -> int:
        """The same for one layer, where the config may give a list with one number for each."""
        value = self.any(*names)
        if not isinstance(value, list):
            return self.size(*names, default=default)
        if layer >= len(value):
            raise self.origin.refusal(self._given(names), f"has {len(value)} entries, too few for all layers")
        return default if value[layer] is None else self._whole(names, value[layer])

    def layers(self) -> int:
        return self.as_layers(self.positive(*LAYERS), self._given(LAYERS))

    def positive(self, *names: str) -> int:
        """A size that may be left out (then 0), but not be stated as 0. Raises Refused."""
        size = self.size(*names)
        if size == 0 and self.gives(*names):
            raise self._no_size(names, 0)
        return size

    def as_layers(self, count: int, name: str) -> int:
        """So many layers as a field says. Raises Refused for what no model has."""
        if count > _MOST_LAYERS:
            raise self.origin.refusal(name, f"is {count}: no model has so many layers")
        return count

    def factor(self, *names: str, default: float = 1.0) -> float:
        """A number that something is multiplied by. Raises Refused for anything else."""
        value = self.any(*names)
        if value is None:
            return default
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LARGEST:
            return float(value)
        raise self._no_size(names, value)

    def flag(self, *names: str, default: bool = False) -> bool:
        value = self.any(*names)
        return default if value is None else bool(value)

    def text(self, *names: str) -> str | None:
        value = self.any(*names)
        return value if isinstance(value, str) else None

    def items(self, *names: str) -> list[Any] | None:
        """A list, or a tuple from a default; None if it is not given as one."""
        value = self.any(*names)
        return list(value) if isinstance(value, list | tuple) else None

    def _whole(self, names: tuple[str, ...], value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST:
            return value
        raise self._no_size(names, value)

    def _no_size(self, names: tuple[str, ...], value: Any) -> Refused:
        return self.origin.refusal(self._given(names), f"is {printable(repr(value))[:60]}, not a size")

    def _given(self, names: tuple[str, ...]) -> str:
        return next((name for name in names if self.config.get(name) is not None), names[0])

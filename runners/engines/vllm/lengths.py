"""The model's length as vLLM derives it from config.json, and its refusal of a longer one.

config.py, later config/model.py: _get_and_verify_max_len; keys that were added are taken for all releases, because no
config that an old release can load has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from runners.engines.vllm import releases
from runners.engines.vllm.flags import Flags
from runners.engines.vllm.releases import Release
from runners.modelfacts.facts import ModelFacts

_KEYS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"),
    *("max_target_positions", "max_sequence_length", "max_seq_length", "seq_len"),
)
_DEFAULT_TOKENS = 2048
_NO_SCALING = {"su", "longrope", "llama3", "mrope", "default"}
_NO_SCALING_LATER = {"yarn", "deepseek_yarn", "deepseek_llama_scaling"}
_NAN = (
    " VLLM_ALLOW_LONG_MAX_MODEL_LEN must be used with extreme caution. If the model uses relative position encoding "
    "(RoPE), positions exceeding derived_max_model_len lead to nan. If the model uses absolute position encoding, "
    "positions exceeding derived_max_model_len will cause a CUDA array out-of-bounds error."
)


@dataclass(frozen=True, kw_only=True)
class Length:
    """The longest request, in tokens, prompt and answer together."""

    tokens: int
    derived: int
    """What the model's config allows."""
    key: str | None
    """The field of the config that says so."""
    refusal: str = ""
    """vLLM's own words, if it does not accept max_model_len."""
    overridden: bool = False
    """The refusal was only a warning, because VLLM_ALLOW_LONG_MAX_MODEL_LEN is set."""
    fitted: bool = False
    """The engine shortens it to what fits (max_model_len: -1)."""


def model_length(model: ModelFacts, flags: Flags, release: Release) -> Length:
    """The effective max_model_len of a release."""
    config = {**model.text_config, **flags.hf_overrides}
    key, derived = _stated(config, release)
    if flags.disable_sliding_window and isinstance(window := config.get("sliding_window"), int) and window < derived:
        key, derived = "sliding_window", window
    asked = flags.max_model_len
    if derived == inf:
        if model.max_positions:
            key, derived = "max_position_embeddings", model.max_positions
        elif asked and asked > 0:
            return Length(tokens=asked, derived=asked, key=None)
        else:
            derived = _DEFAULT_TOKENS
    derived, starts_short = _scaled(derived, config, flags, release)
    if asked is None or asked <= 0:
        tokens = int(starts_short or derived)
        return Length(tokens=tokens, derived=int(derived), key=key, fitted=asked is not None)
    own = config.get("model_max_length")
    if asked <= derived or (own is not None and asked <= own and release >= Release((0, 4, 0))):
        return Length(tokens=asked, derived=int(derived), key=key)
    allowed = release >= releases.ALLOW_LONG and flags.env.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "0") not in {"", "0"}
    return Length(
        tokens=asked,
        derived=int(derived),
        key=key,
        refusal=_refusal(asked, key, derived, own, release),
        overridden=allowed,
    )


def _stated(config: Mapping[str, Any], release: Release) -> tuple[str | None, float]:
    stated = {key: config[key] for key in _KEYS if isinstance(config.get(key), int) and config[key] is not True}
    if not stated:
        return None, inf
    if release >= releases.MODEL_MAX_LENGTH_WINS and stated.get("model_max_length"):
        return "model_max_length", stated["model_max_length"]
    key = min(stated, key=lambda name: stated[name])
    return key, stated[key]


def _scaled(derived: float, config: Mapping[str, Any], flags: Flags, release: Release) -> tuple[float, int | None]:
    """The length after rope scaling, and the one that a longrope model starts with."""
    model_type = str(config.get("model_type", ""))
    if release >= releases.GEMMA3_DOES_NOT_SCALE and "gemma3" in model_type:
        return derived, None
    factor: float = 1.0 if release >= releases.ALWAYS_SCALES else 1
    starts_short = None
    for rope in _ropes(config, flags):
        kind = rope.get("rope_type") or rope.get("type") or "default"
        scales = kind not in _NO_SCALING and not (release >= releases.YARN_DOES_NOT_SCALE and kind in _NO_SCALING_LATER)
        if scales:
            factor = rope.get("factor") or 1.0
            if kind == "yarn":
                derived = rope.get("original_max_position_embeddings") or derived
        if kind == "longrope" and release >= releases.LONGROPE_STARTS_SHORT:
            starts_short = config.get("original_max_position_embeddings")
    return derived * factor, starts_short


def _ropes(config: Mapping[str, Any], flags: Flags) -> Iterator[Mapping[str, Any]]:
    """rope_scaling, or rope_parameters, which may hold one set for each kind of layer."""
    given = flags.rope_scaling or config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(given, Mapping):
        return
    inner = [value for value in given.values() if isinstance(value, Mapping)]
    yield from inner or [given]


def _plain(number: float) -> str:
    """As Python prints it: a scaled length is a float."""
    return str(int(number)) if isinstance(number, int) else str(number)


def _refusal(asked: int, key: str | None, derived: float, own: object, release: Release) -> str:
    head = f"User-specified max_model_len ({asked}) is greater than the derived max_model_len "
    if release < Release((0, 4, 0)):
        return (
            f"{head}({key}={_plain(derived)} in model's config.json). This may lead to incorrect model outputs or CUDA "
            "errors. Make sure the value is correct and within the model context size."
        )
    head += f"({key}={_plain(derived)} or model_max_length={own} in model's config.json)."
    if release < releases.ALLOW_LONG:
        return (
            f"{head} This may lead to incorrect model outputs or CUDA errors. Make sure the value is correct and "
            "within the model context size."
        )
    if release < releases.WARNS_OF_NAN:
        return (
            f"{head} This may lead to incorrect model outputs or CUDA errors. To allow overriding this maximum, set "
            "the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"
        )
    return f"{head} To allow overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1.{_NAN}"

"""What a recipe's flags mean to llama.cpp's server, with the defaults of the tested release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from recipes.spec import Engine as EngineSpec

# A flag under all its spellings: llama-server's, and the field of xllamacpp's CommonParams.
_SPELLINGS = {
    "b": "n_batch",
    "batch_size": "n_batch",
    "c": "n_ctx",
    "cache_ram": "cache_ram_mib",
    "ctk": "cache_type_k",
    "ctv": "cache_type_v",
    "ctx_size": "n_ctx",
    "fa": "flash_attn",
    "fit": "fit_params",
    "flash_attn_type": "flash_attn",
    "gpu_layers": "n_gpu_layers",
    "kvu": "kv_unified",
    "mg": "main_gpu",
    "ngl": "n_gpu_layers",
    "np": "n_parallel",
    "parallel": "n_parallel",
    "sm": "split_mode",
    "ts": "tensor_split",
    "ub": "n_ubatch",
    "ubatch_size": "n_ubatch",
}
ALL_LAYERS = -2

# Bytes of a block and its elements, as ggml's type traits define them.
_CACHE_TYPES = {
    "f32": (4, 1),
    "f16": (2, 1),
    "bf16": (2, 1),
    "q8_0": (34, 32),
    "q5_1": (24, 32),
    "q5_0": (22, 32),
    "q4_1": (20, 32),
    "q4_0": (18, 32),
    "iq4_nl": (18, 32),
}


@dataclass(frozen=True)
class CacheType:
    """The type in which keys or values are kept."""

    name: str

    @property
    def known(self) -> bool:
        return self.name in _CACHE_TYPES

    @property
    def bytes_per_element(self) -> float:
        size, elements = _CACHE_TYPES.get(self.name, _CACHE_TYPES["f16"])
        return size / elements

    @property
    def block(self) -> int:
        """Elements that are quantized together."""
        return _CACHE_TYPES.get(self.name, _CACHE_TYPES["f16"])[1]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags that decide about memory."""

    context: int = 0
    """Tokens of all slots together; 0 is the model's own for each slot."""
    slots: int = 1
    batch: int = 2048
    ubatch: int = 512
    key_type: CacheType = CacheType("f16")
    value_type: CacheType = CacheType("f16")
    unified: bool = False
    """Whether the slots share one cache, instead of having a part of their own each."""
    swa_full: bool = False
    flash_attention: bool = True
    """On, or automatic, which every backend of the tested release that matters here resolves to on."""
    gpu_layers: int | None = None
    """None: as many as fit."""
    kv_offload: bool = True
    split_mode: Literal["none", "layer", "row", "tensor"] = "layer"
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    fit: bool = True
    """Whether what the recipe leaves open (context, layers on the GPU) is made to fit at the start."""
    prompt_cache_gib: float = 8.0
    """RAM that prompts of idle slots may fill in the course of time."""
    context_key: str = "ctx_size"
    """Under which spelling the recipe sets the context, or would; of several the last one counts."""

    @classmethod
    def of(cls, spec: EngineSpec) -> Options:
        given = _given(spec.args)
        found: dict[str, Any] = {}
        numbers = {"n_ctx": "context", "n_parallel": "slots", "n_batch": "batch", "n_ubatch": "ubatch"}
        for flag, name in {**numbers, "main_gpu": "main_gpu"}.items():
            if (number := _number(flag, given.get(flag))) is not None:
                found[name] = number
        for flag, name in {"cache_type_k": "key_type", "cache_type_v": "value_type"}.items():
            if flag in given:
                found[name] = CacheType(str(given[flag]).lower().removeprefix("ggml_type_"))
        for flag, name in {"kv_unified": "unified", "swa_full": "swa_full", "fit_params": "fit"}.items():
            if flag in given:
                found[name] = _is_on(given[flag])
        if "flash_attn" in given:
            found["flash_attention"] = _is_on(given["flash_attn"]) or str(given["flash_attn"]) in ("auto", "-1")
        if "kv_offload" in given or "no_kv_offload" in given:
            found["kv_offload"] = _is_on(given.get("kv_offload", True)) and not _is_on(
                given.get("no_kv_offload", False)
            )
        if str(given.get("split_mode")) in ("none", "layer", "row", "tensor"):
            found["split_mode"] = given["split_mode"]
        if (mib := _whole(given.get("cache_ram_mib"))) is not None:
            found["prompt_cache_gib"] = max(0, mib) / 1024
        keys = [key for key, value in spec.args.items() if value is not None and _name(key) == "n_ctx"]
        return cls(
            **found,
            gpu_layers=_gpu_layers(given),
            tensor_split=_shares(given.get("tensor_split")),
            context_key=keys[-1] if keys else "ctx_size",
        )

    @property
    def streams(self) -> int:
        """Parts of the cache that are kept apart."""
        return 1 if self.unified else self.slots


def wrong_numbers(args: Mapping[str, Any]) -> dict[str, int | None]:
    """The flags, as they are written, that want a whole number and have none that will do: the least that would."""
    found = {key: _name(key) for key, value in args.items() if value is not None and _name(key) in _LEAST}
    return {key: _LEAST[name] for key, name in found.items() if _number(name, args[key]) is None}


_LEAST = {"n_ctx": 0, "n_parallel": -1, "n_batch": 1, "n_ubatch": 0, "threads": None}
"""Flags that want a whole number, with the least: 0 is the model's context, -1 lets the server choose."""
_MOST = 2**31 - 1
"""The engine keeps them in 32 bits."""


def _number(flag: str, value: Any) -> int | None:
    """The flag's value; None if it is none that the engine could take."""
    number, least = _whole(value), _LEAST.get(flag)
    within = number is not None and number <= _MOST and (least is None or number >= least)
    return number if within else None


def _given(args: Mapping[str, Any]) -> dict[str, Any]:
    """Each flag under its one name; a flag that is null is not given."""
    return {_name(key): value for key, value in args.items() if value is not None}


def _name(key: str) -> str:
    plain = key.replace("-", "_")
    return _SPELLINGS.get(plain, plain)


def _gpu_layers(given: Mapping[str, Any]) -> int | None:
    wanted = given.get("n_gpu_layers")
    if wanted == "all":
        return ALL_LAYERS
    number = _whole(wanted)
    return None if number == -1 else number


def _shares(value: Any) -> tuple[float, ...]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else ()
    try:
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        return ()


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _is_on(value: Any) -> bool:
    return value is True or str(value).lower() in ("1", "true", "on", "yes", "enabled")

"""The flags of a recipe as vLLM's command line reads them, under every spelling; None where one is not given."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recipes.spec import Engine as EngineSpec

_SHORT = {"q": "quantization", "tp": "tensor_parallel_size", "pp": "pipeline_parallel_size", "dp": "data_parallel_size"}
_SHORT |= {"ep": "enable_expert_parallel", "sc": "speculative_config", "cc": "compilation_config"}
_SHORT |= {"O": "compilation_config", "dcp": "decode_context_parallel_size"}
_POOLING_TASKS = {"embed", "embedding", "classify", "score", "reward"}
_MULTIPLIERS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def whole(value: object) -> int | None:
    """A whole number as vLLM reads it: 4096, "4096", "32k" (×1000), "32K" (×1024), "25.6k"."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return int(value)
    if not isinstance(value, str):
        return None
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)([kKmMgGtT]?)", value.strip())
    return int(float(match[1]) * _MULTIPLIERS.get(match[2], 1)) if match else None


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _switch(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"true", "false", "1", "0"}:
        return value.lower() in {"true", "1"}
    return None


def _text(value: object) -> str | None:
    return value.lower() if isinstance(value, str) and value else None


def _mapping(value: object) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the recipe asks of vLLM; a field is None where vLLM decides."""

    max_model_len: int | None = None
    """-1: the longest that fits."""
    gpu_memory_utilization: float | None = None
    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    block_size: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    enforce_eager: bool = False
    enable_chunked_prefill: bool | None = None
    disable_sliding_window: bool = False
    disable_hybrid_kv_cache_manager: bool | None = None
    cpu_offload_gb: float = 0.0
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None
    enable_expert_parallel: bool = False
    enable_lora: bool = False
    async_scheduling: bool | None = None
    load_format: str | None = None
    allow_deprecated_quantization: bool = False
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    num_scheduler_steps: int = 1
    performance_mode: str | None = None
    pooling: bool = False
    """It embeds or classifies, and samples nothing."""
    speculative: Mapping[str, Any] = field(default_factory=dict)
    compilation: Mapping[str, Any] = field(default_factory=dict)
    limit_mm_per_prompt: Mapping[str, Any] = field(default_factory=dict)
    skip_mm_profiling: bool = False
    language_model_only: bool = False
    hf_overrides: Mapping[str, Any] = field(default_factory=dict)
    rope_scaling: Mapping[str, Any] | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def no_images(self) -> bool:
        """Nothing but text is let in."""
        limits = self.limit_mm_per_prompt
        return self.language_model_only or (bool(limits) and not any(map(_allows, limits.values())))


def _allows(limit: object) -> bool:
    return bool(limit.get("count", 1) if isinstance(limit, Mapping) else limit)


def read_flags(spec: EngineSpec) -> Flags:
    """The flags of `engine` and `engine.args`, whether with dashes, underscores, short or dotted."""
    args = by_full_name(spec.args)
    length = args.get("max_model_len")
    return Flags(
        max_model_len=-1 if length == "auto" else whole(length),
        gpu_memory_utilization=_number(args.get("gpu_memory_utilization")),
        dtype=_text(args.get("dtype")),
        quantization=_text(args.get("quantization")),
        kv_cache_dtype=_text(args.get("kv_cache_dtype")),
        block_size=whole(args.get("block_size")),
        max_num_seqs=whole(args.get("max_num_seqs")),
        max_num_batched_tokens=whole(args.get("max_num_batched_tokens")),
        enforce_eager=bool(_switch(args.get("enforce_eager"))),
        enable_chunked_prefill=_switch(args.get("enable_chunked_prefill")),
        disable_sliding_window=bool(_switch(args.get("disable_sliding_window"))),
        disable_hybrid_kv_cache_manager=_switch(args.get("disable_hybrid_kv_cache_manager")),
        cpu_offload_gb=_number(args.get("cpu_offload_gb")) or 0.0,
        kv_cache_memory_bytes=whole(args.get("kv_cache_memory_bytes") or args.get("kv_cache_memory")),
        num_gpu_blocks_override=whole(args.get("num_gpu_blocks_override")),
        enable_expert_parallel=bool(_switch(args.get("enable_expert_parallel"))),
        enable_lora=bool(_switch(args.get("enable_lora"))),
        async_scheduling=_switch(args.get("async_scheduling")),
        load_format=_text(args.get("load_format")),
        allow_deprecated_quantization=bool(_switch(args.get("allow_deprecated_quantization"))),
        tensor_parallel_size=whole(args.get("tensor_parallel_size")) or spec.tensor_parallel_size,
        pipeline_parallel_size=whole(args.get("pipeline_parallel_size")) or spec.pipeline_parallel_size,
        data_parallel_size=whole(args.get("data_parallel_size")) or spec.data_parallel_size,
        num_scheduler_steps=whole(args.get("num_scheduler_steps")) or 1,
        performance_mode=_text(args.get("performance_mode")),
        pooling=_text(args.get("runner")) == "pooling" or _text(args.get("task")) in _POOLING_TASKS,
        speculative=_speculative(args),
        compilation=_mapping(args.get("compilation_config")),
        limit_mm_per_prompt=_limits(args.get("limit_mm_per_prompt")),
        skip_mm_profiling=bool(_switch(args.get("skip_mm_profiling"))),
        language_model_only=bool(_switch(args.get("language_model_only"))),
        hf_overrides=_mapping(args.get("hf_overrides")),
        rope_scaling=_mapping(args["rope_scaling"]) if args.get("rope_scaling") else None,
        env=dict(spec.env),
    )


def full_name(key: str) -> str:
    """A flag's name with underscores, without dashes, dots and abbreviation."""
    head = key.lstrip("-").partition(".")[0]
    return _SHORT.get(head, head.replace("-", "_"))


def by_full_name(args: Mapping[str, Any]) -> dict[str, Any]:
    """Keys as vLLM's own names; `no_x` is x: false, and `a.b: 1` is a: {b: 1}, as on its command line."""
    found: dict[str, Any] = {}
    for key, value in args.items():
        rest = key.partition(".")[2]
        name = full_name(key)
        if rest:
            inner = _mapping(found.get(name))
            found[name] = {**inner, rest.replace("-", "_"): value}
        elif name.startswith("no_") and value is True:
            found[name.removeprefix("no_")] = False
        else:
            found[name] = value
    return found


def _speculative(args: Mapping[str, Any]) -> Mapping[str, Any]:
    """speculative_config, or the flags of before 0.8.3."""
    if config := _mapping(args.get("speculative_config")):
        return config
    if model := args.get("speculative_model"):
        return {"model": model, "num_speculative_tokens": whole(args.get("num_speculative_tokens")) or 1}
    return {}


def _limits(value: object) -> Mapping[str, Any]:
    """limit_mm_per_prompt as a mapping, or in the old form image=1,video=0."""
    if isinstance(value, str) and "=" in value and not value.lstrip().startswith("{"):
        pairs = (part.split("=", 1) for part in value.split(",") if "=" in part)
        return {name.strip(): whole(count) for name, count in pairs}
    return _mapping(value)

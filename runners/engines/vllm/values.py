"""Values of flags that a release's command line, or its checks of its configuration, do not take.

engine/arg_utils.py (add_cli_args, human_readable_int), config/cache.py, config/scheduler.py (before 0.10 config.py);
attention backends' get_supported_kernel_block_sizes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from provisioners.contract import Finding
from runners.engines.vllm.flags import by_full_name, whole
from runners.engines.vllm.releases import Release

_Number = tuple[int, int, int]
_Value = TypeVar("_Value", int, str)

_DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")
_WHOLE = (
    *("max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size", "kv_cache_memory_bytes"),
    *("num_gpu_blocks_override", "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
)
_PARTS = ("gpu_memory_utilization", "cpu_offload_gb", "swap_space")
_HUMAN_SINCE = {
    "max_model_len": Release((0, 8, 3)),
    "max_num_batched_tokens": Release((0, 10, 2)),
    "kv_cache_memory_bytes": Release((0, 10, 2)),
}
"""Since when 32k and 32K are numbers."""
_AUTO_LENGTH = Release((0, 14, 0))
_BOUNDS_ARE_CHECKED = Release((0, 11, 2))
"""Every part of the configuration is validated by its bounds (pydantic)."""
_LEAST = {"max_num_seqs": 1, "max_num_batched_tokens": 1}

_BLOCK_SIZES: tuple[tuple[_Number, _Number, frozenset[int]], ...] = (
    # (first release that was read with these, last one, sizes); what lies between two rows may be either
    ((0, 2, 0), (0, 3, 0), frozenset({8, 16, 32})),
    ((0, 3, 3), (0, 3, 3), frozenset({8, 16, 32, 128})),
    ((0, 4, 1), (0, 5, 4), frozenset({8, 16, 32})),
    ((0, 5, 5), (0, 5, 5), frozenset({8, 16, 32, 128, 256, 512, 1024, 2048})),
    ((0, 6, 0), (0, 6, 3), frozenset({8, 16, 32})),
    ((0, 6, 4), (0, 6, 4), frozenset({8, 16, 32, 64, 128})),
    ((0, 6, 5), (0, 6, 5), frozenset({8, 16, 32})),
    ((0, 6, 6), (0, 8, 4), frozenset({8, 16, 32, 64, 128})),
    ((0, 8, 5), (0, 11, 0), frozenset({1, 8, 16, 32, 64, 128})),
    ((0, 11, 2), (0, 17, 0), frozenset({1, 8, 16, 32, 64, 128, 256})),
)
_BLOCKS_BY_BACKEND = Release((0, 18, 0))
"""Any size is taken, and then every attention backend of a GPU asks for a multiple of 16."""
_FP8 = ("auto", "fp8", "fp8_e5m2", "fp8_e4m3")
_CACHE_TYPES: tuple[tuple[_Number, _Number, frozenset[str]], ...] = (
    ((0, 3, 0), (0, 3, 3), frozenset({"auto", "fp8_e5m2"})),
    ((0, 4, 1), (0, 4, 2), frozenset({"auto", "fp8"})),
    ((0, 4, 3), (0, 9, 2), frozenset(_FP8)),
    ((0, 10, 0), (0, 10, 2), frozenset({*_FP8, "fp8_inc"})),
    ((0, 11, 0), (0, 11, 0), frozenset({*_FP8, "fp8_inc", "bfloat16"})),
    ((0, 11, 2), (0, 17, 0), frozenset({*_FP8, "fp8_inc", "fp8_ds_mla", "bfloat16"})),
    ((0, 18, 0), (0, 19, 0), frozenset({*_FP8, "fp8_inc", "fp8_ds_mla", "bfloat16", "float16"})),
)
_CACHE_TYPES_NOW = ("auto", "float", "bfloat", "fp8", "int4", "int8", "nvfp4", "turboquant", "octave", "ultraquant")
"""From 0.20 on a new one comes with nearly every release: how their names begin."""


def value_findings(args: Mapping[str, Any], number: Release, *, on_gpu: bool, plain_layers: bool) -> list[Finding]:
    """What is refused whatever the model. `plain_layers`: no layer keeps a state that sets the blocks' size itself."""
    given = {name: value for name, value in by_full_name(args).items() if value is not None}
    found = [*_types(given, number), *_bounds(given, number), *_choices(given, number)]
    size = whole(given.get("block_size"))
    by_backend = on_gpu and plain_layers and number >= _BLOCKS_BY_BACKEND
    if by_backend and size and size > 0 and size % 16:
        found.append(
            _refused(
                "block_size",
                f"no attention backend of vLLM {number} takes blocks of {size} tokens, only multiples of 16",
                "No valid attention backend found for cuda with AttentionSelectorConfig",
            )
        )
    return found


def _types(given: Mapping[str, Any], number: Release) -> Iterator[Finding]:
    """Numbers that are none."""
    for name in (*_WHOLE, *_PARTS):
        value = given.get(name)
        if value is None or (_is_whole(name, value, number) if name in _WHOLE else _is_part(value)):
            continue
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            quote = f"argument {flag}: expected one argument"
        else:
            kind = "float" if name in _PARTS else _whole_as_it_is_called(name, number)
            quote = f"argument {flag}: invalid {kind} value: '{value}'"
        yield _refused(name, f"engine.args.{name} is no number: {value}", quote)


def _whole_as_it_is_called(name: str, number: Release) -> str:
    if name not in _HUMAN_SINCE or number < _HUMAN_SINCE[name]:
        return "int"
    return "human_readable_int_or_auto" if name == "max_model_len" and number >= _AUTO_LENGTH else "human_readable_int"


def _is_whole(name: str, value: Any, number: Release) -> bool:
    if isinstance(value, str):
        text = value.strip()
        if name == "max_model_len" and text == "auto":
            return number >= _AUTO_LENGTH
        if name in _HUMAN_SINCE and number >= _HUMAN_SINCE[name] and whole(text) is not None:
            return True
        return text.removeprefix("-").replace("_", "").isdigit()
    return isinstance(value, int) and value is not True


def _is_part(value: Any) -> bool:
    if isinstance(value, bool):
        return not value
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _bounds(given: Mapping[str, Any], number: Release) -> Iterator[Finding]:
    for name, least in _LEAST.items():
        value = whole(given.get(name))
        if value is not None and value < least:
            checked = f"Input should be greater than or equal to {least}"
            yield _refused(
                name,
                f"engine.args.{name} is {value}; it has to be {least} at least",
                checked if number >= _BOUNDS_ARE_CHECKED else "integer division or modulo by zero",
            )
    share = given.get("gpu_memory_utilization")
    if share is None or isinstance(share, bool) or not _is_part(share):
        return
    if float(share) > 1:
        checked = "Input should be less than or equal to 1"
        yield _refused(
            "gpu_memory_utilization",
            f"engine.args.gpu_memory_utilization is {share}; it is a share of the memory, 1 at most",
            checked if number >= _BOUNDS_ARE_CHECKED else f"GPU memory utilization must be less than 1.0. Got {share}.",
        )
    elif float(share) <= 0 and number >= _BOUNDS_ARE_CHECKED:
        yield _refused(
            "gpu_memory_utilization",
            f"engine.args.gpu_memory_utilization is {share}; it has to be more than 0",
            "Input should be greater than 0",
        )


def _choices(given: Mapping[str, Any], number: Release) -> Iterator[Finding]:
    if (dtype := given.get("dtype")) is not None and dtype not in _DTYPES:
        yield _not_among("dtype", dtype, _DTYPES)
    kind = given.get("kv_cache_dtype")
    if kind is not None:
        known = _allowed(_CACHE_TYPES, number)
        if known is not None and kind not in known:
            yield _not_among("kv_cache_dtype", kind, sorted(known))
        elif known is None and not str(kind).startswith(_CACHE_TYPES_NOW):
            yield _not_among("kv_cache_dtype", kind, ("auto", "float16", "bfloat16", *_FP8[1:], "…"))
    size = whole(given.get("block_size"))
    sizes = _allowed(_BLOCK_SIZES, number)
    if size is not None and sizes is not None and size not in sizes:
        yield _not_among("block_size", size, sorted(sizes))


def _allowed(rows: tuple[tuple[_Number, _Number, frozenset[_Value]], ...], number: Release) -> frozenset[_Value] | None:
    """What a release takes; between two that were read what either takes; None if the table does not say."""
    if not rows[0][0] <= number.number <= rows[-1][1]:
        return None
    before = [values for first, _, values in rows if first <= number.number][-1]
    after = next(values for _, last, values in rows if number.number <= last)
    return before | after


def _not_among(name: str, value: object, values: Collection[object]) -> Finding:
    return _refused(
        name,
        f"engine.args.{name}: vLLM does not know {value}",
        f"argument --{name.replace('_', '-')}: invalid choice: {value!r} (choose from",
        suggestion=f"one of {', '.join(map(str, values))}",
    )


def _refused(name: str, message: str, quote: str, *, suggestion: str = "") -> Finding:
    code = "dtype" if name == "dtype" else "flag"
    return Finding(
        level="block", code=code, message=message, quote=quote, suggestion=suggestion, path=f"engine.args.{name}"
    )

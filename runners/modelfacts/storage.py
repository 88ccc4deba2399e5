"""How many bytes a weight takes as it is stored, by the method that quantizes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from runners.modelfacts.facts import Quantization
from runners.modelfacts.quantization import algorithm, is_ignored, matches, whole
from runners.modelfacts.weights import Weight

BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "BF16": 2, "F16": 2, "I16": 2, "U16": 2, "I8": 1,
    "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "C64": 8,
}  # fmt: skip
"""Of one element of a safetensors type."""
_HALF = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
_NAMES = {"bfloat16": "BF16", "float16": "F16", "half": "F16", "float32": "F32", "float": "F32"}

Piece = tuple[str, int]
"""A type and its elements."""


def bytes_of(dtype: str, elements: int) -> int:
    """Stored bytes; of types that are unknown here as if they took two for each element."""
    if dtype in _HALF:
        return ceil(elements * _HALF[dtype] / 8)
    return BYTES.get(dtype, 2) * elements


def stored_name(dtype: str | None) -> str:
    """torch's name of a type as safetensors writes it."""
    return _NAMES.get((dtype or "").removeprefix("torch."), "BF16")


def pieces(weight: Weight, quantization: Quantization | None, dtype: str) -> list[Piece]:
    """What is stored for a weight; `dtype` is the type of everything that is not quantized."""
    if quantization and weight.linear and quantization.method in _METHODS and _is_quantized(weight, quantization):
        found = _METHODS[quantization.method](weight, quantization, dtype)
        if found is not None:
            return [(kind, elements * weight.count) for kind, elements in found if elements]
    return [(dtype, weight.elements)]


def _is_quantized(weight: Weight, quantization: Quantization) -> bool:
    if is_ignored(quantization, weight.name):
        return False
    if quantization.method in ("mxfp4", "gpt_oss_mxfp4"):
        return weight.module == "experts"
    if weight.module == "lm_head":
        if quantization.method == "compressed-tensors":
            return _scheme(weight, quantization) is not None
        return bool(quantization.raw.get("lm_head"))
    return True


def _groups(weight: Weight, size: int | None) -> int:
    """Groups along the input features; a size of -1 or none is one group of all."""
    return ceil(weight.columns / size) if size and size > 0 else 1


def _gptq(weight: Weight, q: Quantization, dtype: str) -> list[Piece]:
    bits, groups = q.bits or 4, _groups(weight, q.group_size)
    qweight = ceil(weight.columns * bits / 32) * weight.rows
    zeros = groups * ceil(weight.rows * bits / 32)
    return [("I32", qweight + zeros + weight.columns), ("F16", groups * weight.rows)]


def _awq(weight: Weight, q: Quantization, dtype: str) -> list[Piece]:
    bits, groups = q.bits or 4, _groups(weight, q.group_size)
    packed = ceil(weight.rows * bits / 32)
    return [("I32", (weight.columns + groups) * packed), ("F16", groups * weight.rows)]


def _fp8(weight: Weight, q: Quantization, dtype: str) -> list[Piece]:
    size = weight.rows * weight.columns
    if q.block:
        scales = ceil(weight.rows / q.block[0]) * ceil(weight.columns / q.block[1])
        return [("F8_E4M3", size), ("F32", scales)]
    static = q.raw.get("activation_scheme") == "static"
    return [("F8_E4M3", size), ("F32", 2 if static else 1)]


def _fbgemm_fp8(weight: Weight, q: Quantization, dtype: str) -> list[Piece]:
    return [("F8_E4M3", weight.rows * weight.columns), ("F32", weight.rows)]


def _bitsandbytes(weight: Weight, q: Quantization, dtype: str) -> list[Piece]:
    size = weight.rows * weight.columns
    if not q.raw.get("load_in_4bit"):
        return [("I8", size), ("F32", weight.rows)]
    blocks = ceil(size / 64)
    map_and_state = [("F32", 16), ("U8", 96)]
    if q.raw.get("bnb_4bit_use_double_quant"):
        return [("U8", ceil(size / 2) + blocks), ("F32", ceil(blocks / 256) + 256), *map_and_state]
    return [("U8", ceil(size / 2)), ("F32", blocks), *map_and_state]


def _mxfp4(weight: Weight, q: Quantization, dtype: str) -> list[Piece]:
    size = weight.rows * weight.columns
    return [("U8", ceil(size / 2) + ceil(size / 32))]


def _nvfp4(weight: Weight) -> list[Piece]:
    size = weight.rows * weight.columns
    return [("U8", ceil(size / 2)), ("F8_E4M3", ceil(size / 16)), ("F32", 2)]


def _modelopt(weight: Weight, q: Quantization, dtype: str) -> list[Piece] | None:
    size, name = weight.rows * weight.columns, algorithm(q.raw)
    if "NVFP4" in name or (q.bits == 4 and q.raw.get("config_groups")):
        return _nvfp4(weight)
    if "FP8" in name or (q.bits == 8 and not name):
        return [("F8_E4M3", size), ("F32", 2)]
    if "AWQ" in name:
        return [("U8", ceil(size / 2)), (dtype, weight.rows * _groups(weight, q.group_size or 128))]
    return None


@dataclass(frozen=True)
class _Scheme:
    weights: Mapping[str, Any]
    inputs: Mapping[str, Any]
    format: str


def _scheme(weight: Weight, q: Quantization) -> _Scheme | None:
    """The group of compressed-tensors that a weight belongs to."""
    groups = q.raw.get("config_groups")
    if not groups and weight.module != "lm_head":
        written = str(q.raw.get("format") or "")
        return _Scheme(
            {"num_bits": 4 if "pack" in written else 8, "type": "float" if "float" in written else "int"}, {}, written
        )
    for group in groups.values() if isinstance(groups, Mapping) else ():
        if not isinstance(group, Mapping) or not isinstance(weights := group.get("weights"), Mapping):
            continue
        targets = group.get("targets") or ["Linear"]
        targets = targets if isinstance(targets, list | tuple) else [targets]
        if any(target == "Linear" or matches(str(target), weight.name) for target in targets):
            inputs = group.get("input_activations")
            written = str(group.get("format") or q.raw.get("format") or "")
            return _Scheme(weights, inputs if isinstance(inputs, Mapping) else {}, written)
    return None


def _compressed_tensors(weight: Weight, q: Quantization, dtype: str) -> list[Piece] | None:
    scheme = _scheme(weight, q)
    if scheme is None:
        return None
    bits = whole(scheme.weights.get("num_bits"), 32) or 8
    group_size = whole(scheme.weights.get("group_size"))
    if scheme.format.startswith("nvfp4"):
        return _nvfp4(weight)
    size, strategy = weight.rows * weight.columns, str(scheme.weights.get("strategy") or "")
    strategy = strategy or ("group" if group_size else "tensor")
    scales = {
        "tensor": 1,
        "channel": weight.rows,
        "group": weight.rows * _groups(weight, group_size),
        "block": _blocks(weight, q.block),
    }.get(strategy, 1)
    if scheme.format.startswith("mxfp4"):
        return [("U8", ceil(size / 2) + ceil(size / 32))]
    if "pack" in scheme.format or bits < 8:
        packed = weight.rows * ceil(weight.columns * bits / 32)
        zeros = (
            0
            if scheme.weights.get("symmetric", True)
            else ceil(weight.rows * bits / 32) * max(1, scales // weight.rows)
        )
        return [("I32", packed + zeros), (dtype, scales), ("I64", 2)]
    static = 1 if scheme.inputs and not scheme.inputs.get("dynamic") else 0
    kind = "F8_E4M3" if scheme.weights.get("type") == "float" else "I8"
    return [(kind, size), (dtype, scales + static)]


def _blocks(weight: Weight, block: tuple[int, int] | None) -> int:
    rows, columns = block or (128, 128)
    return ceil(weight.rows / rows) * ceil(weight.columns / columns)


_METHODS = {
    "gptq": _gptq,
    "awq": _awq,
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm_fp8,
    "bitsandbytes": _bitsandbytes,
    "mxfp4": _mxfp4,
    "gpt_oss_mxfp4": _mxfp4,
    "modelopt": _modelopt,
    "compressed-tensors": _compressed_tensors,
}

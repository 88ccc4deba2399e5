"""Headers of safetensors files: which tensors of which types and sizes, by class of modules. No data is read.

The format: eight bytes (little-endian) with the length of a JSON object, then the object: name → dtype, shape, offsets.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from recipes.errors import Refused
from runners.modelfacts.clean import name_of
from runners.modelfacts.facts import Module, Quantization, Tensors
from runners.modelfacts.storage import BYTES

LENGTH_BYTES = 8
LONGEST_HEADER = 100_000_000
"""The format's own bound, in bytes."""
_AGAIN = "fetch the file again"


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str
    elements: int
    bytes: int


def header_length(start: bytes, name: str, *, most: int = LONGEST_HEADER) -> int:
    """Of the JSON object, from a file's first eight bytes. Raises Refused, also for one of more than `most` bytes."""
    if len(start) < LENGTH_BYTES:
        raise Refused(f"{name} is no safetensors file: it ends after {len(start)} bytes", advice=_AGAIN)
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if not 2 <= length <= most:
        what = "a pointer of Git LFS" if start.startswith(b"version ") else f"its header would be {length:,} bytes long"
        raise Refused(f"{name} is no safetensors file: {what}", advice=_AGAIN)
    return length


def tensors_in(header: bytes, name: str) -> list[Tensor]:
    """The tensors that a header lists. Raises Refused for one that is cut off or damaged."""
    try:
        listed = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{name}: the header is no JSON object, or is cut off: {error}", advice=_AGAIN) from error
    if not isinstance(listed, dict):
        raise Refused(f"{name}: the header is no JSON object", advice=_AGAIN)
    return [_tensor(key, value, name) for key, value in listed.items() if key != "__metadata__"]


def _tensor(key: str, value: Any, name: str) -> Tensor:
    try:
        dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
        whole = all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end))
        elements = prod(shape)
        right = whole and isinstance(dtype, str) and begin <= end
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"{name}: the header does not say what {key!r:.80} is", advice=_AGAIN) from error
    if not right or (dtype in BYTES and elements * BYTES[dtype] != end - begin):
        raise Refused(f"{name}: the header contradicts itself about {key!r:.80}", advice=_AGAIN)
    return Tensor(key, name_of(dtype), elements, end - begin)


_NAMES: tuple[tuple[Module, str], ...] = (
    ("mtp", r"^(model\.)?(mtp|nextn)"),
    (
        "vision",
        r"(^|\.)(vision\w*|visual|vit|vpm|image_\w+|img_\w+|audio\w*|apm|speech\w*|multi_modal_projector|mm_projector"
        r"|multimodal_projector|embed_vision|embed_audio|modality_\w+|connector|resampler|mlp1|patch_merger)\.",
    ),
    ("embedding", r"(embed_tokens|tok_embeddings|word_embeddings|embed_in|embed_positions|\bwte|\bwpe)\b"),
    ("embedding", r"(^|\.)embeddings?\.weight$"),
    (
        "lm_head",
        r"(^|\.)(lm_head|embed_out|output_layer|language_model_head)\.|^(language_model\.)?(model\.)?output\.weight$",
    ),
    ("router", r"router|e_score_correction_bias|shared_expert_gate"),
    ("router", r"\b(mlp|moe|block_sparse_moe|feed_forward|mixer)\.gate\."),
    ("mlp", r"shared_experts?|shared_mlp|mixer\.(up_proj|down_proj)"),
    ("experts", r"(^|\.)experts\.|block_sparse_moe\.(input|output)_linear"),
    ("norm", r"(norm\w*|\bln_\w+|\bln\d)(\.\d+)?\.(weight|bias)$|(_norm|layernorm)$"),
    (
        "attention",
        r"(attn|attention|mamba|mixer|ssm|temporal_block|\bconv|W_pack|linear_attn"
        r"|[qkv]_proj|qkv_proj|o_proj|query_key_value|\bwqkv|\bwo\b)",
    ),
    ("mlp", r"(mlp|feed_forward|ffn|\bfc\d|c_fc|dense|gate_proj|up_proj|down_proj|\bw[123]\b)"),
)
_LAYER = r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\."


def module_of(name: str, layer_count: int = 0) -> Module:
    """The class of modules that a tensor belongs to, by the names that models give."""
    found: Module = next((module for module, pattern in _NAMES if re.search(pattern, name)), "other")
    number = re.search(_LAYER, name)
    if layer_count and number and int(number[1]) >= layer_count and found != "vision":
        return "mtp"  # layers after the last
    return found


# What a quantized weight is stored together with; it holds no weights of its own.
_BESIDE = (
    r"\.(qzeros|scales|g_idx|absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.\w+|SCB|weight_format"
    r"|weight_scale\w*|weight_shape|weight_zero_point|weight_global_scale|weight_g_idx|input_scale\w*|input_global_scale"
    r"|input_zero_point|[kvq]_scale|k_proj\.k_scale|v_proj\.v_scale|output_scale|pre_quant_scale|zeros)$|_scales$"
    r"|_scale_inv$|_scale(_\d)?$"
)


def summed(tensors: Iterable[Tensor], layer_count: int = 0) -> tuple[Tensors, ...]:
    """All tensors, together by class and type."""
    elements: Counter[tuple[Module, str]] = Counter()
    sizes: Counter[tuple[Module, str]] = Counter()
    for tensor in tensors:
        key = (module_of(tensor.name, layer_count), tensor.dtype)
        elements[key] += tensor.elements
        sizes[key] += tensor.bytes
    return tuple(
        Tensors(module=module, dtype=dtype, elements=count, bytes=sizes[module, dtype])
        for (module, dtype), count in elements.items()
    )


def parameters_of(tensors: Iterable[Tensor], quantization: Quantization | None) -> int:
    """Weights, packed ones counted one by one; scales and zero points are none."""
    return sum(_weights_in(tensors, quantization))


def _weights_in(tensors: Iterable[Tensor], quantization: Quantization | None) -> Iterator[int]:
    bits = quantization.bits if quantization else None
    for tensor in tensors:
        if quantization and re.search(_BESIDE, tensor.name):
            continue
        per_element = 1
        if bits and bits < 8 and tensor.dtype in ("I32", "U8", "I8"):
            per_element = (32 if tensor.dtype == "I32" else 8) // bits
        elif bits == 8 and tensor.dtype == "I32":
            per_element = 4
        yield tensor.elements * per_element

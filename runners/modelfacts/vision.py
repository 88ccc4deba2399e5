"""How many weights the part of a model has that sees, for the towers that are common: by arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from runners.modelfacts.fields import Fields, Origin

# What a vision_config leaves out where it equals its type's default.
_DEFAULTS: dict[str, dict[str, int]] = {
    "qwen2_vl": {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4, "patch_size": 14},
    "qwen2_5_vl": {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584, "patch_size": 14,
    },
    "qwen3_vl": {
        "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "out_hidden_size": 3584, "patch_size": 16,
        "num_position_embeddings": 2304,
    },
    "clip": {
        "num_hidden_layers": 24, "hidden_size": 1024, "intermediate_size": 4096, "image_size": 336, "patch_size": 14,
    },
    "siglip": {
        "num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "image_size": 224, "patch_size": 16,
    },
    "mllama": {
        "num_hidden_layers": 32, "num_global_layers": 8, "hidden_size": 1280, "intermediate_size": 5120,
        "vision_output_dim": 7680, "image_size": 448, "patch_size": 14, "max_num_tiles": 4,
    },
    "llama4": {
        "num_hidden_layers": 34, "hidden_size": 768, "intermediate_size": 5632, "vision_output_dim": 7680,
        "image_size": 448, "patch_size": 14, "projector_input_dim": 4096, "projector_output_dim": 4096,
    },
    "intern": {
        "num_hidden_layers": 48, "hidden_size": 3200, "intermediate_size": 12800, "image_size": 224, "patch_size": 14,
    },
    "pixtral": {"num_hidden_layers": 24, "hidden_size": 1024, "intermediate_size": 4096, "patch_size": 16},
}  # fmt: skip
_ORIGIN = Origin(where="config.json vision_config")
_DEEPSTACKS = 3
_MERGED = 4
"""Patches that become one token: two by two."""


def vision_elements(config: Mapping[str, Any], model_type: str, text_hidden: int) -> int | None:
    """Weights of the tower and what joins it to the language model; None for a tower that is not known here."""
    part = config.get("vision_config")
    make = _TOWERS.get(model_type)
    if make is None or not isinstance(part, Mapping):
        return None
    kind, count = make
    stated = str(part.get("model_type") or kind)
    if kind == "clip" and stated.startswith("pixtral"):
        kind, count = "pixtral", _pixtral
    elif kind in ("clip", "siglip", "pixtral") and not stated.startswith(kind):
        return None
    return count(Fields({**_DEFAULTS[kind], **part}, "", origin=_ORIGIN), config, text_hidden)


def _encoder(
    layers: int, width: int, inner: int, *, bias: bool = True, gated: bool = False, norm_bias: bool = True
) -> int:
    """So many layers of attention and feed-forward with two norms each."""
    matrices = 4 * width * width + (3 if gated else 2) * width * inner
    biases = 4 * width + (2 if gated else 1) * inner + width if bias else 0
    return layers * (matrices + biases + 2 * width * (2 if norm_bias else 1))


def _qwen2(v: Fields, config: Mapping[str, Any], text: int) -> int:
    width, patch, out = v.size("embed_dim"), v.size("patch_size"), v.size("hidden_size")
    merged = _MERGED * width
    tower = _encoder(v.size("depth"), width, v.size("mlp_ratio") * width) + 3 * 2 * patch * patch * width
    return tower + 2 * width + merged * merged + merged + out * merged + out


def _qwen2_5(v: Fields, config: Mapping[str, Any], text: int) -> int:
    width, patch, out = v.size("hidden_size"), v.size("patch_size"), v.size("out_hidden_size")
    merged = _MERGED * width
    tower = _encoder(v.size("depth"), width, v.size("intermediate_size"), gated=True, norm_bias=False)
    return tower + 3 * 2 * patch * patch * width + width + merged * merged + merged + out * merged + out


def _qwen3(v: Fields, config: Mapping[str, Any], text: int) -> int:
    width, patch, out = v.size("hidden_size"), v.size("patch_size"), v.size("out_hidden_size")
    merged = _MERGED * width
    joint = merged * merged + merged + out * merged + out
    stacked = v.items("deepstack_visual_indexes")
    deep = (
        len(stacked) if stacked is not None else 0 if str(config["model_type"]).startswith("qwen3_5") else _DEEPSTACKS
    )
    tower = _encoder(v.size("depth"), width, v.size("intermediate_size")) + 3 * 2 * patch * patch * width + width
    return tower + v.size("num_position_embeddings") * width + 2 * width + joint + deep * (2 * merged + joint)


def _joined(width: int, text: int, *, bias: bool) -> int:
    """Two linear layers to the language model's width."""
    return width * text + text * text + (2 * text if bias else 0)


def _clip(v: Fields, config: Mapping[str, Any], text: int) -> int:
    width, patch = v.size("hidden_size"), v.size("patch_size")
    places = (v.size("image_size") // max(1, patch)) ** 2 + 1
    tower = _encoder(v.size("num_hidden_layers"), width, v.size("intermediate_size"))
    outer = 5 * width + 3 * patch * patch * width + places * width
    newline = text if config["model_type"] == "llava_next" else 0
    return tower + outer + _joined(width, text, bias=config.get("multimodal_projector_bias") is not False) + newline


def _gemma3(v: Fields, config: Mapping[str, Any], text: int) -> int:
    width, patch, inner = v.size("hidden_size"), v.size("patch_size"), v.size("intermediate_size")
    places = (v.size("image_size") // max(1, patch)) ** 2
    tower = _encoder(v.size("num_hidden_layers"), width, inner) + 3 * patch * patch * width + width + places * width
    head = width + _encoder(1, width, inner) - 2 * width if v.flag("vision_use_head", default=True) else 0
    return tower + 2 * width + head + width * text + width


def _pixtral(v: Fields, config: Mapping[str, Any], text: int) -> int:
    width, patch = v.size("hidden_size"), v.size("patch_size")
    tower = _encoder(
        v.size("num_hidden_layers"), width, v.size("intermediate_size"), bias=False, gated=True, norm_bias=False
    )
    merger = width + _MERGED * width * width if config["model_type"] == "mistral3" else 0
    bias = bool(config.get("multimodal_projector_bias", config["model_type"] != "mistral3"))
    return tower + 3 * patch * patch * width + width + merger + _joined(width, text, bias=bias)


def _places(v: Fields) -> int:
    """Patches of an image, and one place for its class."""
    side = v.size("image_size") // max(1, v.size("patch_size"))
    return side * side + 1


def _mllama(v: Fields, config: Mapping[str, Any], text: int) -> int:
    width, patch, tiles = v.size("hidden_size"), v.size("patch_size"), v.size("max_num_tiles")
    plain, whole = v.size("num_hidden_layers"), v.size("num_global_layers")
    tower = _encoder(plain + whole, width, v.size("intermediate_size")) - 4 * width * (plain + whole) + 2 * whole
    ratios = len(v.items("supported_aspect_ratios") or [()] * 8) + 1
    tiled = ratios * tiles * (_places(v) + 2) * width + 3
    outer = 5 * width + 3 * patch * patch * width + _places(v) * width
    return tower + tiled + outer + v.size("vision_output_dim") * text + text


def _llama4(v: Fields, config: Mapping[str, Any], text: int) -> int:
    width, patch, inner = v.size("hidden_size"), v.size("patch_size"), v.size("intermediate_size")
    tower = _encoder(v.size("num_hidden_layers"), width, inner) + 5 * width + 3 * patch * patch * width
    between = v.size("projector_input_dim")
    adapter = between * inner + v.size("projector_output_dim") * between
    return tower + _places(v) * width + adapter + v.size("vision_output_dim") * text


def _intern(v: Fields, config: Mapping[str, Any], text: int) -> int:
    """InternViT: with a scale for each half of a layer, and norms of queries and keys in the large one."""
    width, patch, layers = v.size("hidden_size"), v.size("patch_size"), v.size("num_hidden_layers")
    plain_norm = v.text("norm_type") != "rms_norm"
    tower = _encoder(layers, width, v.size("intermediate_size"), norm_bias=plain_norm) + layers * 2 * width
    tower += layers * (2 * width if v.flag("qk_normalization") else 0) - layers * (
        0 if v.flag("qkv_bias") else 3 * width
    )
    merged = _MERGED * width
    joint = 2 * merged + merged * text + text * text + 2 * text
    return tower + 2 * width + 3 * patch * patch * width + _places(v) * width + joint


_TOWERS: dict[str, tuple[str, Callable[[Fields, Mapping[str, Any], int], int]]] = {
    "qwen2_vl": ("qwen2_vl", _qwen2),
    "qwen2_5_vl": ("qwen2_5_vl", _qwen2_5),
    "qwen3_vl": ("qwen3_vl", _qwen3),
    "qwen3_vl_moe": ("qwen3_vl", _qwen3),
    "qwen3_5": ("qwen3_vl", _qwen3),
    "qwen3_5_moe": ("qwen3_vl", _qwen3),
    "llava": ("clip", _clip),
    "llava_next": ("clip", _clip),
    "gemma3": ("siglip", _gemma3),
    "mllama": ("mllama", _mllama),
    "llama4": ("llama4", _llama4),
    "internvl_chat": ("intern", _intern),
    "mistral3": ("pixtral", _pixtral),
}

"""Layers with a state of fixed size per sequence: state spaces, linear attention, short convolutions."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from runners.modelfacts import blocks
from runners.modelfacts import fields as names
from runners.modelfacts.families import Family
from runners.modelfacts.fields import Fields
from runners.modelfacts.structure import Block, Recurrent

_RECURRENT = frozenset({"linear_attention", "mamba", "mamba2", "M", "conv", "kda", "recurrent"})
_FEED_FORWARD = frozenset({"mlp", "-"})
_EXPERTS = frozenset({"moe", "E"})


def block(fields: Fields, family: Family, layer: int) -> Block | None:
    """The layer, if it has such a part, or is one half of a layer only; None for what is attention and feed-forward."""
    make = _MAKERS.get(fields.model_type)
    if make is None:
        return None
    kind = _kind(fields, layer)
    usual = blocks.block(fields, family, layer)
    if fields.model_type in ("mamba", "mamba2", "falcon_mamba"):
        return Block(mixers=(make(fields),), norms=usual.norms)
    if fields.model_type == "nemotron_h":
        return _half(fields, family, layer, kind, make)
    if fields.model_type == "falcon_h1":
        return Block(mixers=(*usual.mixers, make(fields)), feed_forward=usual.feed_forward, norms=usual.norms)
    if kind not in _RECURRENT:
        return usual
    return Block(mixers=(make(fields),), feed_forward=usual.feed_forward, norms=usual.norms)


def _half(fields: Fields, family: Family, layer: int, kind: str, make: Callable[[Fields], Recurrent]) -> Block:
    """Nemotron-H: each layer is a mixer or a feed-forward, with one norm."""
    hidden = fields.size(*names.HIDDEN)
    if kind in _RECURRENT:
        return Block(mixers=(make(fields),), norms=hidden)
    usual = blocks.block(fields, family, layer)
    if kind in _EXPERTS:
        return Block(feed_forward=usual.feed_forward, norms=hidden)
    if kind in _FEED_FORWARD:
        return Block(feed_forward=blocks.dense(fields, family, layer), norms=hidden)
    return Block(mixers=usual.mixers, norms=hidden)


def _kind(fields: Fields, layer: int) -> str:
    """What the layer's mixer is, in the several ways of saying so."""
    pattern = fields.text("hybrid_override_pattern")
    if pattern is not None and layer < len(pattern):
        return pattern[layer]
    for name in ("layer_types", "layers_block_type", "block_types"):
        if (listed := fields.items(name)) is not None and layer < len(listed):
            return str(listed[layer])
    if (listed := fields.items("attn_type_list")) is not None and layer < len(listed):
        return "attention" if listed[layer] else "linear_attention"
    if (indices := fields.items("attn_layer_indices", "full_attn_idxs")) is not None:
        return "attention" if layer in indices else "mamba"
    linear = fields.config.get("linear_attn_config")
    if isinstance(linear, dict) and isinstance(full := linear.get("full_attn_layers"), list):
        return "attention" if layer + 1 in full else "kda"  # counted from one there
    if period := fields.size("attn_layer_period"):
        return "attention" if layer % period == fields.size("attn_layer_offset") else "mamba"
    if interval := fields.size("full_attention_interval", default=4 if "qwen3" in fields.model_type else 0):
        return "attention" if (layer + 1) % interval == 0 else "linear_attention"
    if fields.model_type == "minimax":
        return "linear_attention" if layer % 2 else "attention"
    return "mamba" if fields.model_type in ("bamba", "granitemoehybrid") else "attention"


def _delta_net(fields: Fields) -> Recurrent:
    """Gated delta networks (Qwen3-Next)."""
    hidden = fields.size(*names.HIDDEN)
    value_heads = fields.size("linear_num_value_heads")
    key_dim, value_dim = fields.size("linear_key_head_dim"), fields.size("linear_value_head_dim")
    keys, values = fields.size("linear_num_key_heads") * key_dim, value_heads * value_dim
    kernel, channels = fields.size("linear_conv_kernel_dim"), 2 * keys + values
    return Recurrent(
        state=channels * max(0, kernel - 1) + value_heads * key_dim * value_dim,
        linears=(
            ("linear_attn.in_proj_qkvz", 2 * keys + 2 * values, hidden),
            ("linear_attn.in_proj_ba", 2 * value_heads, hidden),
            ("linear_attn.out_proj", hidden, values),
        ),
        vectors=channels * kernel + 2 * value_heads + value_dim,
    )


def _mamba(fields: Fields) -> Recurrent:
    """Mamba's selective state space."""
    hidden = fields.size(*names.HIDDEN)
    expanded = fields.size("mamba_expand", "expand", default=2) * hidden
    inner = expanded if fields.model_type == "jamba" else fields.size("intermediate_size", default=expanded)
    state, kernel = fields.size("mamba_d_state", "state_size"), fields.size("mamba_d_conv", "conv_kernel", default=4)
    stated = fields.gives("mamba_dt_rank", "time_step_rank") and fields.text("mamba_dt_rank", "time_step_rank") is None
    rank = fields.size("mamba_dt_rank", "time_step_rank") if stated else ceil(hidden / 16)  # a text is "auto"
    conv_bias = fields.flag("mamba_conv_bias", "use_conv_bias", default=True)
    proj_bias = fields.flag("mamba_proj_bias", "use_bias")
    norms = rank + 2 * state if fields.model_type == "jamba" else 0
    return Recurrent(
        state=inner * max(0, kernel - 1) + inner * state,
        linears=(
            ("mamba.in_proj", 2 * inner, hidden),
            ("mamba.x_proj", rank + 2 * state, inner),
            ("mamba.dt_proj", inner, rank),
            ("mamba.out_proj", hidden, inner),
        ),
        vectors=inner * (state + 2 + kernel + conv_bias) + norms + proj_bias * (2 * inner + hidden),
    )


def _mamba2(fields: Fields) -> Recurrent:
    hidden = fields.size(*names.HIDDEN)
    expanded = fields.size("mamba_expand", "expand", default=2) * hidden
    heads = fields.size("mamba_n_heads", "mamba_num_heads", "num_heads")
    given = ("mamba_d_head", "mamba_head_dim", *(("head_dim",) if fields.model_type == "mamba2" else ()))
    automatic = fields.text(*given) is not None
    dim = (0 if automatic else fields.size(*given)) or expanded // max(1, heads)
    inner = fields.size("mamba_d_ssm") if fields.model_type == "falcon_h1" else heads * dim
    inner = inner or expanded
    state = fields.size("mamba_d_state", "ssm_state_size", "state_size", default=128)
    groups = fields.size("mamba_n_groups", "n_groups", default=1)
    kernel, channels = fields.size("mamba_d_conv", "conv_kernel", default=4), inner + 2 * groups * state
    conv_bias = fields.flag("mamba_conv_bias", "use_conv_bias", default=True)
    proj_bias = fields.flag("mamba_proj_bias", "use_bias")
    normed = fields.flag("mamba_rms_norm") if fields.model_type == "falcon_h1" else True
    rows = inner + channels + heads
    return Recurrent(
        state=channels * max(0, kernel - 1) + inner * state,
        linears=(("mamba.in_proj", rows, hidden), ("mamba.out_proj", hidden, inner)),
        vectors=channels * (kernel + conv_bias) + 3 * heads + normed * inner + proj_bias * (rows + hidden),
    )


def _lightning(fields: Fields) -> Recurrent:
    """Lightning attention (MiniMax-Text-01)."""
    hidden, dim = fields.size(*names.HIDDEN), blocks.head_dim(fields)
    inner = fields.size(*names.HEADS) * dim
    return Recurrent(
        state=inner * dim,
        linears=(
            ("self_attn.qkv_proj", 3 * inner, hidden),
            ("self_attn.output_gate", inner, hidden),
            ("self_attn.out_proj", hidden, inner),
        ),
        vectors=inner,
    )


def _short_conv(fields: Fields) -> Recurrent:
    """LFM2's gated short convolution."""
    hidden = fields.size(*names.HIDDEN)
    kernel, bias = fields.size("conv_L_cache", default=3), fields.flag("conv_bias")
    return Recurrent(
        state=hidden * max(0, kernel - 1),
        linears=(("conv.in_proj", 3 * hidden, hidden), ("conv.out_proj", hidden, hidden)),
        vectors=hidden * kernel + bias * 5 * hidden,
    )


def _kimi_delta(fields: Fields) -> Recurrent:
    """Kimi delta attention; its sizes may lie in a part of the config of their own."""
    part = fields.inner("linear_attn_config")
    hidden = fields.size(*names.HIDDEN)
    heads = part.size("num_heads") or fields.size("linear_num_heads", default=32)
    dim = part.size("head_dim") or fields.size("linear_head_dim", default=128)
    kernel = part.size("short_conv_kernel_size") or fields.size("linear_conv_kernel_dim", default=4)
    inner = heads * dim
    return Recurrent(
        state=3 * inner * max(0, kernel - 1) + heads * dim * dim,
        linears=(
            *((f"self_attn.{name}", inner, hidden) for name in ("q_proj", "k_proj", "v_proj")),
            *((f"self_attn.{name}", dim, hidden) for name in ("f_a_proj", "g_a_proj")),
            *((f"self_attn.{name}", inner, dim) for name in ("f_b_proj", "g_b_proj")),
            ("self_attn.b_proj", heads, hidden),
            ("self_attn.o_proj", hidden, inner),
        ),
        vectors=3 * inner * kernel + inner + heads + dim,
    )


_MAKERS: dict[str, Callable[[Fields], Recurrent]] = {
    "qwen3_next": _delta_net,
    "qwen3_5_text": _delta_net,
    "qwen3_5_moe_text": _delta_net,
    "jamba": _mamba,
    "mamba": _mamba,
    "falcon_mamba": _mamba,
    "mamba2": _mamba2,
    "bamba": _mamba2,
    "granitemoehybrid": _mamba2,
    "falcon_h1": _mamba2,
    "nemotron_h": _mamba2,
    "minimax": _lightning,
    "lfm2": _short_conv,
    "lfm2_moe": _short_conv,
    "kimi_linear": _kimi_delta,
}

"""From a config's fields to a decoder's layers: the families whose layers are attention and a feed-forward."""

from __future__ import annotations

from dataclasses import replace

from runners.modelfacts import fields as names
from runners.modelfacts.families import Family, Flag
from runners.modelfacts.fields import Fields
from runners.modelfacts.structure import Attention, Block, FeedForward, LatentAttention, Mixer, Mlp, MoE, Window

_REACHES: dict[str, Window] = {
    "full_attention": "full",
    "attention": "full",
    "global": "full",
    "sliding_attention": "sliding",
    "local": "sliding",
    "chunked_attention": "chunked",
}


def is_set(fields: Fields, flag: Flag) -> bool:
    """A family's flag: known, or a field of the config ("name=1": true where it is left out)."""
    if isinstance(flag, bool):
        return flag
    name, _, default = flag.partition("=")
    return fields.flag(name, default=bool(default))


def block(fields: Fields, family: Family, layer: int) -> Block:
    """One layer of attention and feed-forward, with the norms around them."""
    hidden = fields.size(*names.HIDDEN)
    width = 2 if family.norm_bias and fields.flag("layer_norm_elementwise_affine", default=True) else 1
    return Block(
        mixers=(mixer(fields, family, layer),),
        feed_forward=feed_forward(fields, family, layer),
        norms=_norms(fields, family) * width * hidden,
        other=_per_layer_input(fields),
    )


def _per_layer_input(fields: Fields) -> int:
    """Gemma 4's gate and projection of what each layer gets of its own; its norm is counted here as well."""
    own, hidden = fields.size("hidden_size_per_layer_input"), fields.size(*names.HIDDEN)
    return 2 * own * hidden + hidden if own and fields.model_type == "gemma4_text" else 0


def _norms(fields: Fields, family: Family) -> int:
    if fields.model_type in ("falcon", "RefinedWeb", "RefinedWebModel"):
        if fields.flag("new_decoder_architecture"):
            return fields.size("num_ln_in_parallel_attn", default=2)
        return 1 if fields.flag("parallel_attn", default=True) else 2
    if fields.flag("use_parallel_residual") and fields.model_type == "stablelm":
        return 1
    if fields.model_type == "gemma4_text" and experts_of(fields):
        return family.norms + 4  # three norms more, and the router's scale
    return family.norms


def mixer(fields: Fields, family: Family, layer: int) -> Mixer:
    if fields.size("kv_lora_rank") and fields.flag("use_mla", default=True):
        return _latent(fields)
    heads = fields.size_at(layer, *names.HEADS)
    dim = head_dim(fields)
    kv_heads = kv_heads_of(fields, layer)
    normed = 0
    if family.qk_norm and is_set(fields, family.qk_norm_if):
        normed = dim * (heads + kv_heads) if family.qk_norm == "heads" else 2 * dim
        normed *= 2 if family.norm_bias else 1
    reach, window = reach_of(fields, family, layer)
    if fields.model_type == "gemma4_text" and reach == "full":
        return _global(fields, heads, kv_heads)
    return Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=dim,
        value_dim=fields.size("v_head_dim") if fields.gives("v_head_dim") else 0,
        reach=reach,
        window=window,
        qkv_bias=is_set(fields, family.qkv_bias),
        o_bias=is_set(fields, family.o_bias),
        norms=normed,
        gated=is_set(fields, family.query_gate),
        extra=heads if fields.model_type == "gpt_oss" else 0,
    )


def _global(fields: Fields, heads: int, kv_heads: int) -> Attention:
    """Gemma 4's layers that see everything have heads of another size."""
    dim, same = fields.size("global_head_dim", default=512), fields.flag("attention_k_eq_v")
    grouped = (fields.size("num_global_key_value_heads") or kv_heads) if same else kv_heads
    return Attention(heads=heads, kv_heads=grouped, head_dim=dim, norms=2 * dim, shared_values=same)


def _latent(fields: Fields) -> LatentAttention:
    return LatentAttention(
        heads=fields.size(*names.HEADS),
        # DeepSeek-V2-Lite says null: that is no low rank, and not the type's default.
        q_rank=fields.size("q_lora_rank") if fields.config.get("q_lora_rank", 0) is not None else 0,
        kv_rank=fields.size("kv_lora_rank"),
        rope_dim=fields.size("qk_rope_head_dim"),
        nope_dim=fields.size("qk_nope_head_dim"),
        value_dim=fields.size("v_head_dim"),
        bias=fields.flag("attention_bias"),
        index_heads=fields.size("index_n_heads"),
        index_dim=fields.size("index_head_dim"),
    )


def head_dim(fields: Fields) -> int:
    heads = fields.size_at(0, *names.HEADS)
    return fields.size(*names.HEAD_DIM) or (fields.size(*names.HIDDEN) // heads if heads else 0)


def kv_heads_of(fields: Fields, layer: int = 0) -> int:
    """Grouped and multi query attention, under the names of the families that have it."""
    heads = fields.size_at(layer, *names.HEADS)
    if fields.model_type in ("falcon", "RefinedWeb", "RefinedWebModel"):
        if fields.flag("new_decoder_architecture") or fields.model_type == "RefinedWeb":
            return fields.size("num_kv_heads", "n_head_kv", "num_key_value_heads", default=heads)
        return 1 if fields.flag("multi_query", default=True) else heads
    if fields.model_type == "gpt_bigcode":
        return 1 if fields.flag("multi_query", default=True) else heads
    if fields.model_type == "chatglm" and not fields.flag("multi_query_attention", default=True):
        return heads
    inner = fields.inner("attn_config")
    return inner.size("kv_n_heads") or fields.size_at(layer, *names.KV_HEADS) or heads


def reach_of(fields: Fields, family: Family, layer: int) -> tuple[Window, int | None]:
    """Which tokens a layer sees, and of how many it has to keep keys and values."""
    chunk = fields.size("attention_chunk_size")
    window = fields.size("sliding_window", "attention_window_size")
    if "sliding_window" in fields.config and fields.config["sliding_window"] is None:
        window = 0  # stated: no window, whatever the type's default is
    reach = _reach(fields, family, layer)
    size = chunk if reach == "chunked" else window
    return (reach, size) if reach != "full" and size else ("full", None)


def _reach(fields: Fields, family: Family, layer: int) -> Window:
    types = fields.items("layer_types")
    if fields.config.get("use_sliding_window", True) is False:
        return "full"
    if types is not None and layer < len(types):
        return _REACHES.get(str(types[layer]), "full")
    if fields.model_type == "llama4_text":
        no_rope = fields.items("no_rope_layers")
        every = fields.size("no_rope_layer_interval", default=4)
        rope = bool(no_rope[layer]) if no_rope and layer < len(no_rope) else (layer + 1) % every != 0
        return "chunked" if rope else "full"
    if fields.model_type.startswith(("qwen2", "qwen3")):
        # The first layers see everything.
        beyond = layer >= fields.size("max_window_layers", default=28)
        return "sliding" if fields.flag("use_sliding_window") and beyond else "full"
    if family.sliding == "pattern":
        every = fields.size("sliding_window_pattern", "_sliding_window_pattern") or family.pattern
        return "sliding" if every and (layer + 1) % every else "full"
    if family.sliding == "even":
        return "full" if layer % 2 else "sliding"
    return "sliding" if family.sliding == "all" else "full"


def feed_forward(fields: Fields, family: Family, layer: int) -> FeedForward | None:
    plain = dense(fields, family, layer)
    count = experts_of(fields)
    shared = _shared(fields, plain.intermediate)
    if not count or not _has_experts(fields, layer):
        if fields.model_type == "llama4_text":
            return Mlp(intermediate=fields.size("intermediate_size_mlp"))
        if fields.model_type == "granitemoehybrid" and shared:
            return replace(plain, intermediate=shared)
        return plain
    own = fields.size("moe_intermediate_size", "moe_ffn_hidden_size", "expert_ffn_hidden_size")
    own = own or fields.inner("ffn_config").size("ffn_hidden_size") or plain.intermediate
    shared = _shared(fields, own)
    return MoE(
        count=count,
        per_token=experts_per_token(fields),
        intermediate=own,
        gated=family.gated,
        bias=family.expert_bias,
        router_bias=family.router_bias,
        score_bias=family.score_bias,
        shared=shared,
        shared_gate=family.shared_gate and bool(shared),
        dense=plain if fields.model_type == "gemma4_text" else None,
    )


def dense(fields: Fields, family: Family, layer: int) -> Mlp:
    return Mlp(
        intermediate=intermediate(fields, family, layer), gated=family.gated, bias=is_set(fields, family.mlp_bias)
    )


def experts_of(fields: Fields) -> int:
    if fields.model_type == "gemma4_text" and not fields.flag("enable_moe_block"):
        return 0
    return fields.size(*names.EXPERTS) or fields.inner("ffn_config").size("moe_num_experts")


def experts_per_token(fields: Fields) -> int:
    return fields.size(*names.EXPERTS_PER_TOKEN) or fields.inner("ffn_config").size("moe_top_k")


def _shared(fields: Fields, own: int) -> int:
    if fields.model_type == "llama4_text":
        return own
    stated = fields.size(
        "shared_expert_intermediate_size", "shared_intermediate_size", "moe_shared_expert_intermediate_size"
    )
    return stated or fields.size("n_shared_experts", "moe_num_shared_experts", "num_shared_experts") * own


def _has_experts(fields: Fields, layer: int) -> bool:
    """Whether this layer's feed-forward is a mixture of experts, in the several ways of saying so."""
    if (listed := fields.items("moe_layers")) is not None and fields.model_type == "llama4_text":
        return layer in listed
    if layer in (fields.items("mlp_only_layers") or ()):
        return False
    if (kinds := fields.items("mlp_layer_types")) is not None and layer < len(kinds):
        return str(kinds[layer]) == "sparse"
    if layer < fields.size("first_k_dense_replace"):
        return False
    frequency = fields.any("moe_layer_freq")
    if isinstance(frequency, list):
        return layer < len(frequency) and bool(frequency[layer])
    if isinstance(frequency, int) and frequency > 1:
        return layer % frequency == 0
    if (step := fields.size("decoder_sparse_step", "interleave_moe_layer_step")) > 1:
        return (layer + 1) % step == 0
    if period := fields.size("expert_layer_period"):
        return layer % period == fields.size("expert_layer_offset")
    return True


def intermediate(fields: Fields, family: Family, layer: int = 0) -> int:
    hidden = fields.size(*names.HIDDEN)
    if fields.model_type == "mpt":
        return fields.size("expansion_ratio", default=4) * hidden
    stated = fields.size_at(layer, *names.FEED_FORWARD) or fields.inner("ffn_config").size("ffn_hidden_size")
    if fields.model_type == "qwen":
        return stated // 2  # the config counts gate and up together
    if fields.model_type == "lfm2" and fields.flag("block_auto_adjust_ff_dim", default=True):
        share = int(2 * stated / 3 * (fields.factor("block_ffn_dim_multiplier") or 1))
        multiple = max(1, fields.size("block_multiple_of", default=256))
        return -(-share // multiple) * multiple
    return stated or family.wide * hidden

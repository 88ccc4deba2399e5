"""Every weight of a decoder, by arithmetic: class, name, rows and columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from runners.modelfacts.facts import Module
from runners.modelfacts.structure import (
    Attention,
    Block,
    Decoder,
    FeedForward,
    LatentAttention,
    Mixer,
    Mlp,
    MoE,
    Recurrent,
)


@dataclass(frozen=True, kw_only=True)
class Weight:
    module: Module
    name: str
    """As llama-like checkpoints name it, without ".weight": what lists of unquantized modules refer to."""
    rows: int
    """Output features; for a vector its length."""
    columns: int = 1
    """Input features."""
    count: int = 1
    """So many alike: experts."""
    linear: bool = False
    """A matrix product, which quantization may compress."""

    @property
    def elements(self) -> int:
        return self.rows * self.columns * self.count


def weights_of(decoder: Decoder) -> Iterator[Weight]:
    width = decoder.embedding or decoder.hidden
    yield Weight(
        module="embedding", name="model.embed_tokens", rows=decoder.vocabulary + decoder.extra_rows, columns=width
    )
    if decoder.positions:
        yield Weight(module="embedding", name="model.embed_positions", rows=decoder.positions)
    if width != decoder.hidden:
        for name in ("project_in", "project_out"):
            yield Weight(module="other", name=f"model.{name}", rows=decoder.hidden, columns=width, linear=True)
    for number, block in enumerate(decoder.blocks):
        yield from _of_block(block, f"model.layers.{number}", decoder.hidden)
    if decoder.final_norms:
        yield Weight(module="norm", name="model.norm", rows=decoder.final_norms)
    if not decoder.tied:
        yield Weight(module="lm_head", name="lm_head", rows=decoder.vocabulary, columns=width, linear=True)
    if decoder.head_bias:
        yield Weight(module="lm_head", name="lm_head.bias", rows=decoder.vocabulary)
    if decoder.own_rows:
        width = decoder.own_width * len(decoder.blocks)
        yield Weight(module="embedding", name="model.embed_tokens_per_layer", rows=decoder.own_rows, columns=width)
        yield Weight(module="other", name="model.per_layer_model_projection", rows=width, columns=decoder.hidden)
        yield Weight(module="norm", name="model.per_layer_projection_norm", rows=decoder.own_width)


def _of_block(block: Block, at: str, hidden: int) -> Iterator[Weight]:
    for mixer in block.mixers:
        yield from (w for w in _of_mixer(mixer, at, hidden) if w.elements)
    if block.feed_forward:
        yield from (w for w in _of_feed_forward(block.feed_forward, f"{at}.mlp", hidden) if w.elements)
    if block.norms:
        yield Weight(module="norm", name=f"{at}.input_layernorm", rows=block.norms)
    if block.other:
        yield Weight(module="other", name=f"{at}.other", rows=block.other)


def _linear(module: Module, name: str, rows: int, columns: int, *, bias: bool = False) -> Iterator[Weight]:
    yield Weight(module=module, name=name, rows=rows, columns=columns, linear=True)
    if bias:
        yield Weight(module=module, name=f"{name}.bias", rows=rows)


def _of_mixer(mixer: Mixer, at: str, hidden: int) -> Iterator[Weight]:
    match mixer:
        case Attention():
            yield from _attention(mixer, f"{at}.self_attn", hidden)
        case LatentAttention():
            yield from _latent_attention(mixer, f"{at}.self_attn", hidden)
        case Recurrent():
            for name, rows, columns in mixer.linears:
                yield from _linear("attention", f"{at}.{name}", rows, columns)
            yield Weight(module="attention", name=f"{at}.mixer", rows=mixer.vectors)


def _attention(a: Attention, at: str, hidden: int) -> Iterator[Weight]:
    queries = a.heads * a.head_dim * (2 if a.gated else 1)
    yield from _linear("attention", f"{at}.q_proj", queries, hidden, bias=a.qkv_bias)
    if a.projects:
        yield from _linear("attention", f"{at}.k_proj", a.kv_heads * a.head_dim, hidden, bias=a.qkv_bias)
    if a.projects and not a.shared_values:
        yield from _linear("attention", f"{at}.v_proj", a.kv_heads * a.values, hidden, bias=a.qkv_bias)
    yield from _linear("attention", f"{at}.o_proj", hidden, a.heads * a.values, bias=a.o_bias)
    yield Weight(module="norm", name=f"{at}.q_norm", rows=a.norms)
    yield Weight(module="attention", name=f"{at}.sinks", rows=a.extra)


def _latent_attention(a: LatentAttention, at: str, hidden: int) -> Iterator[Weight]:
    queries = a.heads * (a.nope_dim + a.rope_dim)
    if a.q_rank:
        yield from _linear("attention", f"{at}.q_a_proj", a.q_rank, hidden, bias=a.bias)
        yield Weight(module="norm", name=f"{at}.q_a_layernorm", rows=a.q_rank)
        yield from _linear("attention", f"{at}.q_b_proj", queries, a.q_rank)
    else:
        yield from _linear("attention", f"{at}.q_proj", queries, hidden)
    yield from _linear("attention", f"{at}.kv_a_proj_with_mqa", a.kv_rank + a.rope_dim, hidden, bias=a.bias)
    yield Weight(module="norm", name=f"{at}.kv_a_layernorm", rows=a.kv_rank)
    yield from _linear("attention", f"{at}.kv_b_proj", a.heads * (a.nope_dim + a.value_dim), a.kv_rank)
    yield from _linear("attention", f"{at}.o_proj", hidden, a.heads * a.value_dim, bias=a.bias)
    if a.index_heads:
        yield from _linear("attention", f"{at}.indexer.wq_b", a.index_heads * a.index_dim, a.q_rank)
        yield from _linear("attention", f"{at}.indexer.wk", a.index_dim, hidden)
        yield from _linear("attention", f"{at}.indexer.weights_proj", a.index_heads, hidden)
        yield Weight(module="norm", name=f"{at}.indexer.k_norm", rows=2 * a.index_dim)


def _of_feed_forward(part: FeedForward, at: str, hidden: int) -> Iterator[Weight]:
    match part:
        case Mlp():
            yield from _mlp(part, at, hidden)
        case MoE():
            yield from _moe(part, at, hidden)


def _mlp(part: Mlp, at: str, hidden: int, module: Module = "mlp") -> Iterator[Weight]:
    for name in ("gate_proj", "up_proj") if part.gated else ("up_proj",):
        yield from _linear(module, f"{at}.{name}", part.intermediate, hidden, bias=part.bias)
    yield from _linear(module, f"{at}.down_proj", hidden, part.intermediate, bias=part.bias)


def _moe(part: MoE, at: str, hidden: int) -> Iterator[Weight]:
    # A router is a matrix product too, but no method of quantization touches it.
    yield Weight(module="router", name=f"{at}.gate", rows=part.count, columns=hidden)
    yield Weight(module="router", name=f"{at}.gate.bias", rows=part.count * (part.router_bias + part.score_bias))
    expert = Mlp(intermediate=part.intermediate, gated=part.gated, bias=part.bias)
    for weight in _mlp(expert, f"{at}.experts.0", hidden, "experts"):
        yield replace(weight, count=part.count)
    if part.shared:
        shared = Mlp(intermediate=part.shared, gated=part.gated)
        yield from _mlp(shared, f"{at}.shared_experts", hidden)
    if part.shared_gate:
        yield Weight(module="router", name=f"{at}.shared_expert_gate", rows=hidden)
    if part.dense:
        yield from _mlp(part.dense, f"{at}.dense", hidden)

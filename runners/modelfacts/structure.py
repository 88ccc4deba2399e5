"""A decoder as its parts: what each layer mixes tokens and features with. Pure values; sizes are elements."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Window = Literal["full", "sliding", "chunked"]


@dataclass(frozen=True, kw_only=True)
class Attention:
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int = 0
    """0: as wide as keys."""
    reach: Window = "full"
    window: int | None = None
    qkv_bias: bool = False
    o_bias: bool = False
    norms: int = 0
    """Elements of the norms of queries and keys."""
    gated: bool = False
    """Queries come with a gate of their size."""
    extra: int = 0
    """Other weights: sinks, gates."""
    shared_values: bool = False
    """Values are the keys' projection."""
    keeps: bool = True
    """Whether it keeps keys and values of its own for each token; False where another layer's are used."""
    projects: bool = True
    """Whether it makes keys and values."""

    @property
    def values(self) -> int:
        return self.value_dim or self.head_dim


@dataclass(frozen=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2): one vector per token for all heads."""

    heads: int
    q_rank: int
    """0: queries are projected at once."""
    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    bias: bool = False
    index_heads: int = 0
    """The indexer of sparse attention (DeepSeek-V3.2), which keeps a key of index_dim per token."""
    index_dim: int = 0


@dataclass(frozen=True, kw_only=True)
class Recurrent:
    """A state of fixed size per sequence: state space, linear attention, convolution."""

    state: int
    """Elements of one sequence's state."""
    linears: tuple[tuple[str, int, int], ...]
    """Name, rows (output), columns (input)."""
    vectors: int = 0
    """Elements of everything that is no matrix product: convolution, decay, norms, biases."""


@dataclass(frozen=True, kw_only=True)
class Mlp:
    intermediate: int
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True, kw_only=True)
class MoE:
    count: int
    per_token: int
    intermediate: int
    gated: bool = True
    bias: bool = False
    router_bias: bool = False
    score_bias: bool = False
    """One correction per expert beside the router."""
    shared: int = 0
    """Intermediate size of the shared expert, all of them together."""
    shared_gate: bool = False
    dense: Mlp | None = None
    """A dense feed-forward that runs beside the experts."""


Mixer = Attention | LatentAttention | Recurrent
FeedForward = Mlp | MoE


@dataclass(frozen=True, kw_only=True)
class Block:
    """One layer; two mixers run side by side (Falcon-H1)."""

    mixers: tuple[Mixer, ...] = ()
    feed_forward: FeedForward | None = None
    norms: int = 0
    other: int = 0


@dataclass(frozen=True, kw_only=True)
class Decoder:
    hidden: int
    vocabulary: int
    blocks: tuple[Block, ...]
    tied: bool
    positions: int = 0
    """Elements of a learned table of positions."""
    embedding: int = 0
    """Width of the embedding, where it is not the hidden size."""
    extra_rows: int = 0
    """Rows of the embedding that the head has not."""
    final_norms: int = 0
    head_bias: bool = False
    own_rows: int = 0
    """Rows of a second embedding, of which each layer gets own_width elements (Gemma 4)."""
    own_width: int = 0
    exact: bool = True
    """Whether the sum of the parts is the whole model."""
    unknown: tuple[str, ...] = field(default=())
    """Sentences on what had to be assumed."""

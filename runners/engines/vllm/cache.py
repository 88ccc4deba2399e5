"""The KV cache: what a block holds, how many blocks a request takes, and how many tokens the log then names.

worker/cache_engine.py (get_cache_block_size); v1/kv_cache_interface.py (page sizes, max_memory_usage_bytes);
v1/core/kv_cache_utils.py (groups of layers, get_kv_cache_config).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from runners.engines.vllm import releases
from runners.engines.vllm.releases import Release
from runners.engines.vllm.settings import Settings
from runners.modelfacts.facts import Layers, ModelFacts

_HEAD_OF_UNPACKED_MLA = 256
_STATE_ALIGNMENT = 16
_SPARSE_LATENT_FP8 = 656
"""Bytes of one token of DeepSeek-V3.2's latent in fp8_ds_mla."""


@dataclass(frozen=True)
class Group:
    """Layers that share block tables."""

    kind: str
    """full, window, chunk or state."""
    reach: int
    """Tokens that it keeps, for window and chunk."""
    block: int
    """Tokens of a block."""

    def blocks(self, tokens: int, in_flight: int) -> int:
        """Blocks of one request of so many tokens, at most."""
        match self.kind:
            case "state":
                return 1
            case "window":
                return -(-min(self.reach - 1 + in_flight, tokens) // self.block) + 1
            case "chunk":
                return -(-min(self.reach + in_flight, tokens) // self.block)
            case _:
                return -(-tokens // self.block)


@dataclass(frozen=True)
class Cache:
    """How the cache is laid out on one rank."""

    groups: tuple[Group, ...]
    bytes_per_block: int
    in_flight: int
    """Tokens that may be under way beyond a window."""
    by_concurrency: bool
    """Whether the log names concurrency × max_model_len."""
    reserved_blocks: int
    """Blocks that no request gets."""

    @property
    def block_tokens(self) -> int:
        return min(group.block for group in self.groups)

    def request_blocks(self, tokens: int) -> int:
        return max(1, sum(group.blocks(tokens, self.in_flight) for group in self.groups))

    def logged_tokens(self, blocks: int, max_model_len: int) -> int:
        """As vLLM's log counts them."""
        if self.by_concurrency:
            return int(blocks / self.request_blocks(max_model_len) * max_model_len)
        return blocks // len(self.groups) * self.block_tokens

    def longest(self, blocks: int, limit: int) -> int:
        """The longest request, up to `limit`, that the blocks hold."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.request_blocks(middle) <= blocks else (low, middle - 1)
        return low

    @property
    def bytes_per_token(self) -> float:
        """Over all groups that grow with a request."""
        growing = [group for group in self.groups if group.kind == "full"] or list(self.groups)
        return self.bytes_per_block * len(growing) / growing[0].block


@dataclass(frozen=True)
class _Page:
    """So many layers whose blocks have one size."""

    group: Group
    layers: int
    bytes: int


def cache_layout(model: ModelFacts, settings: Settings) -> Cache | None:
    """How the cache would be laid out; None for a model without one."""
    pages = [page for layers in model.layers if (page := _page(layers, model, settings)) is not None]
    if not pages:
        return None
    release = settings.release
    in_flight = settings.max_num_batched_tokens
    if release >= releases.IN_FLIGHT_TOKENS_COUNT:
        in_flight *= settings.batches_in_flight
    groups, size = _grouped(_with_states(pages, settings), settings)
    return Cache(
        groups=groups,
        bytes_per_block=size,
        in_flight=in_flight,
        by_concurrency=settings.v1 and release >= releases.CAPACITY_BY_CONCURRENCY,
        reserved_blocks=1 if settings.v1 and release >= releases.ONE_BLOCK_IS_RESERVED else 0,
    )


def _page(layers: Layers, model: ModelFacts, settings: Settings) -> _Page | None:
    count = -(-layers.count // settings.pp)
    block, precision = settings.block_size, settings.precision
    if layers.mixer == "recurrent":
        if not settings.v1:
            return None  # The first engine kept states outside the cache.
        return _Page(Group("state", 0, block), count, _state_bytes(layers, model, settings))
    if layers.mixer == "mla" and settings.release >= releases.MLA_LATENT:
        per_token = layers.latent_dim * precision.kv_bytes
        if model.config.get("index_topk"):
            per_token = _SPARSE_LATENT_FP8 if precision.kv_bytes == 1 else per_token
            per_token += (model.config.get("index_head_dim") or 128) + 4
        return _Page(Group("full", 0, block), count, int(block * per_token))
    heads, dims = layers.kv_heads, layers.key_dim + layers.value_dim
    if layers.mixer == "mla":
        heads, dims = model.heads, 2 * _HEAD_OF_UNPACKED_MLA
    size = int(block * max(1, heads // settings.tp) * dims * precision.kv_bytes)
    return _Page(_reach(layers, settings), count, size)


def _reach(layers: Layers, settings: Settings) -> Group:
    """Windows count where the hybrid manager runs; elsewhere every layer keeps everything."""
    block, release = settings.block_size, settings.release
    hybrid = settings.v1 and release >= releases.HYBRID_CACHE
    if settings.flags.disable_hybrid_kv_cache_manager or "kv_transfer_config" in settings.flags.env:
        hybrid = False
    if layers.mixer == "sliding" and layers.window and hybrid and not settings.flags.disable_sliding_window:
        return Group("window", layers.window, block)
    # Chunked local attention turns the hybrid manager off (config/vllm.py).
    return Group("full", 0, block)


def _state_bytes(layers: Layers, model: ModelFacts, settings: Settings) -> int:
    wide = model.text_config.get("mamba_ssm_dtype") == "float32" and settings.release >= Release((0, 12, 0))
    width = 4 if wide else settings.precision.compute_bytes
    return int(layers.state_elements * width / settings.tp)


def _with_states(pages: Sequence[_Page], settings: Settings) -> list[_Page]:
    """A state fills one page: attention's blocks grow until they are as large (_align_hybrid_block_size)."""
    states = [page for page in pages if page.group.kind == "state"]
    attention = [page for page in pages if page.group.kind != "state"]
    if not states or not attention:
        return list(pages)
    per_token = max(page.bytes / page.group.block for page in attention)
    needed = max(page.bytes for page in states)
    block = _STATE_ALIGNMENT * -(-needed // int(_STATE_ALIGNMENT * per_token))
    block = max(block, settings.block_size)
    size = int(block * per_token)
    return [
        _Page(
            replace(page.group, block=block),
            page.layers,
            size if page in states else int(page.bytes / page.group.block * block),
        )
        for page in pages
    ]


def _grouped(pages: list[_Page], settings: Settings) -> tuple[tuple[Group, ...], int]:
    """The groups of layers, and the bytes of a block over the layers of one group."""
    merged: dict[tuple[Group, int], int] = {}
    for page in pages:
        merged[page.group, page.bytes] = merged.get((page.group, page.bytes), 0) + page.layers
    pages = [_Page(group, layers, size) for (group, size), layers in merged.items()]
    if len({page.group for page in pages}) == 1 or not settings.v1:
        return (pages[0].group,), sum(page.layers * page.bytes for page in pages)
    pages, size = _unified(pages)
    counts = [page.layers for page in pages]
    group_size = min(counts)
    if settings.release >= Release((0, 13, 0)):
        factor = 1.5 if settings.release >= Release((0, 19, 0)) else 1.25
        group_size = max(counts) if max(counts) < factor * group_size else group_size
    groups = [page.group for page in pages for _ in range(-(-page.layers // group_size))]
    return tuple(groups), group_size * size


def _unified(pages: list[_Page]) -> tuple[list[_Page], int]:
    """All pages of one size: smaller ones get longer blocks where that divides, else they are padded."""
    size = max(page.bytes for page in pages)
    unified = [
        replace(page, group=replace(page.group, block=page.group.block * (size // page.bytes)), bytes=size)
        if size % page.bytes == 0
        else replace(page, bytes=size)
        for page in pages
    ]
    return unified, size

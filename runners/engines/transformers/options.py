"""What a recipe's flags mean to `transformers serve`, with the defaults of the tested release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recipes.spec import Engine as EngineSpec
from runners.modelfacts.facts import ModelFacts
from runners.pytorch import STORED_NAMES

BATCH_TOKENS = 8192
"""cb_max_batch_tokens, if left out (PagedAttentionMemoryHandler)."""
PAGE_TOKENS = 256
"""cb_block_size, if left out (ContinuousBatchingConfig.page_size)."""
MAX_REQUESTS = 1024
"""Requests that are batched at once (FALLBACK_DEFAULTS)."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags that decide about memory."""

    dtype: str | None = None
    """None: what the model's config says, or its files (auto)."""
    quantization: str | None = None
    """bnb-4bit or bnb-8bit, of what is not quantized yet."""
    device: str | None = None
    """As the recipe says; None: recipe's own choice."""
    batching: bool = False
    """Continuous batching with a paged cache; without it requests are answered one by one."""
    pages: int | None = None
    page_tokens: int = PAGE_TOKENS
    batch_tokens: int = BATCH_TOKENS
    memory_share: float | None = None
    """Of what is free, for the paged cache."""
    flash: bool = False
    """Whether attention needs no masks in memory."""

    @classmethod
    def of(cls, spec: EngineSpec) -> Options:
        given: dict[str, Any] = {key.replace("-", "_"): value for key, value in spec.args.items() if value is not None}
        dtype = str(given.get("dtype", "auto"))
        share = given.get("cb_max_memory_percent")
        return cls(
            dtype=None if dtype == "auto" else dtype,
            quantization=str(given["quantization"]) if given.get("quantization") else None,
            device=str(given["device"]) if "device" in given else None,
            batching=given.get("continuous_batching") is True,
            pages=_whole(given.get("cb_num_blocks")),
            page_tokens=_whole(given.get("cb_block_size")) or PAGE_TOKENS,
            batch_tokens=_whole(given.get("cb_max_batch_tokens")) or BATCH_TOKENS,
            memory_share=float(share) if isinstance(share, int | float) and not isinstance(share, bool) else None,
            flash="flash" in str(given.get("attn_implementation", "")),
        )


def dtype_of(options: Options, model: ModelFacts) -> str:
    """In what it computes: the flag, else the config's type, else that of most of the weights."""
    if options.dtype:
        return options.dtype
    if model.dtype:
        return model.dtype
    stored = [tensors for tensors in model.tensors if tensors.dtype in STORED_NAMES]
    largest = max(stored, key=lambda tensors: tensors.bytes, default=None)
    return STORED_NAMES[largest.dtype] if largest else "float32"


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

"""GGUF models of any shape: their facts for planning, and a file that a real llama.cpp loads (sparse, all zeros)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from runners.modelfacts.facts import Experts, Layers, ModelFacts, Module, Tensors

# ggml's number of a type, bytes of a block, elements of a block
TYPES = {"F32": (0, 4, 1), "F16": (1, 2, 1), "Q4_0": (2, 18, 32), "Q8_0": (8, 34, 32)}
U32, F32, STRING, ARRAY, I32 = 4, 6, 8, 9, 5
ALIGNMENT = 32


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model with random weights, as far as its numbers go."""

    architecture: str = "llama"
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    trained: int
    dtype: str = "Q4_0"
    window: int | None = None
    """Five of six layers have it."""
    tied: bool = False
    experts: tuple[int, int, int] | None = None
    """How many, how many a token goes to, their inner size."""

    def tensors(self) -> Iterator[tuple[str, Module, tuple[int, ...], str]]:
        """Name, module, shape (ggml's order) and type."""
        hidden, queries, keys = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield "token_embd.weight", "embedding", (hidden, self.vocabulary), self.dtype
        yield "output_norm.weight", "norm", (hidden,), "F32"
        if not self.tied:
            yield "output.weight", "lm_head", (hidden, self.vocabulary), self.dtype
        for number in range(self.layers):
            block = f"blk.{number}."
            for name in ("attn_norm", "ffn_norm", *self._further_norms()):
                yield f"{block}{name}.weight", "norm", (hidden,), "F32"
            if self.architecture in ("gemma3", "qwen3moe"):
                yield f"{block}attn_q_norm.weight", "norm", (self.head_dim,), "F32"
                yield f"{block}attn_k_norm.weight", "norm", (self.head_dim,), "F32"
            for name, shape in (("q", (hidden, queries)), ("k", (hidden, keys)), ("v", (hidden, keys))):
                yield f"{block}attn_{name}.weight", "attention", shape, self.dtype
            yield f"{block}attn_output.weight", "attention", (queries, hidden), self.dtype
            yield from self._feed_forward(block)

    def _further_norms(self) -> tuple[str, ...]:
        return ("post_attention_norm", "post_ffw_norm") if self.architecture == "gemma3" else ()

    def _feed_forward(self, block: str) -> Iterator[tuple[str, Module, tuple[int, ...], str]]:
        if self.experts:
            count, _, inner = self.experts
            yield f"{block}ffn_gate_inp.weight", "router", (self.hidden, count), "F32"
            yield f"{block}ffn_gate_exps.weight", "experts", (self.hidden, inner, count), self.dtype
            yield f"{block}ffn_up_exps.weight", "experts", (self.hidden, inner, count), self.dtype
            yield f"{block}ffn_down_exps.weight", "experts", (inner, self.hidden, count), self.dtype
            return
        for name, shape in (("gate", (self.hidden, self.inner)), ("up", (self.hidden, self.inner))):
            yield f"{block}ffn_{name}.weight", "mlp", shape, self.dtype
        yield f"{block}ffn_down.weight", "mlp", (self.inner, self.hidden), self.dtype

    def facts(self) -> ModelFacts:
        sliding = self.layers - self.layers // 6 if self.window else 0
        kept = {"kv_heads": self.kv_heads, "key_dim": self.head_dim, "value_dim": self.head_dim}
        kinds = [Layers(count=self.layers - sliding, mixer="full", **kept)]
        if sliding:
            kinds.append(Layers(count=sliding, mixer="sliding", window=self.window, **kept))
        count, used, inner = self.experts or (0, 0, 0)
        return ModelFacts(
            identifier="random",
            form="gguf",
            architecture=self.architecture,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            layer_count=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            vocab_size=self.vocabulary,
            tied=self.tied,
            max_positions=self.trained,
            layers=tuple(kinds),
            experts=Experts(count=count, per_token=used, intermediate_size=inner, layers=self.layers)
            if count
            else None,
            tensors=tuple(
                Tensors(module=module, dtype=dtype, elements=prod(shape), bytes=bytes_of(shape, dtype))
                for _, module, shape, dtype in self.tensors()
            ),
        )

    def write(self, path: Path) -> Path:
        """The file; its tensors are a hole."""
        name, keys = self.architecture, _Keys()
        keys.text("general.architecture", name)
        numbers = {
            "block_count": self.layers,
            "context_length": self.trained,
            "embedding_length": self.hidden,
            "feed_forward_length": self.inner,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": self.head_dim,
            "attention.value_length": self.head_dim,
            "rope.dimension_count": self.head_dim,
            "vocab_size": self.vocabulary,
        }
        if self.window:
            numbers["attention.sliding_window"] = self.window
        if self.experts:
            parts = ("expert_count", "expert_used_count", "expert_feed_forward_length")
            numbers |= dict(zip(parts, self.experts, strict=True))
        for key, number in numbers.items():
            keys.number(f"{name}.{key}", number)
        keys.fraction(f"{name}.attention.layer_norm_rms_epsilon", 1e-5)
        keys.text("tokenizer.ggml.model", "gpt2")
        keys.text("tokenizer.ggml.pre", "gpt-2")
        pieces = ["<unk>", "<s>", "</s>", *(f"t{number}" for number in range(self.vocabulary - 3))]
        keys.texts("tokenizer.ggml.tokens", pieces)
        keys.texts("tokenizer.ggml.merges", ["a b"])
        keys.numbers("tokenizer.ggml.token_type", [3, 3, 3] + [1] * (self.vocabulary - 3))
        keys.number("tokenizer.ggml.eos_token_id", 2)
        tensors, size = list(self.tensors()), 0
        infos = b""
        for tensor, _, shape, dtype in tensors:
            infos += _text(tensor) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
            infos += struct.pack("<IQ", TYPES[dtype][0], size)
            size += _aligned(bytes_of(shape, dtype))
        head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), keys.count) + keys.data + infos
        with path.open("wb") as file:
            file.write(head)
            file.truncate(_aligned(len(head)) + size)
        return path


@dataclass
class _Keys:
    """The metadata of a GGUF file."""

    data: bytes = b""
    count: int = field(default=0)

    def _add(self, key: str, kind: int, value: bytes) -> None:
        self.data += _text(key) + struct.pack("<I", kind) + value
        self.count += 1

    def number(self, key: str, value: int) -> None:
        self._add(key, U32, struct.pack("<I", value))

    def fraction(self, key: str, value: float) -> None:
        self._add(key, F32, struct.pack("<f", value))

    def text(self, key: str, value: str) -> None:
        self._add(key, STRING, _text(value))

    def texts(self, key: str, values: list[str]) -> None:
        self._add(key, ARRAY, struct.pack("<IQ", STRING, len(values)) + b"".join(map(_text, values)))

    def numbers(self, key: str, values: Iterable[int]) -> None:
        values = list(values)
        self._add(key, ARRAY, struct.pack(f"<IQ{len(values)}i", I32, len(values), *values))


def bytes_of(shape: tuple[int, ...], dtype: str) -> int:
    _, size, block = TYPES[dtype]
    return prod(shape) // block * size


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def shape(**numbers: Any) -> Shape:
    """A small model, but for these numbers."""
    small = {"layers": 4, "hidden": 128, "inner": 256, "heads": 4, "kv_heads": 2, "head_dim": 32}
    return Shape(**{**small, "vocabulary": 512, "trained": 2048, **numbers})


LLAMA2_7B = Shape(
    layers=32, hidden=4096, inner=11008, heads=32, kv_heads=32, head_dim=128, vocabulary=32000, trained=4096
)
LLAMA2_70B = Shape(
    layers=80, hidden=8192, inner=28672, heads=64, kv_heads=8, head_dim=128, vocabulary=32000, trained=4096
)
LLAMA3_8B = Shape(
    layers=32, hidden=4096, inner=14336, heads=32, kv_heads=8, head_dim=128, vocabulary=128256, trained=131072
)
QWEN25_7B = Shape(
    layers=28,
    hidden=3584,
    inner=18944,
    heads=28,
    kv_heads=4,
    head_dim=128,
    vocabulary=152064,
    trained=32768,
    dtype="Q8_0",
)
GEMMA3_12B = Shape(
    architecture="gemma3", layers=48, hidden=3840, inner=15360, heads=16, kv_heads=8, head_dim=256, vocabulary=262144,
    trained=131072, window=1024, tied=True,
)  # fmt: skip
MIXTRAL = Shape(
    layers=32, hidden=4096, inner=14336, heads=32, kv_heads=8, head_dim=128, vocabulary=32000, trained=32768,
    experts=(8, 2, 14336),
)  # fmt: skip
QWEN3_MOE = Shape(
    architecture="qwen3moe", layers=48, hidden=2048, inner=6144, heads=32, kv_heads=4, head_dim=128, vocabulary=151936,
    trained=40960, experts=(128, 2, 768),
)  # fmt: skip

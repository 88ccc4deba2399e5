"""A model's facts as frozen values: what its config and its files' headers say, and what had to be assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Module = Literal["embedding", "lm_head", "attention", "mlp", "experts", "router", "norm", "vision", "mtp", "other"]
"""mtp: layers that predict further tokens, which engines load for speculative decoding only."""
Mixer = Literal["full", "sliding", "chunked", "mla", "recurrent"]
Source = Literal["headers", "arithmetic", "index", "sizes"]


@dataclass(frozen=True)
class File:
    name: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """All tensors of one class of modules that are stored in one type."""

    module: Module
    dtype: str
    """As the file's header writes it: BF16, F16, F32, F8_E4M3, I32, U8, Q4_K, …"""
    elements: int
    """As stored: eight 4-bit weights that are packed into an I32 are one."""
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Layers:
    """So many layers that keep the same state per token or sequence."""

    count: int
    mixer: Mixer
    """sliding: each token sees a window; mla: one latent vector for all heads; recurrent: a state of fixed size."""
    kv_heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    window: int | None = None
    """Tokens, for sliding and chunked."""
    latent_dim: int = 0
    """For mla: kv_lora_rank + qk_rope_head_dim, stored once and not per head."""
    state_elements: int = 0
    """For recurrent: elements of one sequence's state (convolution and state space), over all heads."""

    @property
    def elements_per_token(self) -> int:
        """What one token keeps in one layer of this kind, over all heads; 0 for recurrent."""
        if self.mixer == "recurrent":
            return 0
        return self.latent_dim or self.kv_heads * (self.key_dim + self.value_dim)


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Mixture of experts."""

    count: int
    per_token: int
    intermediate_size: int
    layers: int
    """How many layers have them."""
    shared_intermediate_size: int = 0


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How the stored weights are quantized."""

    method: str
    """As engines call it: gptq, awq, fp8, compressed-tensors, bitsandbytes, mxfp4, modelopt, gguf, …"""
    bits: int | None = None
    group_size: int | None = None
    block: tuple[int, int] | None = None
    kv_cache: str | None = None
    """The type that the checkpoint wants for the KV cache."""
    ignored: tuple[str, ...] = ()
    """Modules that are not quantized."""
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Everything that planning knows of a model."""

    identifier: str
    commit: str | None = None
    form: Literal["folder", "gguf"] = "folder"
    architecture: str = ""
    """As config.json's architectures[0], or GGUF's general.architecture."""
    model_type: str = ""
    known: bool = True
    """Whether this architecture's shapes are known to recipe; if not, `assumptions` say what was assumed."""
    hidden_size: int = 0
    intermediate_size: int = 0
    layer_count: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    vocab_size: int = 0
    tied: bool = False
    """The output layer is the embedding."""
    max_positions: int | None = None
    """The context length as the config states it, before any rope scaling; engines derive theirs from `config`."""
    dtype: str | None = None
    """The type that the config names for computing: bfloat16, float16, float32."""
    layers: tuple[Layers, ...] = ()
    experts: Experts | None = None
    quantization: Quantization | None = None
    multimodal: bool = False
    tensors: tuple[Tensors, ...] = ()
    weights_from: Source = "headers"
    """headers: the files' own; arithmetic: from the config, and it agrees with the stored total; index: a total that is
    spread by arithmetic; sizes: of the files alone."""
    files: tuple[File, ...] = ()
    """What an engine needs of the repository or folder."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """config.json as it is (a multimodal model's text_config not unfolded), or GGUF's metadata without long arrays."""
    assumptions: tuple[str, ...] = ()
    """Each a sentence for people: what was assumed, because nothing said it."""
    parameters: int = 0
    """Weights of the model, packed ones counted one by one."""

    @property
    def weight_bytes(self) -> int:
        """As stored."""
        return sum(tensors.bytes for tensors in self.tensors)

    @property
    def download_bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def bytes_of(self, *modules: Module) -> int:
        """Stored bytes of these classes of modules."""
        return sum(tensors.bytes for tensors in self.tensors if tensors.module in modules)

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The language model's own part of the config."""
        for key in ("text_config", "llm_config", "language_config"):
            if isinstance(inner := self.config.get(key), Mapping):
                return inner
        return self.config

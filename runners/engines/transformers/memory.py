"""What transformers needs: weights in the type that is computed in, or quantized; keys, values; the rest.

Weights follow modeling_utils.py (dtype) and integrations/bitsandbytes.py; the paged cache of continuous batching
follows generation/continuous_batching/cache.py of 5.23, with whose own figures it was compared.
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioners.accelerators import Machine
from runners.engines.transformers.options import MAX_REQUESTS, Options, dtype_of
from runners.modelfacts.facts import Layers, ModelFacts, Module, Tensors
from runners.pytorch import CUDA_CONTEXT_GIB, ITEM_BYTES, STORED_BYTES

GIB = 2**30
PROCESS_GIB = 0.35
"""RAM of Python, PyTorch and the server, measured on the CPU with a model of 3 MB."""
_LINEAR: frozenset[Module] = frozenset({"attention", "mlp"})
"""What bitsandbytes quantizes: nn.Linear but the output layer. Experts are one fused parameter, and stay."""
# nf4 in blocks of 64 with an 8-bit scale each, and these in blocks of 256 with a 4-byte scale (double quantization);
# int8 with a 4-byte scale per row, which is next to nothing.
_QUANTIZED_BYTES = {"bnb-4bit": 0.5 + 1 / 64 + 4 / (64 * 256), "bnb-8bit": 1.0}
_DEQUANTIZED_BELOW = (8, 9)
"""Compute capability from which 8-bit floats are computed; before, they become bfloat16 while loading."""
_GPU_SHARE, _CPU_SHARE = 0.9, 0.6
"""What continuous batching takes of the free memory, if nothing is said (resolve_max_memory_percent)."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Everything of a model on one machine, in GiB of the fullest place."""

    usable: float
    weights: float
    other: float
    activation: float
    """Of a prompt as long as the longest request."""
    kv_bytes_per_token: float
    kv_bytes_fixed: float
    """Of one sequence: windows that are full, states of recurrent layers."""
    places: int
    """GPUs that the layers are spread over."""
    automatic: bool = False
    """Whether the library places the layers itself (--device auto)."""
    spilled: float = 0.0
    """Weights that are left in RAM, because the GPUs together have no room for them."""

    @property
    def left(self) -> float:
        """For the KV cache, with a prompt under way; may be negative."""
        return self.usable - self.weights - self.other - self.activation


def weight_bytes(model: ModelFacts, options: Options, machine: Machine) -> float:
    """Of all weights, as loaded."""
    item = ITEM_BYTES.get(dtype_of(options, model), 2)
    quantized = _QUANTIZED_BYTES.get(options.quantization or "")
    return sum(_loaded(tensors, item, quantized, machine) for tensors in model.tensors)


def _loaded(tensors: Tensors, item: int, quantized: float | None, machine: Machine) -> float:
    if tensors.dtype in STORED_BYTES:
        return tensors.elements * (quantized if quantized and tensors.module in _LINEAR else item)
    if tensors.dtype.startswith("F8") and not computes_float8(machine):
        return tensors.elements * ITEM_BYTES["bfloat16"]
    return tensors.bytes


def computes_float8(machine: Machine) -> bool:
    accelerator = machine.accelerator
    capability = accelerator.compute_capability if accelerator else None
    return capability is not None and capability >= _DEQUANTIZED_BELOW


def elements_per_token(layers: Layers, model: ModelFacts) -> int:
    """Keys and values of a token in one layer. Latent attention is unfolded to all heads before it is cached."""
    if layers.mixer != "mla":
        return layers.elements_per_token
    config = model.text_config
    names = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    sizes = [value for name in names if isinstance(value := config.get(name), int)]
    return model.heads * sum(sizes) if len(sizes) == len(names) else layers.elements_per_token


def kv_per_token(model: ModelFacts, item: int) -> tuple[float, float]:
    """Bytes that each token adds, and bytes that a sequence takes whatever its length."""
    growing, fixed = 0.0, 0.0
    for layers in model.layers:
        size = layers.count * elements_per_token(layers, model) * item
        if layers.mixer == "recurrent":
            fixed += layers.count * layers.state_elements * item
        elif layers.window and layers.mixer == "sliding":
            fixed += layers.window * size
        else:
            growing += size
    return growing, fixed


def activation_bytes(model: ModelFacts, item: int, tokens: int) -> float:
    """The peak of a prompt's forward pass, which takes all its tokens at once.

    Either gate, up and their product beside the residual, or queries with keys and values repeated for all heads; and
    the logits of the last token, in its own type and as float32.
    """
    inner = model.intermediate_size
    if model.experts:
        inner = model.experts.per_token * model.experts.intermediate_size + model.experts.shared_intermediate_size
    widest = max(3 * inner + 3 * model.hidden_size, 4 * model.heads * model.head_dim + 3 * model.hidden_size)
    return tokens * item * widest + 2 * 4 * model.vocab_size


def need(model: ModelFacts, options: Options, machine: Machine, longest_tokens: int, *, stages: int) -> Need:
    """Of the fullest place. `stages` is pipeline_parallel_size."""
    item = ITEM_BYTES.get(dtype_of(options, model), 2)
    weights = weight_bytes(model, options, machine) / GIB
    growing, fixed = kv_per_token(model, item)
    activation = activation_bytes(model, item, longest_tokens) / GIB
    accelerator = machine.accelerator
    if accelerator is None or options.device == "cpu":
        usable = machine.ram_gib if machine.ram_gib is not None else weights + activation + PROCESS_GIB
        return Need(
            usable=usable,
            weights=weights,
            other=PROCESS_GIB,
            activation=activation,
            kv_bytes_per_token=growing,
            kv_bytes_fixed=fixed,
            places=1,
        )
    automatic = options.device == "auto" or (options.device is None and stages > 1)
    places = max(1, machine.count) if automatic else 1
    # Whole layers are moved, and one GPU holds the output layer beside its share.
    layer = weights / max(1, model.layer_count)
    share = weights / places + (layer if places > 1 else 0.0)
    room = accelerator.usable_gib - CUDA_CONTEXT_GIB
    spilled = max(0.0, share - room) * places if automatic else 0.0
    return Need(
        usable=accelerator.usable_gib,
        weights=share - spilled / places,
        other=CUDA_CONTEXT_GIB,
        activation=activation,
        kv_bytes_per_token=growing / places,
        kv_bytes_fixed=fixed / places,
        places=places,
        automatic=automatic,
        spilled=spilled,
    )


def tokens_one_by_one(found: Need) -> int:
    """Tokens of the one sequence that is under way."""
    free = found.left * GIB - found.kv_bytes_fixed
    if free <= 0 or found.kv_bytes_per_token <= 0:
        return 0
    return int(free / found.kv_bytes_per_token)


def paged_tokens(model: ModelFacts, options: Options, found: Need, *, on_gpu: bool) -> int:
    """Tokens of the paged cache of continuous batching, which is made when the first request comes."""
    item = ITEM_BYTES.get(dtype_of(options, model), 2)
    page = options.page_tokens
    block = page * item * sum(layers.count * elements_per_token(layers, model) for layers in model.layers)
    if block <= 0:
        return 0
    share = options.memory_share if options.memory_share is not None else (_GPU_SHARE if on_gpu else _CPU_SHARE)
    available = int((found.usable - found.weights - found.other) * GIB * share)
    batch, heads = options.batch_tokens, model.heads
    read_heads = 2 * model.kv_heads if options.flash else 2 * heads + model.kv_heads
    index = 8  # of int64
    attention = item * (
        model.hidden_size + model.head_dim * (heads + 2 * model.kv_heads + read_heads)
    )  # the peak of one token of a batch
    per_token = attention + 8 * 4 + 2 * index
    fixed = 2 * block + MAX_REQUESTS * (model.hidden_size * item + 4 * model.vocab_size)
    per_block = block + page * (read_heads * model.head_dim * item + index)
    if options.pages is not None:
        return options.pages * page
    masks = 0 if options.flash else item * batch
    blocks = (available - fixed - batch * per_token) // per_block
    mask_bytes = masks * (blocks * page + batch)
    blocks -= -(-mask_bytes // (per_block + masks * page))
    return max(0, int(blocks)) * page

"""What llama.cpp allocates at its start: the model's buffers, the KV cache, the compute buffers, and where they lie.

The formulas follow llama.cpp's llama-context.cpp, llama-kv-cache.cpp, llama-kv-cache-iswa.cpp, llama-model.cpp and
common/fit.cpp, and were compared with what the tested release logs ("KV buffer size", "compute buffer size") for models
of seven shapes from 1 M to 70 B parameters: the cache to the byte, the compute buffers within 8 %.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

from provisioners.accelerators import Machine
from runners.engines.llamacpp.options import ALL_LAYERS, Options
from runners.modelfacts.facts import Layers, ModelFacts

GIB = 2**30
_PAD = 256
"""Contexts and caches of windows are rounded up to this many tokens."""
_STATE_BYTES = 4
"""Recurrent states are float32."""
CUDA_CONTEXT_GIB = 0.5
"""Driver, kernels and cuBLAS of one process on one GPU: 0.3 to 0.7 GiB, growing with the GPU's generation."""
SERVER_GIB = 0.06
"""Resident size of the server itself: 40 to 60 MB with a model of 1 MB."""
_PIPELINE_COPIES = 4
"""Copies of the graph's inputs where layers are spread over GPUs (GGML_SCHED_MAX_COPIES)."""
FIT_MARGIN_GIB = 1.0
"""What --fit leaves free on each device, or of the RAM where there is none (fit_params_target)."""
_FIT_MIN_CONTEXT = 4096
"""Tokens of a slot below which --fit does not go (fit_params_min_ctx)."""


@dataclass(frozen=True)
class Context:
    """The context as the engine rounds it."""

    stream: int
    """Tokens of one part of the cache: of a slot, or of all where they share one (n_ctx_seq)."""
    total: int
    """Tokens of all parts (n_ctx)."""
    slot: int
    """The longest request: n_ctx_slot, which never exceeds what the model was trained on."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """What lies in one place, in GiB."""

    weights: float = 0.0
    kv: float = 0.0
    compute: float = 0.0
    other: float = 0.0

    @property
    def total(self) -> float:
        return self.weights + self.kv + self.compute + self.other


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where everything lies with a given context."""

    context: Context
    gpu: Use | None
    """Of the GPU that holds most; None if it computes on the CPU."""
    host: Use
    layers_on_gpu: int = 0
    """The output layer counts as one."""
    layers: int = 0


def padded(tokens: int) -> int:
    return -(-tokens // _PAD) * _PAD


def context_of(options: Options, model: ModelFacts, asked: int | None = None) -> Context:
    """The context for `asked` tokens of all slots; the recipe's, if left out, and else the model's own for each."""
    trained = model.max_positions or _FIT_MIN_CONTEXT
    tokens = asked or options.context or trained * options.streams
    total = padded(tokens)
    stream = total if options.unified else padded(total // options.slots)
    return Context(stream, stream * options.streams, min(stream, model.max_positions or stream))


def cells(layers: Layers, options: Options, context: Context) -> int:
    """Tokens that one part of these layers' cache has room for."""
    if layers.window is None or options.swa_full or layers.mixer not in ("sliding", "chunked"):
        return context.stream
    windows = layers.window * (options.slots if options.unified else 1)
    return padded(min(context.stream, windows + min(options.ubatch, options.batch)))


def kv_bytes(model: ModelFacts, options: Options, context: Context) -> float:
    """The whole KV cache, and the states of recurrent layers."""
    total = 0.0
    for layers in model.layers:
        if layers.mixer == "recurrent":
            total += layers.count * layers.state_elements * _STATE_BYTES * options.slots
            continue
        keys = layers.latent_dim or layers.kv_heads * layers.key_dim
        values = 0 if layers.latent_dim else layers.kv_heads * layers.value_dim
        per_token = keys * options.key_type.bytes_per_element + values * options.value_type.bytes_per_element
        total += layers.count * cells(layers, options, context) * options.streams * per_token
    return total


def mask_bytes(model: ModelFacts, options: Options, context: Context) -> float:
    """The attention masks: one for each kind of cache, float16 with flash attention."""
    kinds = {
        layers.window is not None: cells(layers, options, context)
        for layers in model.layers
        if layers.mixer != "recurrent"
    }
    return sum(kinds.values()) * _ubatch(options, context) * (2 if options.flash_attention else 4)


def compute_bytes(model: ModelFacts, options: Options, context: Context) -> float:
    """The largest set of float32 intermediates of a micro-batch that live at once, and the masks.

    Either the feed-forward part (five residual widths and three times the inner width of all experts of a token) or
    attention (three times queries and residual; without flash attention all scores too).
    """
    hidden = model.hidden_size
    inner = model.intermediate_size
    if model.experts:
        inner = model.experts.per_token * model.experts.intermediate_size + model.experts.shared_intermediate_size
    queries = model.heads * model.head_dim
    attention = 3 * hidden + 3 * queries
    if not options.flash_attention:
        longest = max((cells(layers, options, context) for layers in model.layers), default=context.stream)
        attention += 2 * model.kv_heads * model.head_dim + model.heads * longest
    floats = max(5 * hidden + 3 * inner, attention)
    return 4 * _ubatch(options, context) * floats + mask_bytes(model, options, context)


def _host_bytes(model: ModelFacts, options: Options, context: Context) -> float:
    """The buffer in RAM of a model that is on GPUs as a whole: the masks, and the embeddings of a micro-batch twice."""
    return mask_bytes(model, options, context) + 2 * 4 * model.hidden_size * _ubatch(options, context)


def _ubatch(options: Options, context: Context) -> int:
    return min(options.ubatch, options.batch, context.total)


def layout(model: ModelFacts, options: Options, machine: Machine) -> Layout:
    """What the engine makes of these flags on this machine, fitting what they leave open as it does itself."""
    context = context_of(options, model)
    if not options.fit:
        return _laid_out(model, options, machine, context, _asked_layers(model, options))
    if options.context == 0:
        context = _fitted_context(model, options, machine, context)
    layers = _asked_layers(model, options)
    laid_out = _laid_out(model, options, machine, context, layers)
    if options.gpu_layers is None and machine.accelerator and options.split_mode in ("none", "layer"):
        target = machine.accelerator.usable_gib - FIT_MARGIN_GIB
        while laid_out.gpu and laid_out.gpu.total > target and layers > 0:
            layers -= 1
            laid_out = _laid_out(model, options, machine, context, layers)
    return laid_out


def on_gpus(model: ModelFacts, options: Options, machine: Machine, slot_tokens: int) -> Layout:
    """With all that the recipe wants on GPUs there, and this context for each slot, whether it fits or not."""
    context = context_of(options, model, slot_tokens * options.streams)
    return _laid_out(model, options, machine, context, _asked_layers(model, options))


def _asked_layers(model: ModelFacts, options: Options) -> int:
    """Layers on GPUs, the output among them; all of them, unless the recipe wants fewer."""
    every = model.layer_count + 1
    wanted = options.gpu_layers
    return every if wanted is None or wanted == ALL_LAYERS or wanted < 0 else min(wanted, every)


def _fitted_context(model: ModelFacts, options: Options, machine: Machine, full: Context) -> Context:
    """The longest context that leaves the margin free, as `common_params_fit_impl` shortens one that nobody set."""
    accelerator = machine.accelerator
    memory_gib = accelerator.usable_gib if accelerator else machine.ram_gib
    if memory_gib is None:
        return full
    step = _PAD * options.streams
    low, high = min(_FIT_MIN_CONTEXT * options.streams, full.total) // step, full.total // step
    layers = _asked_layers(model, options)
    while low < high:
        middle = (low + high + 1) // 2
        tried = _laid_out(model, options, machine, context_of(options, model, middle * step), layers)
        if (tried.gpu or tried.host).total <= memory_gib - FIT_MARGIN_GIB:
            low = middle
        else:
            high = middle - 1
    return context_of(options, model, max(1, low) * step)


def _laid_out(model: ModelFacts, options: Options, machine: Machine, context: Context, layers: int) -> Layout:
    kv, compute = kv_bytes(model, options, context) / GIB, compute_bytes(model, options, context) / GIB
    weights, depth = model.weight_bytes / GIB, model.layer_count
    if machine.accelerator is None or layers <= 0:
        host = Use(weights=weights, kv=kv, compute=compute, other=SERVER_GIB)
        gpu = None if machine.accelerator is None else Use(compute=compute, other=CUDA_CONTEXT_GIB)
        return Layout(context=context, gpu=gpu, host=host, layers=depth + 1)
    embedding = model.bytes_of("embedding") / GIB
    head = embedding if model.tied else model.bytes_of("lm_head") / GIB
    repeating = max(0.0, weights - embedding - (0.0 if model.tied else head))
    block = Use(weights=repeating / max(1, depth), kv=kv / max(1, depth))
    if not options.kv_offload:
        block = replace(block, kv=0.0)
    gpu = _fullest(block, head, compute, layers, depth, options, max(1, machine.count))
    if machine.count > 1 and options.split_mode == "layer" and layers > depth:
        copies = (_PIPELINE_COPIES - 1) * mask_bytes(model, options, context) / GIB
        gpu = replace(gpu, compute=gpu.compute + copies)
    stay = depth - min(depth, layers - 1)
    host = Use(
        weights=embedding + stay * repeating / max(1, depth),
        kv=kv - (depth - stay) * block.kv,
        compute=compute if stay else _host_bytes(model, options, context) / GIB,
        other=SERVER_GIB,
    )
    return Layout(context=context, gpu=gpu, host=host, layers_on_gpu=layers, layers=depth + 1)


def _fullest(block: Use, head: float, compute: float, layers: int, depth: int, options: Options, count: int) -> Use:
    """What the GPU holds that holds most: of `layers` layers the last is the output."""
    blocks = min(depth, layers - 1)
    fixed = Use(compute=compute, other=CUDA_CONTEXT_GIB)
    if options.split_mode == "none" or count == 1:
        return replace(fixed, weights=blocks * block.weights + head, kv=blocks * block.kv)
    if options.split_mode in ("row", "tensor"):
        share = max(_shares(options, count))
        # By rows, the cache stays on the main GPU; by tensors, it is spread with the heads.
        kv = blocks * block.kv * (1.0 if options.split_mode == "row" else share)
        return replace(fixed, weights=share * (blocks * block.weights + head), kv=kv)
    held = _layers_per_gpu(layers, _shares(options, count))
    uses = []
    for number, here in enumerate(held):
        last = number == max(i for i, n in enumerate(held) if n)
        plain = here - 1 if last else here
        uses.append(replace(fixed, weights=plain * block.weights + (head if last else 0.0), kv=plain * block.kv))
    return max(uses, key=lambda use: use.total)


def _shares(options: Options, count: int) -> list[float]:
    """The part of the model that each GPU gets; equal ones by default, because their memory is equal."""
    given = [*options.tensor_split[:count], *[0.0] * (count - len(options.tensor_split))]
    whole = sum(given)
    return [part / whole for part in given] if whole > 0 else [1 / count] * count


def _layers_per_gpu(layers: int, shares: list[float]) -> list[int]:
    """How many layers each GPU holds: layer i goes to the first GPU whose cumulative share exceeds i / layers."""
    edges = [*list(accumulate(shares))[:-1], 1.0]
    held = [0] * len(shares)
    for layer in range(layers):
        held[next(i for i, edge in enumerate(edges) if layer / layers < edge)] += 1
    return held

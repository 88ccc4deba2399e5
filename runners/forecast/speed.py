"""How fast an engine would be on a machine: a roofline over its memory's bandwidth and its peak arithmetic.

A step takes the longer of what its arithmetic and what its memory traffic take (Williams, Waterman, Patterson 2009,
"Roofline: an insightful visual performance model"). A forward pass costs about 2 operations per active weight and token
(Kaplan et al. 2020, section 2.1) and, in attention, 4 per pair of tokens, layer and element of the queries' width. When
answers are generated, every step reads all active weights once and the KV cache of each sequence (Pope et al. 2022,
"Efficiently scaling transformer inference").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from provisioners.accelerators import Accelerator, Machine
from runners.forecast.work import Level
from runners.pace import EnginePace

if TYPE_CHECKING:
    from runners.modelfacts.facts import ModelFacts, Module, Tensors

# Shares of the peaks that engines reach. A published start of 0.2.1 showed 3,221 prompt tokens/s with a 70B model on
# two A100, which is 0.7 of their arithmetic, while it generated too; and 95 ms for a step that reads 70 GB on each,
# 0.36 of their bandwidth with the engine's own work in it. 0.6 and 0.75 are assumed between these and what matrix
# products and copies alone reach, 0.8 to 0.9.
_ARITHMETIC, _BANDWIDTH = 0.6, 0.75
# What is left of both with each doubling of accelerators that share a layer. Assumed: all-reduces take some 5 % of a
# step over NVLink, and three times that over PCIe.
_PER_DOUBLING_NVLINK, _PER_DOUBLING_PCIE = 0.95, 0.85
# Of the bus to an accelerator, what large copies reach; assumed. With it, 35 GiB on each of eight H20 make steps of
# 0.75 s; 0.53 s were published (64 sequences, 120 tokens/s).
_BUS, _UNKNOWN_BUS_GB_S = 0.8, 15.75
# A core with AVX2 at 2.6 GHz does 16 multiply-adds per cycle in float32. What a core and a socket read is assumed.
_CORE_TFLOPS, _CORE_GB_S, _SOCKET_GB_S = 0.083, 10.0, 200.0
_CPU_ARITHMETIC = 0.5
"""Of a core's peak; assumed, like the speed of its cache below."""
_CPU_ATTENTION, _CPU_GENERATION = 4.0, 3.0
"""How much longer an operation takes in attention, and in products of a matrix with single vectors, than in products of
matrices: measured with llama.cpp and a model that fits into the cache."""
_CACHE_BYTES, _CACHE_GB_S = 32 * 2**20, 100.0
_STEP_TOKENS = 2048
"""So many prompt tokens engines take into one step, and read what lies outside once for them."""
_LINEAR: tuple[Module, ...] = ("attention", "mlp", "experts")
"""What engines quantize while loading."""
_UNREAD: tuple[Module, ...] = ("vision", "mtp")
"""No text passes through these."""
_PLAIN = frozenset({"F64", "F32", "F16", "BF16"})
_WIDTH = {"float32": 4, "float16": 2, "bfloat16": 2}
_HALVES = ("bfloat16", "float16", "float32")
"""The fastest of these is taken where 16 bits are asked for: old accelerators turn them into others."""
_LEAST_HELD = 0.1
"""Of linear layers, whatever they are quantized to: below 2 of 16 bits nothing is left."""
_BESIDE_WEIGHTS = 64 * 2**20
"""Bytes on each accelerator that engines may count among the weights: tables and work spaces."""
# An accelerator of which nobody has noted them; assumed.
_UNKNOWN_TFLOPS, _UNKNOWN_GB_S = 50.0, 500.0
# For an endpoint of which nothing is known: about an 8B model on one data-centre GPU.
_UNKNOWN_TOKEN_S, _UNKNOWN_STEP_S, _UNKNOWN_SEQUENCE_S = 1 / 8000, 0.015, 0.0005


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds that requests take; each part grows with what it counts, so that less work is never slower."""

    request_s: float
    """Of each request, whatever its length."""
    token_s: float
    """Of each prompt token."""
    pair_s: float
    """Of each pair of a prompt token with one before it."""
    step_s: float
    """Of each step of generation, whatever runs: the engine's own work."""
    scheduling_s: float = 0.0
    """The same, of each sequence in a step."""
    weights_s: float
    """To read the weights that every token uses."""
    experts_s: float = 0.0
    """To read all experts."""
    expert_share: float = 0.0
    """Of the experts, what one token uses."""
    sequence_s: float
    """Of each sequence's arithmetic in a step."""
    context_s: float
    """To read the KV cache of one token."""
    replicas: int = 1
    basis: str = "roofline"

    def prefill_s(self, tokens: float) -> float:
        """One prompt."""
        return (self.request_s + self.token_s * tokens + self.pair_s * tokens * tokens / 2) / self.replicas

    def decode_step_s(self, running: float, context_tokens: float) -> float:
        """One token for each of so many sequences. Of E experts n tokens use E·(1 - (1 - k/E)^n) on average."""
        each = max(1.0, running / self.replicas)
        weights = self.weights_s + self.experts_s * (1 - math.pow(1 - self.expert_share, each))
        roofline = max(weights, each * self.sequence_s) + each * context_tokens * self.context_s
        return self.step_s + each * self.scheduling_s + roofline

    def scaled(self, prefill: float, decode: float, basis: str) -> Speed:
        """The same shape, with factors that were measured."""
        return replace(
            self,
            request_s=self.request_s * prefill,
            token_s=self.token_s * prefill,
            pair_s=self.pair_s * prefill,
            step_s=self.step_s * decode,
            scheduling_s=self.scheduling_s * decode,
            weights_s=self.weights_s * decode,
            experts_s=self.experts_s * decode,
            sequence_s=self.sequence_s * decode,
            context_s=self.context_s * decode,
            basis=basis,
        )


@dataclass(frozen=True)
class _Power:
    """What the machine's parts that share one replica can do, after losses."""

    flops: float
    bytes_s: float
    outside_bytes_s: float
    """To weights that lie outside of their memory."""


@dataclass(frozen=True)
class _Read:
    """Bytes that steps move."""

    dense: float
    """Of the weights that every token uses."""
    experts: float
    """Of all experts."""
    outside: float
    """The share of both that lies outside of the accelerators' memory."""


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """How many accelerators share the work."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    @property
    def together(self) -> int:
        """Accelerators of one replica."""
        return self.tensor * self.pipeline


def speed_of(model: ModelFacts | None, machine: Machine, parallel: Parallel, pace: EnginePace) -> Speed:
    """The roofline of one model on one machine; for an unknown model or endpoint, a guess that says so."""
    if model is None or not model.weight_bytes:
        return Speed(
            request_s=pace.request_s,
            token_s=_UNKNOWN_TOKEN_S,
            pair_s=0.0,
            step_s=_UNKNOWN_STEP_S,
            weights_s=0.0,
            sequence_s=_UNKNOWN_SEQUENCE_S,
            context_s=0.0,
            basis="a guess: the model's size is not known",
        )
    read, power = _read(model, parallel, pace), _power(machine, parallel, model, pace)
    byte_s = (1 - read.outside) * pace.slower / power.bytes_s + read.outside / power.outside_bytes_s
    active, heads = _active_parameters(model), model.vocab_size * model.hidden_size
    width = model.heads * model.head_dim or model.hidden_size
    slower = 1.0 if machine.accelerator else _CPU_ATTENTION
    fetched_s = read.outside * (read.dense + read.experts) / power.outside_bytes_s
    return Speed(
        request_s=pace.request_s,
        token_s=2.0 * max(active - heads, 1.0) / power.flops + fetched_s / _STEP_TOKENS,
        pair_s=4.0 * width * _attending_layers(model) * slower / power.flops,
        step_s=pace.step_s,
        scheduling_s=pace.sequence_s,
        weights_s=read.dense * byte_s,
        experts_s=read.experts * byte_s,
        expert_share=model.experts.per_token / model.experts.count if model.experts and model.experts.count else 0.0,
        sequence_s=2.0 * active * (1.0 if machine.accelerator else _CPU_GENERATION) / power.flops,
        context_s=_kv_bytes(model, pace) / power.bytes_s,
        replicas=parallel.data,
        basis="roofline",
    )


def _power(machine: Machine, parallel: Parallel, model: ModelFacts, pace: EnginePace) -> _Power:
    accelerator = machine.accelerator
    if accelerator is None:
        cores = pace.threads or machine.cpus or 1
        cached = model.weight_bytes <= _CACHE_BYTES
        gb_s = _CACHE_GB_S if cached else min(cores * _CORE_GB_S, _SOCKET_GB_S)
        bytes_s = gb_s * 1e9 * _BANDWIDTH
        return _Power(cores * _CORE_TFLOPS * 1e12 * _CPU_ARITHMETIC / pace.slower, bytes_s, bytes_s)
    gpus = parallel.together
    per_doubling = _PER_DOUBLING_NVLINK if accelerator.nvlink_gb_s else _PER_DOUBLING_PCIE
    together = gpus * per_doubling ** math.log2(gpus)
    tflops = _tflops(accelerator.tflops, pace.computes_in)
    gb_s = accelerator.bandwidth_gb_s or _UNKNOWN_GB_S
    return _Power(
        flops=tflops * 1e12 * _ARITHMETIC * together / pace.slower,
        bytes_s=gb_s * 1e9 * _BANDWIDTH * together,
        outside_bytes_s=min(_outside_gb_s(accelerator, pace), gb_s * _BANDWIDTH) * 1e9 * gpus,
    )


def _outside_gb_s(accelerator: Accelerator, pace: EnginePace) -> float:
    return pace.outside_gb_s or (accelerator.pcie_gb_s or _UNKNOWN_BUS_GB_S) * _BUS


def _tflops(peak: Mapping[str, float], computes_in: str | None) -> float:
    """Of the type that products are computed in; one that the accelerator lacks is turned into 16 bits."""
    own = computes_in if computes_in and computes_in in peak and computes_in not in _HALVES[:2] else None
    names = (own,) if own else _HALVES
    return max((peak[name] for name in names if name in peak), default=_UNKNOWN_TFLOPS)


def _read(model: ModelFacts, parallel: Parallel, pace: EnginePace) -> _Read:
    """What each step reads of the weights as the engine holds them.

    Of the embedding only the rows of a step's tokens are read, unless it is the output layer as well. By how much an
    engine holds more or less than the files, cast to what it computes in, its linear layers do.
    """
    sizes: dict[Module, float] = {}
    for tensors in model.tensors:
        sizes[tensors.module] = sizes.get(tensors.module, 0.0) + _held_bytes(tensors, pace)
    linear = sum(sizes.get(module, 0.0) for module in _LINEAR)
    whole = sum(size for module, size in sizes.items() if module != "mtp")
    changed = (pace.weight_bytes or whole) - whole
    if abs(changed) <= _BESIDE_WEIGHTS * parallel.together:
        changed = 0.0
    moved = max(linear + changed, _LEAST_HELD * linear) + pace.unpacked_bytes
    experts = moved * sizes.get("experts", 0.0) / linear if linear else 0.0
    unread = sum(sizes.get(module, 0.0) for module in (*_UNREAD, *(() if model.tied else ("embedding",))))
    dense = sum(sizes.values()) - unread - linear + moved - experts
    outside = min(1.0, pace.outside_bytes / max(whole + changed, 1.0))
    return _Read(dense=max(dense, 0.0), experts=experts, outside=outside)


def _held_bytes(tensors: Tensors, pace: EnginePace) -> float:
    """Plain floats are cast to the type that is computed in; what is packed stays."""
    width = _WIDTH.get(pace.computes_in or "")
    return float(tensors.elements * width if width and tensors.dtype.upper() in _PLAIN else tensors.bytes)


def _active_parameters(model: ModelFacts) -> float:
    """Weights that one token is multiplied with; of prompts only the last token is with the output layer."""
    stored = model.weight_bytes or 1
    embedding = model.vocab_size * model.hidden_size
    read = model.parameters * (1 - model.bytes_of(*_UNREAD) / stored)
    active = max(read - (0 if model.tied else embedding), 1.0)
    if not model.experts or not model.experts.count:
        return active
    share = model.bytes_of("experts") / stored
    return active * (1 - share + share * model.experts.per_token / model.experts.count)


def _attending_layers(model: ModelFacts) -> int:
    """Layers in which each token sees all before it."""
    full = sum(layers.count for layers in model.layers if layers.mixer in ("full", "mla"))
    return full if model.layers else model.layer_count


def _kv_bytes(model: ModelFacts, pace: EnginePace) -> float:
    """Of one token, over all layers."""
    if pace.kv_bytes_per_token:
        return pace.kv_bytes_per_token
    width = 4.0 if pace.computes_in == "float32" else 2.0
    return width * sum(layers.count * layers.elements_per_token for layers in model.layers)


@dataclass(frozen=True)
class Answers:
    """How long answers are, besides their mean."""

    max_tokens: int
    spread: float
    """Their standard deviation over their mean."""


def drive_s(levels: Sequence[Level], speed: Speed, slots: float, answers: Answers, *, round_trip_s: float) -> float:
    """Seconds for all levels, with at most `slots` requests running at once.

    The client asks first in, first out, so that a document's second level waits behind all first levels: the levels
    follow each other within one request's time. In each, prompts are worked on one after the other and answers grow
    side by side, and while the last of them are written fewer and fewer run: the longest of n is about sqrt(2 ln n)
    deviations above their mean. Between an answer's end and the next request on its place lies a round trip.
    """
    return sum(_level_s(level, speed, slots, answers, round_trip_s) for level in levels)


def _level_s(level: Level, speed: Speed, slots: float, answers: Answers, round_trip_s: float) -> float:
    n = level.requests
    running = min(max(min(slots, level.at_once or slots), 1.0), n)
    prompt, answer = level.prompt_tokens / n, level.output_tokens / n
    step_s = speed.decode_step_s(running, prompt + answer / 2)
    longest = answer * (1 + answers.spread * math.sqrt(2 * math.log(running)))
    longest = min(longest, max(float(answers.max_tokens), answer))
    together = n / running * (answer * step_s + round_trip_s)
    alone = (longest - answer) * speed.decode_step_s(1, prompt + answer / 2)
    last_s = speed.prefill_s(prompt) + answer * step_s
    if level.ending_s is not None:
        return level.ending_s + last_s
    worked_s = n * speed.prefill_s(prompt) + together + alone
    return max(worked_s, level.arriving_s + last_s) if level.arriving_s else worked_s

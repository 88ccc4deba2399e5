"""How fast an engine would be on a machine: a roofline over its memory's bandwidth and its peak arithmetic.

A step takes the longer of what its arithmetic and what its memory traffic take (Williams, Waterman, Patterson 2009,
"Roofline: an insightful visual performance model"). A forward pass costs about 2 operations per active weight and token
(Kaplan et al. 2020, section 2.1) and, in attention, 4 per pair of tokens, layer and element of the queries' width. When
answers are generated, every step reads all active weights once and the KV cache of each sequence (Pope et al. 2022,
"Efficiently scaling transformer inference").
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from provisioners.accelerators import Machine
from runners.forecast.work import Level
from runners.modelfacts.facts import ModelFacts

# Shares of the peak that engines reach. vLLM 0.2.1 showed 3,221 prompt tokens/s with a 70B model on two A100, which is
# 0.7 of their peak, while it generated too.
_ARITHMETIC, _BANDWIDTH = 0.6, 0.75
_PER_DOUBLING_NVLINK, _PER_DOUBLING_PCIE = 0.95, 0.85
# A core with AVX2 at 2.6 GHz does 16 multiply-adds per cycle in float32.
_CORE_TFLOPS, _CORE_GB_S, _SOCKET_GB_S = 0.083, 10.0, 200.0
_CPU_ARITHMETIC = 0.5
_CPU_ATTENTION, _CPU_GENERATION = 4.0, 3.0
"""How much longer an operation takes in attention, and in products of a matrix with single vectors, than in products of
matrices: measured with llama.cpp and a model that fits into the cache."""
_CACHE_BYTES, _CACHE_GB_S = 32 * 2**20, 100.0
# An accelerator of which nobody has noted them.
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


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """How many accelerators share the work."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    threads: int | None = None
    """Of a CPU, if the engine is told."""


def speed_of(model: ModelFacts | None, machine: Machine, parallel: Parallel, engine: str, version: str | None) -> Speed:
    """The roofline of one model on one machine; for an unknown model or endpoint, a guess that says so."""
    own = _overhead(engine, version, gpu=machine.accelerator is not None, workers=parallel.tensor * parallel.pipeline)
    if model is None or not model.weight_bytes:
        return Speed(
            request_s=own.request_s,
            token_s=_UNKNOWN_TOKEN_S,
            pair_s=0.0,
            step_s=_UNKNOWN_STEP_S,
            weights_s=0.0,
            sequence_s=_UNKNOWN_SEQUENCE_S,
            context_s=0.0,
            basis="a guess: the model's size is not known",
        )
    power = _power(machine, parallel, model)
    dense, experts, share = _read_bytes(model)
    active = _active_parameters(model)
    operations, slower = 2.0 * active, 1.0 if machine.accelerator else _CPU_ATTENTION
    of_prompts = 2.0 * max(active - model.vocab_size * model.hidden_size, 1.0)
    width = model.heads * model.head_dim or model.hidden_size
    return Speed(
        request_s=own.request_s,
        token_s=of_prompts / power.flops,
        pair_s=4.0 * width * _attending_layers(model) * slower / power.flops,
        step_s=own.step_s,
        scheduling_s=own.sequence_s,
        weights_s=dense / power.bytes_s,
        experts_s=experts / power.bytes_s,
        expert_share=share,
        sequence_s=operations * (1.0 if machine.accelerator else _CPU_GENERATION) / power.flops,
        context_s=_kv_bytes(model) / power.bytes_s,
        replicas=parallel.data,
        basis="roofline",
    )


def _power(machine: Machine, parallel: Parallel, model: ModelFacts) -> _Power:
    accelerator = machine.accelerator
    if accelerator is None:
        cores = parallel.threads or machine.cpus or 1
        cached = model.weight_bytes <= _CACHE_BYTES
        gb_s = _CACHE_GB_S if cached else min(cores * _CORE_GB_S, _SOCKET_GB_S)
        return _Power(cores * _CORE_TFLOPS * 1e12 * _CPU_ARITHMETIC, gb_s * 1e9 * _BANDWIDTH)
    gpus = parallel.tensor * parallel.pipeline
    per_doubling = _PER_DOUBLING_NVLINK if accelerator.nvlink_gb_s else _PER_DOUBLING_PCIE
    together = gpus * per_doubling ** math.log2(gpus)
    tflops = _tflops(accelerator.tflops, model)
    gb_s = accelerator.bandwidth_gb_s or _UNKNOWN_GB_S
    return _Power(flops=tflops * 1e12 * _ARITHMETIC * together, bytes_s=gb_s * 1e9 * _BANDWIDTH * together)


def _tflops(peak: Mapping[str, float], model: ModelFacts) -> float:
    """Of the type that products are computed in: weights that alone are quantized are turned back into 16 bits."""
    method = model.quantization.method if model.quantization else ""
    if "fp8" in method and "float8" in peak:
        return peak["float8"]
    names = ("float32",) if model.dtype == "float32" else ("bfloat16", "float16", "float32")
    return max((peak[name] for name in names if name in peak), default=_UNKNOWN_TFLOPS)


def _read_bytes(model: ModelFacts) -> tuple[float, float, float]:
    """Stored bytes that each step reads: of the dense part, of all experts, and the share of these that a token uses.

    Of the embedding only the rows of a step's tokens are read, unless it is the output layer as well.
    """
    experts = model.bytes_of("experts")
    embedding = 0 if model.tied else model.bytes_of("embedding")
    dense = model.weight_bytes - experts - embedding - model.bytes_of("vision")
    share = model.experts.per_token / model.experts.count if model.experts and model.experts.count else 0.0
    return float(max(dense, 0)), float(experts), share


def _active_parameters(model: ModelFacts) -> float:
    """Weights that one token is multiplied with; of prompts only the last token is with the output layer."""
    embedding = model.vocab_size * model.hidden_size
    active = float(max(model.parameters - (0 if model.tied else embedding), 1))
    if not model.experts or not model.experts.count:
        return active
    stored = model.weight_bytes or 1
    share = model.bytes_of("experts") / stored
    return active * (1 - share + share * model.experts.per_token / model.experts.count)


def _attending_layers(model: ModelFacts) -> int:
    """Layers in which each token sees all before it."""
    full = sum(layers.count for layers in model.layers if layers.mixer in ("full", "mla"))
    return full if model.layers else model.layer_count


def _kv_bytes(model: ModelFacts) -> float:
    """Of one token, in 16 bits."""
    return 2.0 * sum(layers.count * layers.elements_per_token for layers in model.layers)


@dataclass(frozen=True)
class _Overhead:
    """Seconds that are the engine's own, and not the arithmetic's."""

    request_s: float
    step_s: float
    sequence_s: float
    """Of each sequence in a step."""


def _overhead(engine: str, version: str | None, *, gpu: bool, workers: int) -> _Overhead:
    """What an engine takes for itself.

    vLLM's first releases prepared each step and sampled in Python, sequence by sequence, and told their workers through
    Ray: release 0.2.1 showed 157 tokens/s from 15 sequences of a 70B model on two A100, 95 ms a step, of which reading
    takes 55 ms. transformers builds each step in Python, which takes some 25 ms on a GPU whatever the model.
    """
    if engine == "llamacpp":
        return _Overhead(0.002, 0.0005 if gpu else 0.0001, 0.0)
    if engine == "transformers":
        return _Overhead(0.020, 0.025 if gpu else 0.010, 0.0)
    if engine != "vllm":
        return _Overhead(0.010, 0.002, 0.0)
    if not gpu:
        return _VLLM_CPU
    release = release_of(version)
    step_s, sequence_s, worker_s = next(seconds for limit, *seconds in _VLLM_S if release < limit)
    return _Overhead(0.010, step_s + (worker_s if workers > 1 else 0.0), sequence_s)


# Measured with release 0.32 and a model of 1.4 M weights, of which arithmetic takes next to nothing: two sequences made
# steps of 2.4 to 3 ms, eight of 4 to 8 ms; the server and the client share the cores with the engine.
_VLLM_CPU = _Overhead(0.010, 0.002, 0.0004)
# Releases below the first column: of a step, of each sequence in it, and of a step with several workers.
_VLLM_S: tuple[tuple[tuple[int, int], float, float, float], ...] = (
    ((0, 4), 0.008, 0.0007, 0.010),
    ((0, 6), 0.006, 0.0004, 0.006),
    ((0, 8), 0.004, 0.0002, 0.002),
    ((999, 0), 0.003, 0.0001, 0.001),
)


def release_of(version: str | None) -> tuple[int, int]:
    """The first two numbers of a release; the newest there may be, if it has none."""
    found = re.match(r"(\d+)\.(\d+)", version or "")
    return (int(found[1]), int(found[2])) if found else (998, 0)


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
    running = min(max(slots, 1.0), n)
    prompt, answer = level.prompt_tokens / n, level.output_tokens / n
    step_s = speed.decode_step_s(running, prompt + answer / 2)
    longest = answer * (1 + answers.spread * math.sqrt(2 * math.log(running)))
    longest = min(longest, max(float(answers.max_tokens), answer))
    together = n / running * (answer * step_s + round_trip_s)
    alone = (longest - answer) * speed.decode_step_s(1, prompt + answer / 2)
    return n * speed.prefill_s(prompt) + together + alone

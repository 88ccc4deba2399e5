"""What planning asks an engine, and what it answers: pure values, no machine is needed for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from provisioners.accelerators import Machine
from provisioners.contract import Finding
from recipes.spec import Engine as EngineSpec

if TYPE_CHECKING:
    from runners.modelfacts.facts import ModelFacts


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What the workload will ask of the engine."""

    longest_request_tokens: int
    """The longest prompt (template and special tokens included) and its whole answer."""
    mean_request_tokens: int
    """What a request holds on average while it runs: its prompt and, of its likely answer, half."""
    concurrency: int | None
    """How many requests are under way at most; None if that follows from what the engine runs at once."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One engine with its flags, one model, one machine, one workload: would it start, and how much would fit?"""

    spec: EngineSpec
    version: str
    """The engine's release."""
    model: ModelFacts
    machine: Machine
    demand: Demand | None = None

    @property
    def accelerators_needed(self) -> int:
        spec = self.spec
        return spec.tensor_parallel_size * spec.pipeline_parallel_size * spec.data_parallel_size


@dataclass(frozen=True, kw_only=True)
class Memory:
    """How one accelerator's memory (or the machine's RAM) will be used, and what follows for requests.

    The parts add up: weights + activation + other + kv + unused = usable.
    """

    usable_gib_per_gpu: float
    budget_gib_per_gpu: float
    """What the engine takes at most, as gpu_memory_utilization × usable."""
    weights_gib_per_gpu: float
    activation_gib_per_gpu: float
    """The peak of a forward pass that the engine reserves."""
    other_gib_per_gpu: float
    """The driver's context, communication buffers, CUDA graphs."""
    kv_gib_per_gpu: float
    """What is left for the KV cache; 0 if nothing is."""
    kv_bytes_per_token: float
    """On one accelerator, over its layers."""
    kv_tokens: int
    """As the engine's log counts them (of one replica)."""
    block_tokens: int
    max_model_len: int
    """The longest request that the engine will accept with these flags."""
    longest_that_fits: int
    """The largest max_model_len for which the cache holds one whole request."""
    max_running: int
    """Requests of the workload's longest size (without a workload: of max_model_len) at once."""
    running_at_mean: int
    """Of the workload's mean size, prompt and likely answer: what its log is likely to show."""
    slots: int
    """The engine's own bound on running requests (max_num_seqs, parallel)."""
    uncertainty_gib: float
    """How far the sum may be off: about two standard deviations."""
    basis: str
    """Which formulas were used, for which releases."""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What an engine's rules say of a case. `memory` is None if nobody can know."""

    findings: tuple[Finding, ...] = ()
    memory: Memory | None = None

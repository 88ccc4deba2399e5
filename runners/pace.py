"""What an engine says of its own speed: plain figures, from which a forecast is made without knowing the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recipes.ranges import Range
from recipes.spec import Engine as EngineSpec
from runners.case import Case, Memory

if TYPE_CHECKING:
    from runners.modelfacts.facts import ModelFacts

GIB = 2**30
STARTS_S = Range(1.0, 20.0, 120.0)
"""Assumed of an engine that says nothing: from a small server to one that compiles."""
_NAMES = {"half": "float16", "fp16": "float16", "bf16": "bfloat16", "float": "float32", "fp32": "float32"}
_MODELS_OWN = ("", "auto")


@dataclass(frozen=True, kw_only=True)
class EnginePace:
    """One engine with one recipe's flags, one model and one machine. The defaults fit an endpoint that runs already."""

    start_s: Range = field(default=Range(0.05, 0.3, 5.0))
    """From its start until it answers, besides reading weights and what several workers take to meet."""
    request_s: float = 0.010
    """Its own work for each request, and not the arithmetic's; the default is assumed, as are those of the next two."""
    step_s: float = 0.002
    """The same for each step of generation."""
    sequence_s: float = 0.0
    """The same for each sequence in a step."""
    computes_in: str | None = None
    """The type of its products, as in Accelerator.tflops; None: 16-bit floats, whatever the files hold."""
    slower: float = 1.0
    """How much longer its products take than others', in arithmetic and in reading as many bytes of weights."""
    weight_bytes: float | None = None
    """Of all weights of one replica, as it holds them: cast, quantized while loading, repeated on several accelerators.
    Layers that are not loaded do not count. None: as stored."""
    unpacked_bytes: float = 0.0
    """What each step writes and reads besides, because it unpacks quantized weights in memory before it uses them."""
    outside_bytes: float = 0.0
    """Of the weights, what lies in the machine's RAM and is fetched in every step."""
    outside_gb_s: float | None = None
    """How fast these are read, of each accelerator, in 10⁹ bytes per second; None: as the bus to it allows."""
    kv_bytes_per_token: float | None = None
    """Of one token of one replica, all accelerators together; None: in the type that is computed in."""
    threads: int | None = None
    """Of a CPU, if the recipe says."""
    unsure: float = 1.0
    """By which factor the speed may be further off than others', to both sides, because little is known of it."""
    speed_flags: frozenset[str] = field(default_factory=lambda: frozenset({"dtype", "quantization"}))
    """Keys of engine.args, with underscores, that have to be alike for a run to tell of another's speed."""
    start_flags: frozenset[str] = frozenset()
    """The same of how long the start takes."""


def stated_pace(case: Case, memory: Memory | None) -> EnginePace:
    """What flags of the usual names and the engine's plan of its memory say."""
    together = case.spec.tensor_parallel_size * case.spec.pipeline_parallel_size
    return EnginePace(
        start_s=STARTS_S,
        computes_in=stated_type(case.spec, case.model),
        weight_bytes=memory.weights_gib_per_gpu * GIB * together if memory else None,
        kv_bytes_per_token=memory.kv_bytes_per_token * together if memory else None,
    )


def stated_type(spec: EngineSpec, model: ModelFacts) -> str | None:
    """The flag dtype, else what the model's config names."""
    asked = str(spec.args.get("dtype") or "").lower()
    wanted = model.dtype if asked in _MODELS_OWN else asked
    return _NAMES.get(wanted, wanted) if wanted else None

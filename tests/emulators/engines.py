"""An engine for tests of planning: its rules are arithmetic that a reader does in the head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from provisioners.contract import Finding
from recipes.spec import Recipe
from runners.case import Assessment, Case, Memory
from runners.engine import Engine, Installation, Launch, LaunchRequest, argument
from runners.modelfacts.facts import ModelFacts, Tensors

WEIGHTS_GIB = 64.0
HEADS = 64
TOKENS_PER_GIB = 1000
MODEL = ModelFacts(
    identifier="model",
    heads=HEADS,
    tensors=(Tensors(module="mlp", dtype="BF16", elements=2**35, bytes=2**36),),
    parameters=2**35,
)


class EngineByArithmetic(Engine):
    """Splits 64 GiB of weights over the accelerators; a GiB that is left holds 1,000 tokens."""

    name = "arithmetic"
    default_version = "1.0"
    context_flag = "context"
    splits_tensors = True

    def installation(self, version: str, *, accelerated: bool) -> Installation | None:
        return None

    def launch(self, request: LaunchRequest) -> Launch | None:
        return None

    def quantizations(self, version: str) -> Mapping[str, Mapping[str, JsonValue]]:
        return {"half size": {"quantize": "half"}}

    def install_gb(self, version: str, *, accelerated: bool) -> float | None:
        return 10.0

    def cuda(self, version: str) -> str | None:
        return "12.8"

    def context_tokens(self, recipe: Recipe) -> int | None:
        return argument(recipe.engine, "context")

    def assess(self, case: Case) -> Assessment:
        if case.machine.accelerator is None:
            return Assessment()
        memory = _memory(case)
        return Assessment(findings=tuple(_findings(case, memory)), memory=memory)


def _memory(case: Case) -> Memory:
    usable = case.machine.accelerator.usable_gib if case.machine.accelerator else 0.0
    size = case.spec.tensor_parallel_size
    weights = WEIGHTS_GIB / size / (2 if case.spec.args.get("quantize") else 1)
    tokens = max(0, int((usable - weights) * size * TOKENS_PER_GIB))
    context = argument(case.spec, "context") or 4096
    longest = case.demand.longest_request_tokens if case.demand else context
    return Memory(
        usable_gib_per_gpu=usable,
        budget_gib_per_gpu=usable,
        weights_gib_per_gpu=weights,
        activation_gib_per_gpu=0.0,
        other_gib_per_gpu=0.0,
        kv_gib_per_gpu=max(0.0, usable - weights),
        kv_bytes_per_token=2**30 / TOKENS_PER_GIB / size,
        kv_tokens=tokens,
        block_tokens=16,
        max_model_len=context,
        longest_that_fits=tokens,
        max_running=tokens // max(1, longest),
        running_at_mean=tokens // max(1, case.demand.mean_request_tokens if case.demand else context),
        slots=256,
        uncertainty_gib=0.0,
        basis="arithmetic",
    )


def _findings(case: Case, memory: Memory) -> Iterator[Finding]:
    size = case.spec.tensor_parallel_size
    if HEADS % size:
        yield Finding(level="block", code="tensor-parallel", message=f"{size} does not divide {HEADS}")
    if memory.weights_gib_per_gpu > memory.usable_gib_per_gpu:
        yield Finding(level="block", code="weights", message="the weights do not fit")
    elif memory.kv_tokens < memory.max_model_len:
        yield Finding(level="block", code="kv-cache", message="the cache does not hold one request")

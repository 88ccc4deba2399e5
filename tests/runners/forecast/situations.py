"""Situations to forecast: models by their configs, machines by their names, work by its chunks."""

from __future__ import annotations

from typing import Any

from provisioners import accelerators
from provisioners.accelerators import Machine
from provisioners.contract import Offer
from provisioners.phase_times import phase_times_of
from recipes.spec import Engine as EngineSpec
from recipes.spec import Recipe
from runners import registry
from runners.case import Case, Memory
from runners.forecast.forecast import Situation
from runners.forecast.speed import Parallel, Speed, speed_of
from runners.forecast.work import Group, Joining, Work
from runners.modelfacts.config import facts_of
from runners.modelfacts.facts import ModelFacts
from runners.pace import EnginePace
from tests.emulators.configs import LLAMA_70B

MISTRAL_7B: dict[str, Any] = {
    **LLAMA_70B,
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
MIXTRAL_8X7B: dict[str, Any] = {
    **MISTRAL_7B,
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}


def model(config: dict[str, Any], identifier: str = "model") -> ModelFacts:
    return facts_of(config, identifier=identifier)


def machine(name: str, count: int) -> Machine:
    found = accelerators.find(name)
    assert found is not None, name
    return Machine(accelerator=found, count=count)


def spoken_for(
    facts: ModelFacts,
    here: Machine,
    spec: EngineSpec | None = None,
    *,
    engine: str = "vllm",
    version: str | None = "0.32.0",
    planned: bool = False,
) -> EnginePace:
    """The pace that an engine states; with its plan of the memory, if `planned`."""
    plugin = registry.engine(engine)
    case = Case(
        spec=spec or EngineSpec(name=engine),
        version=version or plugin.default_version or "",
        model=facts,
        machine=here,
    )
    return plugin.pace(case, plugin.assess(case).memory if planned else None)


def speed(
    facts: ModelFacts, here: Machine, *, engine: str = "vllm", version: str | None = "0.32.0", **spec: Any
) -> Speed:
    """The roofline of an engine with these sizes and args, its own plan of the memory heard."""
    said = EngineSpec(name=engine, **spec)
    parallel = Parallel(
        tensor=said.tensor_parallel_size, pipeline=said.pipeline_parallel_size, data=said.data_parallel_size
    )
    pace = spoken_for(facts, here, said, engine=engine, version=version, planned=True)
    return speed_of(facts, here, parallel, pace)


def book(chunks: int, *, documents: int = 1, tokens: int = 2900, max_tokens: int = 1000) -> Work:
    """Documents of so many chunks each, which are joined as the summaries of the published runs were."""
    joining = Joining(chunk_tokens=3000, overlap_tokens=512, template_tokens=60, max_levels=10)
    group = Group(documents=documents, requests=chunks, prompt_tokens=documents * chunks * tokens)
    return Work(groups=(group,), max_tokens=max_tokens, joining=joining)


def situation(**changes: Any) -> Situation:
    """The 70B model on two A100 at RunPod, with a book of 84 chunks; a few changes at a time."""
    workload = {"inputs": ["a.txt"], "max_tokens": 1000, "concurrency": 20, **changes.pop("workload", {})}
    engine = {"name": "vllm", "tensor_parallel_size": 2, **changes.pop("engine_spec", {})}
    recipe = Recipe.model_validate(
        {
            "name": "book",
            "resources": {"provisioner": "runpod", "accelerators": "A100-80GB:2"},
            "model": {"repo": "some/model"},
            "engine": engine,
            "workload": workload,
            "limits": changes.pop("limits", {}),
        }
    )
    offer = Offer(
        provider="runpod",
        id="NVIDIA A100 80GB PCIe",
        accelerator="A100 PCIe 80GB",
        count=2,
        memory_gib=80,
        price_usd_per_h=3.58,
    )
    fields: dict[str, Any] = {
        "recipe": recipe,
        "engine": "vllm",
        "version": "0.32.0",
        "offer": offer,
        "machine": machine("A100-80GB", 2),
        "work": book(84),
        "model": model(LLAMA_70B),
        "billable": True,
        "download_bytes": 138_000_000_000,
        "install_bytes": 5_000_000_000,
    }
    found = {**fields, **changes}
    facts, here = found["model"], found["machine"]
    if facts is not None and "pace" not in found:
        version = found["version"]
        found["pace"] = spoken_for(facts, here, recipe.engine, engine=found["engine"], version=version)
    if "phase_times" not in found:
        found["phase_times"] = phase_times_of(registry.provisioner("runpod"))
    return Situation(**found)


def memory(**changes: Any) -> Memory:
    """What the published start on two A100 left for the KV cache: 2,593 blocks of 16 tokens."""
    fields: dict[str, Any] = {
        "usable_gib_per_gpu": 79.2,
        "budget_gib_per_gpu": 71.3,
        "weights_gib_per_gpu": 64.2,
        "activation_gib_per_gpu": 0.8,
        "other_gib_per_gpu": 0.0,
        "kv_gib_per_gpu": 6.3,
        "kv_bytes_per_token": 163_840.0,
        "kv_tokens": 41_488,
        "block_tokens": 16,
        "max_model_len": 4096,
        "longest_that_fits": 41_488,
        "max_running": 10,
        "running_at_mean": 13,
        "slots": 256,
        "uncertainty_gib": 0.5,
        "basis": "published",
    }
    return Memory(**{**fields, **changes})

"""Cases for vLLM's rules, built from a config and a few words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from provisioners.accelerators import Accelerator, Machine, find
from provisioners.contract import Finding
from recipes.spec import Engine as EngineSpec
from runners.case import Assessment, Case, Demand
from runners.engines.vllm import PLUGIN
from runners.modelfacts.config import facts_of
from runners.modelfacts.facts import ModelFacts

LLAMA: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
LLAMA2_70B: Mapping[str, Any] = {
    **LLAMA,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "torch_dtype": "float16",
}


def model(config: Mapping[str, Any] | None = None, **changes: Any) -> ModelFacts:
    return facts_of({**(config or LLAMA), **changes}, identifier="owner/model")


def accelerator(name: str) -> Accelerator:
    found = find(name)
    assert found is not None, name
    return found


def case(
    facts: ModelFacts | None = None,
    gpu: str | Accelerator | None = "A100-80GB",
    *,
    version: str = "0.11.0",
    count: int | None = None,
    demand: Demand | None = None,
    env: Mapping[str, str] | None = None,
    tensor_parallel_size: int = 1,
    pipeline_parallel_size: int = 1,
    ram_gib: float | None = None,
    **args: Any,
) -> Case:
    spec = EngineSpec(
        name="vllm",
        version=version,
        tensor_parallel_size=tensor_parallel_size,
        pipeline_parallel_size=pipeline_parallel_size,
        args=args,
        env=dict(env or {}),
    )
    one = accelerator(gpu) if isinstance(gpu, str) else gpu
    number = count or tensor_parallel_size * pipeline_parallel_size
    machine = Machine(accelerator=one, count=number if one else 0, ram_gib=ram_gib)
    return Case(spec=spec, version=version, model=facts or model(), machine=machine, demand=demand)


def assess(*given: Any, **more: Any) -> Assessment:
    return PLUGIN.assess(case(*given, **more))


def blocks(assessment: Assessment) -> list[Finding]:
    return [finding for finding in assessment.findings if finding.level == "block"]


def finding(assessment: Assessment, code: str) -> Finding:
    (found,) = [one for one in assessment.findings if one.code == code]
    return found


def with_memory(one: Accelerator, gib: float) -> Accelerator:
    return dataclasses.replace(one, usable_gib=gib, usable_range_gib=(gib, gib))

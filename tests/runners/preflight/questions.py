"""Questions about one recipe on A100s, with an engine whose rules are arithmetic."""

from __future__ import annotations

from typing import Any

from provisioners.contract import Offer
from recipes.spec import Recipe
from runners.forecast.work import Group, Work
from runners.preflight.question import Question
from runners.workload import Estimate
from tests.emulators.engines import MODEL, EngineByArithmetic


def estimate(**changes: Any) -> Estimate:
    work = Work(groups=(Group(documents=2, requests=4, prompt_tokens=12_000),), max_tokens=500)
    fields: dict[str, Any] = {
        "documents": 2,
        "requests": 8,
        "prompt_tokens": 12_000,
        "longest_request_tokens": 4000,
        "tokens_around_chunk": 600,
        "mean_request_tokens": 1700,
        "work": work,
        "totals": work.bounds(),
    }
    return Estimate(**{**fields, **changes})


def question(
    *,
    estimate: Estimate | None = None,
    download_bytes: int = 0,
    resources: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    workload: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    **engine: Any,
) -> Question:
    """A rented machine with two A100 and tensor parallel 2, but for what is changed."""
    recipe = Recipe.model_validate(
        {
            "name": "asked",
            "resources": {"provisioner": "runpod", "accelerators": "A100-80GB:2", **(resources or {})},
            "model": {"repo": "some/model", **(model or {})},
            "engine": {"name": "arithmetic", "tensor_parallel_size": 2, "args": {"context": 4096}, **engine},
            "workload": {"inputs": ["a.txt"], "max_tokens": 500, "concurrency": 8, **(workload or {})},
            "limits": limits or {},
        }
    )
    return Question(
        recipe=recipe,
        engine=EngineByArithmetic(),
        model=MODEL,
        estimate=estimate or _estimate(),
        download_bytes=download_bytes,
        billable=True,
    )


_estimate = estimate


def offer(**changes: Any) -> Offer:
    fields: dict[str, Any] = {
        "provider": "runpod",
        "id": "NVIDIA A100 80GB PCIe",
        "accelerator": "A100 PCIe 80GB",
        "count": 2,
        "memory_gib": 80,
        "price_usd_per_h": 3.58,
    }
    return Offer(**{**fields, **changes})

"""What the plug-in says by release: how it is asked whether it is up, and what it quantizes while it loads."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from runners.client import Endpoint
from runners.engines.vllm import PLUGIN
from runners.preflight.fit import Wish, fits, quantization_args
from runners.preflight.judge import judge_offer
from runners.preflight.solve import remedies
from runners.preflight.table import known_offers
from tests.conftest import Command
from tests.runners.preflight.questions import estimate, question
from tests.runners.vllm.building import LLAMA2_70B, model


@pytest.mark.parametrize(
    ("version", "page"),
    [("0.2.1", "/v1/models"), ("0.2.1.post1", "/v1/models"), ("0.2.2", "/health"), ("0.33.0", "/health")],
)
def test_releases_without_a_health_page_are_asked_for_their_models(version: str, page: str) -> None:
    assert PLUGIN.health_page(version) == page
    assert PLUGIN.health_url(Endpoint("http://host:8000", "model"), version) == f"http://host:8000{page}"


def test_the_plan_says_what_will_be_asked(recipe: Command) -> None:
    older = ("--set", "engine.version=0.2.1", "--set", "engine.args.enforce_eager=null")
    ended = recipe("plan", "local-vllm-smoke", *older, "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (plan,) = json.loads(ended.stdout)["plans"]
    actions = [step.get("action", "") for step in plan["steps"]]
    assert any(action.startswith("GET /v1/models answers 200") for action in actions)


@pytest.mark.parametrize(
    ("version", "name", "args"),
    [
        ("0.32.0", "fp8", {"quantization": "fp8_per_tensor"}),
        ("0.32.0", "FP8_per_tensor", {"quantization": "fp8_per_tensor"}),
        ("0.30.0", "fp8", {"quantization": "fp8"}),
        ("0.26.0", "Bitsandbytes", {"quantization": "bitsandbytes"}),
        ("0.26.0", "bitsandbytes 4 bit", {"quantization": "bitsandbytes"}),
        ("0.6.0", "bitsandbytes", {"quantization": "bitsandbytes", "load_format": "bitsandbytes"}),
        ("0.32.0", "bitsandbytes", {"quantization": "bitsandbytes"}),  # which this release then refuses
        ("0.2.1", "fp8", {"quantization": "fp8"}),  # and this one
        ("main", "fp8", {"quantization": "fp8_per_tensor"}),
    ],
)
def test_a_quantization_means_what_the_release_calls_so(version: str, name: str, args: dict[str, str]) -> None:
    assert quantization_args(PLUGIN, version, name) == args


@pytest.mark.parametrize("version", ["0.4.3", "0.6.0", "0.8.5", "0.19.0", "0.26.0", "0.32.0", "0.33.0"])
def test_what_is_offered_is_accepted(version: str) -> None:
    offers = [offer for offer in known_offers("runpod") if (offer.accelerator, offer.count) == ("H100-SXM", 1)]
    offered = PLUGIN.quantizations(version)
    assert offered
    for args in offered.values():
        (found,) = fits(Wish(engine=PLUGIN, version=version, model=model(), args=args), offers)
        assert found.verdict == "fits", found.reason


def test_a_model_that_is_too_large_is_offered_smaller() -> None:
    asked = replace(
        question(
            name="vllm",
            version="0.32.0",
            tensor_parallel_size=1,
            args={},
            estimate=estimate(longest_request_tokens=1000),
        ),
        engine=PLUGIN,
        model=model(LLAMA2_70B),
    )
    (h100,) = [offer for offer in known_offers("runpod") if (offer.accelerator, offer.count) == ("H100-NVL", 1)]
    refused = judge_offer(asked, h100)
    assert not refused.passed
    said = [remedy.overrides for remedy in remedies(asked, refused, [])]
    assert ("engine.args.quantization=fp8_per_tensor",) in said

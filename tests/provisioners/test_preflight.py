"""Findings, and the clearance that nothing is created without."""

from __future__ import annotations

from typing import Any

import pytest

from provisioners.contract import Finding, Offer
from provisioners.preflight import Requirements, clear, judge
from recipes.errors import Refused
from recipes.spec import Recipe


def findings(needs: Requirements, env: dict[str, str] | None = None, **changes: Any) -> dict[str, Finding]:
    data = {"name": "x", "model": {"builtin": "lead"}, "workload": {"inputs": ["a"]}, **changes}
    offer = Offer(provider="p", id="gpu", accelerator="A40", count=2, price_usd_per_h=3.0)
    return {f.code: f for f in judge(Recipe.model_validate(data), [offer], needs, env or {})}


def test_more_parallelism_than_gpus_is_a_block_that_says_what_works() -> None:
    found = findings(Requirements(accelerators=4))["parallelism"]
    assert found.level == "block"
    assert "tensor_parallel_size=2" in found.suggestion


@pytest.mark.parametrize(("longest", "level"), [(2048, "ok"), (2049, "block")])
def test_the_longest_request_must_fit_the_context(longest: int, level: str) -> None:
    needs = Requirements(context_tokens=2048, longest_request_tokens=longest)
    assert findings(needs)["context"].level == level


def test_the_suggested_chunk_size_fits() -> None:
    workload = {"inputs": ["a"], "chunk_size": 2000, "chunk_overlap": 100, "max_tokens": 200}
    needs = Requirements(context_tokens=2048, longest_request_tokens=2300, tokens_around_chunk=300)
    assert "workload.chunk_size=1748" in findings(needs, workload=workload)["context"].suggestion


def test_secrets_are_looked_for_by_name() -> None:
    found = findings(Requirements(), secrets=["MY_KEY"])["secret"]
    assert (found.level, "MY_KEY" in found.message) == ("block", True)
    assert "secret" not in findings(Requirements(), {"MY_KEY": "x"}, secrets=["MY_KEY"])
    assert findings(Requirements(), secrets=["HF_TOKEN"])["secret"].level == "warn"


def test_a_price_above_the_limit_is_a_block() -> None:
    assert findings(Requirements(), limits={"max_price": 2.5})["price"].level == "block"
    assert "price" not in findings(Requirements(), limits={"max_price": 3})


def test_a_block_gives_no_clearance() -> None:
    good = Finding(level="ok", code="a", message="fine")
    assert clear([good]).findings == (good,)
    with pytest.raises(Refused, match="bad"):
        clear([good, Finding(level="block", code="b", message="bad")])

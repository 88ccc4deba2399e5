"""Findings about money, secrets and limits, and the clearance that nothing is created without."""

from __future__ import annotations

from typing import Any

import pytest

from provisioners.contract import Finding, Offer
from provisioners.preflight import clear, price_findings, recipe_findings
from recipes.errors import Refused
from recipes.spec import Recipe


def findings(env: dict[str, str] | None = None, **changes: Any) -> dict[str, Finding]:
    data = {"name": "x", "model": {"builtin": "lead"}, "workload": {"inputs": ["a"]}, **changes}
    recipe = Recipe.model_validate(data)
    offer = Offer(provider="p", id="gpu", accelerator="A40", count=2, price_usd_per_h=3.0)
    return {f.code: f for f in [*recipe_findings(recipe, env or {}), *price_findings(recipe, offer)]}


def test_secrets_are_looked_for_by_name() -> None:
    found = findings(secrets=["MY_KEY"])["secret"]
    assert (found.level, "MY_KEY" in found.message) == ("block", True)
    assert "secret" not in findings({"MY_KEY": "x"}, secrets=["MY_KEY"])


def test_a_secret_that_nobody_will_ask_for_is_not_missed() -> None:
    recipe = Recipe.model_validate(
        {"name": "x", "model": {"repo": "a/b"}, "workload": {"inputs": ["a"]}, "secrets": ["HF_TOKEN"]}
    )
    assert [finding.code for finding in recipe_findings(recipe, {}, billable=False)] == ["secret"]
    assert list(recipe_findings(recipe, {}, billable=False, needless=["HF_TOKEN"])) == []


def test_a_secret_must_not_be_written_out() -> None:
    engine = {"args": {"hf_token": "hf_abcdefgh"}}
    found = findings({"HF_TOKEN": "hf_abcdefgh"}, secrets=["HF_TOKEN"], engine=engine)["secret"]
    assert (found.level, found.path) == ("block", "engine.args.hf_token")
    assert "hf_abcdefgh" not in found.message
    assert "secret" not in findings({"HF_TOKEN": "hf_abcdefgh"}, secrets=["HF_TOKEN"])


def test_a_price_above_the_limit_is_a_block() -> None:
    assert findings(limits={"max_price": 2.5})["price"].level == "block"
    assert "price" not in findings(limits={"max_price": 3})


def test_a_block_gives_no_clearance() -> None:
    good = Finding(level="ok", code="a", message="fine")
    assert clear([good]).findings == (good,)
    with pytest.raises(Refused, match="bad"):
        clear([good, Finding(level="block", code="b", message="bad")])

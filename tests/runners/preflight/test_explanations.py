"""Every check can be explained: what it computes, and from where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recipes.errors import UsageError
from runners import registry
from runners.preflight.explanations import GENERIC, explanation, known_words

ROOT = Path(__file__).parents[3]
CODE = re.compile(r"""\b(?:code=|NO_OFFER = |_block\(|_warn\()["']([a-z-]+)["']""")


def codes_in(*places: str) -> set[str]:
    """The finding codes that these modules write."""
    found: set[str] = set()
    for place in places:
        for file in [ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"):
            found.update(CODE.findall(file.read_text(encoding="utf-8")))
    return found


def test_every_general_check_is_explained() -> None:
    codes = codes_in(
        "runners/preflight",
        "runners/forecast",
        "provisioners/preflight.py",
        "runners/plan.py",
        "runners/plan_document.py",
    )
    assert {"context", "budget", "machine", "access"} <= codes
    assert codes | {"disk", "volume"} <= set(GENERIC)


@pytest.mark.parametrize("name", ["vllm", "llamacpp", "transformers"])
def test_every_check_of_an_engine_is_explained(name: str) -> None:
    engine = registry.engine(name)
    codes = codes_in(f"runners/engines/{name}")
    assert codes
    assert codes - set(known_words([engine])) == set()


@pytest.mark.parametrize("word", GENERIC)
def test_a_general_explanation_ends_with_its_source(word: str) -> None:
    formula, source, where = GENERIC[word].partition("\nSource: ")
    assert formula
    assert source
    assert where


def test_an_engines_own_explanation_comes_first() -> None:
    engine = registry.engine("llamacpp")
    assert explanation("kv-cache", engine) == engine.explains["kv-cache"]
    assert explanation("price", engine) == GENERIC["price"]


def test_a_misspelt_word_is_put_right() -> None:
    with pytest.raises(UsageError) as error:
        explanation("kvcache", registry.engine("llamacpp"))
    assert error.value.advice.startswith("did you mean kv-cache?")

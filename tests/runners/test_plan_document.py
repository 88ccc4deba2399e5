"""plan.json holds nothing that a terminal would obey, wherever it came from; what is run is left as it stands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Finding
from provisioners.masking import Mask
from recipes import catalogue
from recipes.errors import Refused
from recipes.load import LoadedRecipe, load
from runners import registry
from runners.modelfacts.clean import printable
from runners.plan import Plan
from runners.plan_document import document_of, refused_document
from runners.planning import make_plan
from tests.emulators.headers import gguf

COMMANDS = "\x1b[2J\x1b]0;pwn\x07\nrefused  fake\u202e"
RECIPE = """\
extends: local-smoke
name: odd
model: {builtin: null, path: FOLDER/odd.gguf}
workload: {tokenizer: TOKENIZER}
"""


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts(key)
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedRecipe:
    metadata = {"general.architecture": f"{COMMANDS}llama", "general.name": COMMANDS}
    (tmp_path / "odd.gguf").write_bytes(gguf(metadata, {"token_embd.weight": (8, (64, 32))}))
    tokenizer = catalogue.builtin_model("lead")
    text = RECIPE.replace("TOKENIZER", str(tokenizer)).replace("FOLDER", str(tmp_path))
    (tmp_path / "odd.yaml").write_text(text)
    return load("odd.yaml", plugins=registry.installed(), cwd=tmp_path)[0]


def plan_of(loaded: LoadedRecipe, home: Path) -> Plan:
    return asyncio.run(make_plan(loaded, {"RECIPE_HOME": str(home)}))


def test_a_strangers_file_shows_as_text(loaded: LoadedRecipe, tmp_path: Path) -> None:
    document = document_of(plan_of(loaded, tmp_path))
    said = list(texts(document))
    assert any(r"\x1b[2J" in text for text in said)
    assert all(printable(text) == text for text in said)


def test_whatever_reaches_the_document_shows_as_text(loaded: LoadedRecipe, tmp_path: Path) -> None:
    """Also what was not written out where it came in."""
    finding = Finding(level="warn", code="architecture", message=COMMANDS, quote=COMMANDS, numbers={"a": COMMANDS})
    document = document_of(replace(plan_of(loaded, tmp_path), findings=(finding,)))
    (row,) = document["findings"]
    assert row["message"] == row["quote"] == row["numbers"]["a"] == printable(COMMANDS)
    json.dumps(document)


def test_a_refusal_shows_as_text(loaded: LoadedRecipe) -> None:
    document = refused_document(loaded, Refused(f"no model: {COMMANDS}", advice=COMMANDS), {})
    (row,) = document["findings"]
    assert (row["message"], row["suggestion"]) == (f"no model: {printable(COMMANDS)}", printable(COMMANDS))


def test_what_is_run_or_read_again_is_left_as_it_stands(loaded: LoadedRecipe, tmp_path: Path) -> None:
    """A folder's name may hold anything."""
    odd = replace(loaded, source=tmp_path / "a\u202eb" / "odd.yaml", command="recipe up 'a\u202eb'")
    document = document_of(replace(plan_of(loaded, tmp_path), loaded=odd))
    assert (document["source"], document["command"]) == (str(odd.source), odd.command)
    assert document["steps"]


def test_a_secrets_value_is_shown_nowhere(loaded: LoadedRecipe, tmp_path: Path) -> None:
    said = replace(loaded, command="recipe up x --set engine.args.hf_token=hf_abcdefgh")
    plan = replace(plan_of(said, tmp_path), mask=Mask(["hf_abcdefgh"]))
    assert "hf_abcdefgh" not in json.dumps(document_of(plan))
    refused = refused_document(
        replace(said, recipe=said.recipe.model_copy(update={"secrets": ("HF_TOKEN",)})),
        Refused("no hf_abcdefgh"),
        {"HF_TOKEN": "hf_abcdefgh"},
    )
    assert "hf_abcdefgh" not in json.dumps(refused)

"""Starter recipes: a fresh one, and one from the config file of the older script."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from recipes.convert import from_config, starter
from recipes.errors import InvalidRecipe
from recipes.prompts import load_prompt
from recipes.spec import Recipe
from tests.recipes.conftest import Folder

CONFIG = """\
httpx_max_connections: 12
httpx_max_keepalive_connections: 8
use_fast: true
use_batched_tokenization: true
chunk_size: 3000
chunk_overlap: 512
api_url: http://127.0.0.1:8000/v1
api_key: sk-very-secret
model_identifier: jondurbin/airoboros-l2-70b-3.1.2
max_tokens: 1000
temperature: 0.2
"""


def converted(here: Folder, config: str) -> Recipe:
    return here.run(from_config(here.write(config, "config.yaml"))).recipe


def test_a_config_file_becomes_a_recipe_that_does_the_same(here: Folder) -> None:
    recipe = converted(here, CONFIG)
    work = recipe.workload
    assert (recipe.engine.name, recipe.engine.url) == ("openai", "http://127.0.0.1:8000/v1")
    assert recipe.model.identifier == "jondurbin/airoboros-l2-70b-3.1.2"
    assert (work.chunk_size, work.chunk_overlap, work.max_tokens, work.temperature) == (3000, 512, 1000, 0.2)
    assert (work.concurrency, work.separators) == (12, "paragraphs")
    assert "{{ prompt }}" in load_prompt(work.prompt).text


def test_a_key_is_named_and_never_written(here: Folder) -> None:
    text = from_config(here.write(CONFIG, "config.yaml"))
    assert "sk-very-secret" not in text
    recipe = here.run(text).recipe
    assert (recipe.secrets, recipe.engine.api_key_env) == (("OPENAI_API_KEY",), "OPENAI_API_KEY")


@pytest.mark.parametrize("value", ["", "empty", "''", "null"])
def test_an_endpoint_without_a_key_needs_no_secret(here: Folder, value: str) -> None:
    assert converted(here, CONFIG.replace("sk-very-secret", value)).secrets == ()


def test_the_way_in_which_texts_are_cut_is_kept(here: Folder) -> None:
    config = CONFIG.replace("use_batched_tokenization: true", "use_batched_tokenization: false")
    assert converted(here, config).workload.separators == "sentences"


def test_what_has_no_place_in_a_recipe_is_said(here: Folder) -> None:
    notes = [line for line in from_config(here.write(CONFIG, "config.yaml")).splitlines() if line.startswith("# ")]
    assert [note.partition(":")[0] for note in notes] == [
        "# Made from config.yaml.",
        "# httpx_max_keepalive_connections",
        "# use_fast",
        "# api_key",
    ]


@pytest.mark.parametrize(
    ("config", "problems"),
    [
        ("chunk_sise: 1\napi_url: x\n", ["config.yaml:1:1 chunk_sise: unknown key; did you mean chunk_size?"]),
        ("a: 1\nb: 2\nuse_fast: true\n", ["config.yaml:1:1 a: unknown key", "config.yaml:2:1 b: unknown key"]),
        ("name: mine\n", ["config.yaml: not a config file with chunk_size"]),
        ("", ["config.yaml: not a config file"]),
        ("- a\n", ["config.yaml: not a config file"]),
        ("api_url: !x y\n", ["config.yaml:1:10: YAML tags are not allowed"]),
        ("api_url: a: b\n", ["config.yaml:1:11: not YAML"]),
    ],
)
def test_a_file_that_is_no_config_is_refused(here: Folder, config: str, problems: list[str]) -> None:
    with pytest.raises(InvalidRecipe) as caught:
        from_config(here.write(config, "config.yaml"))
    found = [str(problem).removeprefix(f"{here.path}/") for problem in caught.value.problems]
    assert [line[: len(start)] for line, start in zip(found, problems, strict=True)] == problems


def test_a_config_that_is_not_there_or_not_utf8_is_refused(here: Folder) -> None:
    with pytest.raises(InvalidRecipe, match="No such file"):
        from_config(here.path / "gone.yaml")
    with pytest.raises(InvalidRecipe, match="not UTF-8"):
        from_config(here.write(b"api_url: \xff", "config.yaml"))


def test_a_fresh_recipe_runs_beside_some_texts(here: Folder) -> None:
    text = starter("mine", "recipe.schema.json")
    recipe = here.run(text).recipe
    assert (recipe.name, recipe.model.builtin, recipe.resources.provisioner) == ("mine", "lead", "local")
    assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n")


@pytest.mark.parametrize("name", ["123", "1e3", "true", "null", "my recipe", "ünï", "-x", "a: b", "", "x" * 100])
def test_a_fresh_recipe_is_valid_whatever_its_file_is_called(here: Folder, name: str) -> None:
    text = starter(name, "recipe.schema.json")
    assert isinstance(yaml.safe_load(text)["name"], str)
    assert here.run(text).recipe.name


def test_wrong_values_are_told_at_their_place_in_the_config(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("api_url: http://x/v1\nchunk_size: abc\nmax_tokens: 0\n")
    with pytest.raises(InvalidRecipe) as caught:
        from_config(path)
    assert [(p.line, p.path) for p in caught.value.problems] == [(2, "workload.chunk_size"), (3, "workload.max_tokens")]


def test_a_config_without_an_endpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("chunk_size: 100\n")
    with pytest.raises(InvalidRecipe, match="api_url: required"):
        from_config(path)

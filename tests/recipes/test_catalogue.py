"""What ships with recipe is valid, complete and says what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes import catalogue
from recipes.errors import UsageError
from recipes.inputs import expand_all
from recipes.plugins import PluginNames, load_plugin
from tests.recipes.conftest import Folder


def test_the_catalogue_is_this() -> None:
    assert catalogue.names() == [
        "2xA100-airoboros-70b",
        "3090-airoboros-m-7b",
        "3xA40-airoboros-70b",
        "load-endpoint",
        "load-smoke",
        "local-smoke",
        "local-vllm-smoke",
    ]


@pytest.mark.parametrize("name", catalogue.names())
def test_every_recipe_is_valid_and_bears_the_name_of_its_file(here: Folder, name: str) -> None:
    (loaded,) = here.load(name)
    assert loaded.recipe.name == name
    assert loaded.text.startswith("# ")
    assert loaded.recipe.workload.traffic or expand_all(loaded.recipe.workload.inputs)


@pytest.mark.parametrize(
    ("name", "provisioner", "engine", "accelerators", "tensor_parallel_size"),
    [
        ("local-smoke", "local", "llamacpp", "None", 1),
        ("load-smoke", "local", "llamacpp", "None", 1),
        ("load-endpoint", "local", "openai", "None", 1),
        ("local-vllm-smoke", "local", "vllm", "None", 1),
        ("2xA100-airoboros-70b", "runpod", "vllm", "A100-80GB:2", 2),
        ("3xA40-airoboros-70b", "runpod", "vllm", "A40-48GB:3", 3),
        ("3090-airoboros-m-7b", "ssh", "vllm", "RTX3090-24GB:1", 1),
    ],
)
def test_the_recipes_run_where_their_names_say(
    here: Folder, name: str, provisioner: str, engine: str, accelerators: str, tensor_parallel_size: int
) -> None:
    recipe = here.load(name)[0].recipe
    assert (recipe.resources.provisioner, recipe.engine.name) == (provisioner, engine)
    assert (str(recipe.resources.accelerators), recipe.engine.tensor_parallel_size) == (
        accelerators,
        tensor_parallel_size,
    )


def test_the_one_that_cannot_work_falls_back_to_nothing(here: Folder) -> None:
    assert here.load("3xA40-airoboros-70b")[0].recipe.resources.any_of == ()


@pytest.mark.parametrize("name", ["../recipes/local-smoke", "sub/local-smoke", "gone", "", "..", "prompts"])
def test_a_name_is_a_name_and_no_path(name: str) -> None:
    assert catalogue.recipe_path(name) is None


def test_the_built_in_model_is_whole() -> None:
    folder = catalogue.builtin_model("lead")
    assert {"config.json", "lead.gguf", "model.safetensors", "tokenizer.json"} <= {p.name for p in folder.iterdir()}
    with pytest.raises(ValueError, match="no such built-in model; one of lead"):
        catalogue.builtin_model("../models/lead")


def test_plug_ins_are_found_by_their_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "a_package_of_plugins"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_shared.py").write_text("")
    (package / "one.py").write_text("PLUGIN = 'the one'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = __import__("a_package_of_plugins")
    assert [*PluginNames(found, "gpu_recipe.none")] == ["one"]
    assert load_plugin(found, "gpu_recipe.none", "one") == "the one"
    with pytest.raises(UsageError, match="ones: no such plug-in") as caught:
        load_plugin(found, "gpu_recipe.none", "ones")
    assert caught.value.advice == "did you mean one?"

"""The JSON Schema agrees with the validator on what people write."""

from __future__ import annotations

import pytest
import yaml
from jsonschema import Draft202012Validator

from recipes import catalogue
from recipes.convert import starter
from recipes.schema import json_schema
from recipes.spec import Recipe
from tests.recipes.conftest import MINIMAL, Folder
from tests.recipes.test_load import EVERY_FIELD

SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def complaints(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", catalogue.names())
def test_accepts_the_catalogue_as_it_is_written(name: str) -> None:
    path = catalogue.recipe_path(name)
    assert path
    assert complaints(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        EVERY_FIELD,
        MINIMAL,
        starter("mine", "recipe.schema.json"),
        "extends: local-smoke\n",
        "extends: local-smoke\nworkload: {concurrency: 1}\n",
        MINIMAL + "env: {A: x, B: 1}\n",
        MINIMAL + "resources: {cpus: 16, memory: 64GiB, disk_size: 1.5TB}\n",
        MINIMAL + "matrix: {workload.seed: [1, 2], include: [{workload.seed: 3}], exclude: [{workload.seed: 1}]}\n",
    ],
)
def test_accepts_what_is_valid(text: str) -> None:
    assert complaints(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "name: x\n",
        "name: x\nworkload: {}\n",
        "matrix: {workload.seed: 7}\nextends: x\n",
        MINIMAL + "colect: [x]\n",
        MINIMAL + "limits: {max_cst: 1}\n",
        MINIMAL + "limits: {max_duration: 90}\n",
        MINIMAL + "limits: {max_cost: -1}\n",
        MINIMAL + "resources: {disk_size: 20QB}\n",
        MINIMAL + "resources: {cpus: many}\n",
        MINIMAL + "resources: {cloud: secret}\n",
        MINIMAL + "resources: {accelerators: 'A100:0'}\n",
        MINIMAL + "resources: {any_of: [{acelerators: A100}]}\n",
        MINIMAL + "secrets: [a b]\n",
        MINIMAL + "env: {A: [x]}\n",
    ],
)
def test_refuses_what_the_validator_refuses(here: Folder, text: str) -> None:
    assert complaints(text)
    assert here.problems(text)


def test_names_every_field_of_a_recipe_file() -> None:
    assert set(SCHEMA["properties"]) == {*Recipe.model_fields, "extends", "matrix"}


def test_explains_itself_to_an_editor() -> None:
    workload = SCHEMA["$defs"]["Workload"]["properties"]
    assert workload["concurrency"]["description"] == (
        "How many requests are under way at once; auto: as many as the engine runs, found from its metrics."
    )
    assert SCHEMA["$defs"]["Resources"]["properties"]["disk_size"]["anyOf"][0]["examples"] == ["20GB", "18GiB"]

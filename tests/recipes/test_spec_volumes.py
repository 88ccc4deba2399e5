"""What a volume of a stack may say in a recipe."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from recipes.spec import Volume


@pytest.mark.parametrize("name", ["model_cache", "model_cache/team", "model_cache/a.b-c_2"])
def test_a_stack_is_named(name: str) -> None:
    assert Volume(path="/workspace", stack=name).stack == name


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"stack": "model_cach"}, "no stack with a volume; write model_cache or model_cache/NAME"),
        ({"stack": "gpu_pod"}, "no stack with a volume"),
        ({"stack": "model_cache/"}, "no stack with a volume"),
        ({"stack": "model_cache", "size": "10GB"}, "stack model_cache has its own size; remove size"),
        ({"stack": "model_cache", "name": "v1"}, "stack model_cache has its own name; remove name"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_written(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Volume(path="/workspace", **more)

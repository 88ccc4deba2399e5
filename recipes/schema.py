"""The JSON Schema of a recipe file, for editors."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from recipes.fields import Section
from recipes.spec import Recipe


def json_schema() -> dict[str, Any]:
    """The schema of a file as people write it: with `extends` and `matrix`, and nothing required when it extends."""
    schema = _described(Recipe.model_json_schema(mode="validation"))
    work = {
        "anyOf": [
            {"required": ["inputs"]},
            {"required": ["name", "traffic"], "properties": {"name": {"const": "load"}}},
        ]
    }
    complete = {"required": ["workload"], "properties": {"workload": work}}
    properties = {
        "extends": {
            "type": "string",
            "minLength": 1,
            "description": "Another recipe, by path or catalogue name; this file is merged over it.",
        },
        **schema["properties"],
        "matrix": {
            "type": "object",
            "description": "Axes: dotted paths with lists of values; one run per combination.",
            "properties": {
                "include": {"type": "array", "items": {"type": "object"}, "minItems": 1},
                "exclude": {"type": "array", "items": {"type": "object"}, "minItems": 1},
            },
            "additionalProperties": {"type": "array", "minItems": 1},
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "recipe",
        "description": "A GPU machine, a model, an engine and a workload.",
        **{
            key: value for key, value in schema.items() if key not in ("properties", "required", "title", "description")
        },
        "properties": properties,
        "anyOf": [{"required": ["extends"]}, complete],
    }


def _described(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with the fields' docstrings in it.

    pydantic could read them by itself (`use_attribute_docstrings`), but it would parse the sources at each start.
    """
    sections: list[type[Section]] = Section.__subclasses__()
    of_name = {section.__name__: section for section in sections}
    for name, part in {Recipe.__name__: schema, **schema["$defs"]}.items():
        for field, text in _docstrings(of_name[name]) if name in of_name else ():
            part["properties"][field]["description"] = text
    return schema


def _docstrings(section: type[Section]) -> Iterator[tuple[str, str]]:
    """Each field that has a docstring, with it."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)
    for one, following in pairwise(definition.body):
        match one, following:
            case ast.AnnAssign(target=ast.Name(id=field)), ast.Expr(value=ast.Constant(value=str(text))):
                yield field, inspect.cleandoc(text)

"""The JSON Schema of a recipe file, for editors."""

from __future__ import annotations

from typing import Any

from recipes.spec import Recipe


def json_schema() -> dict[str, Any]:
    """The schema of a file as people write it: with `extends` and `matrix`, and nothing required when it extends."""
    schema = Recipe.model_json_schema(mode="validation")
    complete = {"required": ["workload"], "properties": {"workload": {"required": ["inputs"]}}}
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

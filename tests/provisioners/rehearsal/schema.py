"""RunPod's schema of REST v2 as a judge of answers and bodies, where RECIPE_TEST_DATA names a folder that has it."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

NAME = "runpod-openapi-v2.json"
checked: set[tuple[str, str, int]] = set()
"""Path, method and status of every answer that was compared."""


@cache
def document() -> dict[str, Any] | None:
    """The schema; None if it is not there."""
    folder = os.environ.get("RECIPE_TEST_DATA")
    path = Path(folder or "", NAME)
    return json.loads(path.read_text()) if folder and path.is_file() else None


def check(method: str, path: str, status: int, content_type: str, answer: Any) -> None:
    """Fail if an answer is not what the schema says. Paths that the schema does not have are no answers of RunPod."""
    found = operation(method, path)
    if found is None or content_type == "text/html":
        return
    template, described = found
    response = _resolved(described["responses"].get(str(status), described["responses"]["default"]))
    content = response.get("content", {})
    if not content:
        assert answer == "", f"{method} {path} {status} has no body"
    else:
        assert content_type in content, f"{method} {path} {status} is {', '.join(content)}"
        if "json" in content_type:
            fail_unless_valid(content[content_type]["schema"], answer, f"{method} {path} {status}")
    checked.add((template, method, status))


def fail_unless_valid(schema: dict[str, Any], value: Any, what: str) -> None:
    errors = [f"{error.json_path}: {error.message}" for error in validator(schema).iter_errors(value)]
    assert errors == [], f"{what}: {errors}"


def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """Of a part of the document."""
    root = document()
    assert root is not None
    absolute = json.loads(json.dumps(schema).replace('"#/', '"urn:runpod#/'))
    resource: Resource[Any] = Resource.from_contents(root, default_specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource("urn:runpod", resource)
    return jsonschema.Draft202012Validator(
        absolute, registry=registry, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )


def operation(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    """The path's template, and what the schema says of the method there."""
    root = document()
    if root is None:
        return None
    asked = "/v2" + path.partition("?")[0]
    for template, methods in sorted(root["paths"].items(), key=lambda item: "{" in item[0]):
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), asked) and method.lower() in methods:
            return template, methods[method.lower()]
    return None


def _resolved(value: dict[str, Any]) -> dict[str, Any]:
    root = document()
    assert root is not None
    while "$ref" in value:
        found: Any = root
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/")]
        value = found
    return value

"""Starter recipes: a fresh one, or one made from the settings of an older summarising script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from recipes.document import assign
from recipes.errors import InvalidRecipe, Problem
from recipes.explain import did_you_mean, is_echo, problem_at, problem_from
from recipes.source import Node, parse, read_text
from recipes.spec import Recipe, name_from

STARTER = """\
# yaml-language-server: $schema={schema}
name: {name}
resources:
  provisioner: local            # where it runs; see recipe list for recipes on rented machines
model: {{builtin: lead}}          # or {{repo: owner/name, revision: main}}, or {{path: models/mine.gguf}}
engine:
  name: llamacpp
  args: {{ctx_size: 4096, parallel: 2}}
workload:
  name: summarize
  inputs: ["*.txt"]             # text files and globs, relative to this file
  chunk_size: 448               # texts of this many tokens or more are split
  chunk_overlap: 32
  max_tokens: 96
  temperature: 0
  concurrency: 2
limits: {{max_duration: 1h}}
"""

# Key of the script's config file → path in a recipe.
_FIELDS = {
    "chunk_size": "workload.chunk_size",
    "chunk_overlap": "workload.chunk_overlap",
    "max_tokens": "workload.max_tokens",
    "temperature": "workload.temperature",
    "httpx_max_connections": "workload.concurrency",
    "api_url": "engine.url",
    "model_identifier": "model.repo",
}
_UNUSED = {
    "httpx_max_keepalive_connections": "connections are kept as long as they are used",
    "use_fast": "the fast tokenizer is always used",
    "api_key": "keys stay out of files: put it into the environment variable OPENAI_API_KEY",
}


def starter(name: str, schema: str) -> str:
    """The text of a new recipe that runs as it is beside some text files."""
    name = name_from(name)
    is_plain = parse(name, file="", base=Path()).value == name
    return STARTER.format(name=name if is_plain else json.dumps(name), schema=schema)


def from_config(path: Path) -> str:
    """A recipe's text from a config file of the script (httpx_max_connections, chunk_size, api_url, …).

    Raises InvalidRecipe for a file that is none, or that has keys of which nothing is known.
    """
    tree = parse(read_text(path), file=str(path), base=path.parent)
    config = tree.data()
    known = {*_FIELDS, *_UNUSED, "use_batched_tokenization"}
    if not isinstance(config, dict) or not known & set(config):
        message = "not a config file with chunk_size, api_url, model_identifier, …"
        raise InvalidRecipe([Problem(file=str(path), code="config", message=message)])
    unknown = [key for key in config if key not in known]
    problems = [
        problem_at(tree.find((key,)).key_mark or tree.mark, (key,), "unknown", "unknown key", did_you_mean(key, known))
        for key in unknown
    ]
    recipe = _recipe_from(config)
    problems = problems or _wrong_values(tree, recipe)
    if "api_url" not in config and not unknown:
        problems.append(problem_at(tree.mark, ("api_url",), "missing", "required, but missing"))
    if problems:
        raise InvalidRecipe(problems)
    notes = [f"# {key}: {_UNUSED[key]}" for key in config if key in _UNUSED]
    head = [f"# Made from {path.name}.", *notes]
    return "\n".join(head) + "\n" + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)


def _wrong_values(config: Node, recipe: dict[str, Any]) -> list[Problem]:
    """What the recipe's fields refuse, at the places of the config file."""
    tree = Node({}, config.mark)
    for key, path in _FIELDS.items():
        if value := config.child(key):
            tree = assign(tree, path, value)
    try:
        Recipe.model_validate_json(json.dumps({"name": "x", **recipe}), strict=True)
    except ValidationError as error:
        mapped = [e for e in error.errors() if tree.find(tuple(e["loc"])) is not tree]
        return [problem_from(e, tree, Recipe) for e in mapped if not is_echo(e)]
    return []


def _recipe_from(config: dict[str, Any]) -> dict[str, Any]:
    recipe: dict[str, Any] = {
        "resources": {"provisioner": "local"},
        "model": {},
        "engine": {"name": "openai"},
        "workload": {
            "name": "summarize",
            "inputs": ["*.txt"],
            "prompt": "builtin:summarize",
            "separators": "paragraphs" if config.get("use_batched_tokenization", True) else "sentences",
        },
    }
    for key, path in _FIELDS.items():
        if key in config:
            section, _, field = path.partition(".")
            recipe[section][field] = config[key]
    if config.get("api_key") not in (None, "", "empty"):
        recipe["secrets"] = ["OPENAI_API_KEY"]
        recipe["engine"]["api_key_env"] = "OPENAI_API_KEY"
    return {key: value for key, value in recipe.items() if value}

"""What a recipe points to: plug-ins by name, and files by paths that start where they are written.

The checks read the tree and not the validated recipe, so that they speak in the same breath as the validator.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes import catalogue
from recipes.errors import Problem
from recipes.explain import did_you_mean, problem_at
from recipes.inputs import expand
from recipes.prompts import load_prompt
from recipes.source import Node
from recipes.spec import PROVISIONERS, Engine, Recipe

Steps = tuple[str | int, ...]
_PROMPTS: Steps = ("workload", "traffic", "prompts")
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Plugins:
    """The names of the plug-ins that are installed, by the field that uses them."""

    provisioners: Collection[str]
    engines: Collection[str]
    workloads: Collection[str]
    is_endpoint: Callable[[str], bool]
    """Whether an engine of this name runs already, and is found by its url."""


def unknown_names(tree: Node, plugins: Plugins) -> Iterator[Problem]:
    """A problem for each plug-in that does not exist."""
    kinds: tuple[tuple[Steps, Collection[str], Collection[str]], ...] = (
        (("resources", "provisioner"), PROVISIONERS, plugins.provisioners),
        (("engine", "name"), (), plugins.engines),
        (("workload", "name"), (), plugins.workloads),
    )
    for path, named, installed in kinds:
        node = _node_at(tree, path)
        if node and isinstance(node.value, str) and node.value not in named and node.value not in installed:
            kind = "provisioner" if path[0] == "resources" else path[0]
            advice = did_you_mean(node.value, {*named, *installed})
            yield problem_at(node.mark, path, "unknown", f"{node.value}: no such {kind}", advice)


def misplaced_url(tree: Node, plugins: Plugins) -> Iterator[Problem]:
    """A problem for an endpoint without its url, or a url for an engine that would be launched."""
    engine, name = tree.child("engine"), _node_at(tree, ("engine", "name"))
    url = _node_at(tree, ("engine", "url"))
    given = url is not None and url.value is not None
    if engine is None or (name and name.value not in plugins.engines):
        return
    known = str(name.value) if name else Engine().name
    if plugins.is_endpoint(known) and not given:
        advice = "write url: http://127.0.0.1:8000/v1"
        yield problem_at(engine.mark, ("engine",), "value", f"engine {known} needs a url", advice)
    elif given and url and not plugins.is_endpoint(known):
        advice = "remove it, or write name: openai for an endpoint that runs already"
        yield problem_at(url.mark, ("engine", "url"), "value", f"engine {known} is launched, and has no url", advice)
    elif given:
        yield from _no_host(tree)


def _no_host(tree: Node) -> Iterator[Problem]:
    """A problem for work that is sent to a machine where there is none: the engine runs elsewhere."""
    where, provisioner = _node_at(tree, ("workload", "where")), _node_at(tree, ("resources", "provisioner"))
    if where and where.value == "host" and (provisioner is None or provisioner.value == "local"):
        what = "host is a machine of the recipe, and it has none: the engine runs elsewhere, at its url"
        advice = "remove it, or write resources: {provisioner: ssh, hosts: […]} for a machine near the engine"
        yield problem_at(where.mark, ("workload", "where"), "value", what, advice)


def broken_references(tree: Node) -> Iterator[Problem]:
    """A problem for each file, prompt or model that is not there, or is not what it should be."""
    inputs = _node_at(tree, ("workload", "inputs"))
    for i in range(len(inputs.value) if inputs and isinstance(inputs.value, list) else 0):
        yield from _checked(tree, ("workload", "inputs", i), expand)
    yield from _checked(tree, _PROMPTS, _existing_prompts)
    yield from _checked(tree, ("workload", "prompt"), load_prompt)
    yield from _checked(tree, ("workload", "tokenizer"), _existing_or_repo)
    yield from _checked(tree, ("model", "builtin"), catalogue.builtin_model)
    if _is_local_path(tree):
        yield from _checked(tree, ("model", "path"), _existing)


def with_absolute_paths(recipe: Recipe, tree: Node) -> Recipe:
    """The recipe with every path of the client made absolute."""
    inputs = tuple(_absolute(tree, ("workload", "inputs", i), p) for i, p in enumerate(recipe.workload.inputs))
    prompt = _absolute(tree, ("workload", "prompt"), recipe.workload.prompt)
    workload: dict[str, Any] = {"inputs": inputs, "prompt": prompt}
    if recipe.workload.tokenizer:
        workload["tokenizer"] = _absolute(tree, ("workload", "tokenizer"), recipe.workload.tokenizer)
    if (traffic := recipe.workload.traffic) and traffic.prompts:
        prompts = _absolute(tree, _PROMPTS, traffic.prompts)
        workload["traffic"] = traffic.model_copy(update={"prompts": prompts})
    changes = {"workload": recipe.workload.model_copy(update=workload)}
    if recipe.model.local_path and _is_local_path(tree):
        path = _absolute(tree, ("model", "path"), recipe.model.local_path)
        return recipe.model_copy(update={**changes, "model": recipe.model.model_copy(update={"path": path})})
    return recipe.model_copy(update=changes)


def _node_at(tree: Node, path: Steps) -> Node | None:
    """The node at just this path, if there is one."""
    node: Node | None = tree
    for step in path:
        node = node.child(step) if node else None
    return node


def _absolute(tree: Node, path: Steps, value: str) -> str:
    if path == ("workload", "prompt") and (value.startswith("builtin:") or "{{" in value or "\n" in value):
        return value
    base = tree.find(path).mark.base
    if path[:2] == ("workload", "inputs"):
        base = Path(glob.escape(str(base)))  # only what is written in the recipe is a pattern
    absolute = str(base / Path(value).expanduser())
    is_repo = path == ("workload", "tokenizer") and _REPO.fullmatch(value) and not Path(absolute).exists()
    return value if is_repo else absolute


def _checked(tree: Node, path: Steps, test: Callable[[str], object]) -> Iterator[Problem]:
    node = _node_at(tree, path)
    if node is None or not isinstance(node.value, str) or not node.value:
        return
    try:
        test(node.value if path == ("model", "builtin") else _absolute(tree, path, node.value))
    except ValueError as error:
        what, _, advice = str(error).partition("; ")
        yield problem_at(node.mark, path, "value", what, advice)
    except (OSError, RuntimeError) as error:  # a name that is too long, a folder that is closed, the home of nobody
        yield problem_at(node.mark, path, "value", f"{node.value}: {getattr(error, 'strerror', None) or error}")


def _is_local_path(tree: Node) -> bool:
    """Whether model.path means a file of this machine: it stands alone, and the machine is this one."""
    provisioner = _node_at(tree, ("resources", "provisioner"))
    here = provisioner is None or provisioner.value == "local"
    return here and not any(_node_at(tree, ("model", key)) for key in ("repo", "builtin"))


def _existing(path: str) -> None:
    if not Path(path).exists():
        raise ValueError(f"{path}: no such file or folder; write a folder or a .gguf file")


def _existing_prompts(path: str) -> None:
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; write a text file with one prompt per line, or JSONL")
    if Path(path).stat().st_size == 0:
        raise ValueError(f"{path} is empty; write one prompt per line, or leave prompts out for synthetic ones")


def _existing_or_repo(value: str) -> None:
    if not Path(value).exists() and not _REPO.fullmatch(value):
        raise ValueError(f"{value}: no such file; write a tokenizer.json, a folder that holds one, or owner/name")

"""From a reference and overrides to validated recipes: the one door through which untyped data comes in."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recipes.document import EXTENDS, Variant, apply_overrides, expand_matrix, locate, read_tree
from recipes.errors import InvalidRecipe, Problem
from recipes.explain import is_echo, problem_from
from recipes.prompts import load_prompt
from recipes.references import Plugins, broken_references, misplaced_url, unknown_names, with_absolute_paths
from recipes.source import read_text
from recipes.spec import ASIDE, Recipe, digest_of, name_from


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe, its paths absolute, with the text that it came from."""

    recipe: Recipe
    source: Path
    text: str
    variant: dict[str, Any]
    digest: str
    """Of the recipe as written, so that it is the same on every machine."""
    command: str
    """The command line that runs it."""
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each field was written, as file:line:column."""


def load(
    reference: str, *, overrides: Sequence[str] = (), plugins: Plugins, cwd: Path, any_size: bool = False
) -> tuple[LoadedRecipe, ...]:
    """The recipes that a file or catalogue name means, one per run of its matrix.

    Raises InvalidRecipe with every problem of every run. `any_size` lets a matrix have more than 1,000 runs.
    """
    path = locate(reference, cwd)
    problems: list[Problem] = []
    loaded: list[LoadedRecipe] = []
    command = shlex.join(["recipe", "up", reference, *(part for text in overrides for part in ("--set", text))])
    try:
        tree = apply_overrides(read_tree(path, problems), overrides, cwd)
        for variant in expand_matrix(tree, any_size=any_size):
            try:
                loaded.append(_validated(variant, path, plugins, command))
            except InvalidRecipe as error:
                problems.extend(error.problems)
    except InvalidRecipe as error:
        problems.extend(error.problems)
    if problems:
        raise InvalidRecipe(sorted(_own(problems), key=lambda p: (p.file, p.line, p.column)))
    return tuple(loaded)


def _own(problems: list[Problem]) -> Iterable[Problem]:
    """One for each place, the first; and none that only says that a parent, which could not be read, is missing."""
    orphan = any(problem.code == EXTENDS for problem in problems)
    kept = {(p.file, p.line, p.column, p.path): p for p in reversed(problems)}
    return [p for p in kept.values() if not orphan or (p.code != "missing" and p.path)]


def load_resolved(data: dict[str, Any], text: str, plan: dict[str, Any]) -> LoadedRecipe:
    """A recipe from what `Recipe.resolved` gave, and the plan that was made of it: a run that goes on is the same."""
    commit = plan["model"]["commit"]
    if commit:
        data = {**data, "model": {**data["model"], "revision": commit}}
    recipe = Recipe.model_validate_json(json.dumps(data))
    return LoadedRecipe(recipe, Path(plan["source"]), text, plan["variant"], plan["recipe_digest"], plan["command"])


def load_all(references: Iterable[str], **options: Any) -> tuple[LoadedRecipe, ...]:
    """All recipes of all references. Raises InvalidRecipe with the problems of all of them."""
    loaded: list[LoadedRecipe] = []
    problems: list[Problem] = []
    for reference in references:
        try:
            loaded.extend(load(reference, **options))
        except InvalidRecipe as error:
            problems.extend(error.problems)
    if problems:
        raise InvalidRecipe(problems)
    return tuple(loaded)


def _validated(variant: Variant, path: Path, plugins: Plugins, command: str) -> LoadedRecipe:
    tree = variant.tree
    data = tree.data()
    data.setdefault("name", name_from(path.stem))
    problems = [*unknown_names(tree, plugins), *misplaced_url(tree, plugins), *broken_references(tree)]
    try:
        written = Recipe.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        problems.extend(problem_from(e, tree, Recipe) for e in error.errors() if not is_echo(e))
    if problems:
        raise InvalidRecipe(problems)
    if variant.settings:
        written = written.model_copy(update={"name": _variant_name(written.name, variant.settings)})
    recipe = with_absolute_paths(written, tree)
    digest = digest_of([_essence(written), load_prompt(recipe.workload.prompt).text])
    return LoadedRecipe(recipe, path, read_text(path), variant.settings, digest, command, tree.places())


def _essence(recipe: Recipe) -> dict[str, Any]:
    """What makes two runs repetitions of each other."""
    return {name: value for name, value in recipe.resolved().items() if name not in ASIDE}


def _variant_name(name: str, settings: dict[str, Any]) -> str:
    parts = (f"{path.rpartition('.')[2]}-{value}" for path, value in settings.items())
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{name}.{'.'.join(parts)}")[:80].rstrip("-._")

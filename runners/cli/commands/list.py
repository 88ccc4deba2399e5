"""The recipes that ship with recipe: what each needs and does."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recipes import catalogue
from recipes.load import load
from recipes.spec import Recipe
from runners import registry
from runners.cli.common import add_json, console, print_json
from runners.terminal.summary import aligned_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    plugins, here = registry.installed(), Path.cwd()
    rows = [_row(name, load(name, plugins=plugins, cwd=here)[0].recipe) for name in catalogue.names()]
    if options.json:
        print_json({"recipes": rows})
        return 0
    header = ("recipe", "where", "hardware", "engine", "model")
    cells = [[r["recipe"], r["provisioner"], r["accelerators"] or "CPU", r["engine"], r["model"]] for r in rows]
    out = console()
    out.print(aligned_table(header, cells))
    out.print("\nrecipe show NAME prints one; recipe up NAME runs it")
    return 0


def _row(name: str, recipe: Recipe) -> dict[str, Any]:
    accelerators = recipe.resources.accelerators
    return {
        "recipe": name,
        "provisioner": recipe.resources.provisioner,
        "accelerators": str(accelerators) if accelerators else None,
        "engine": recipe.engine.name,
        "model": recipe.model.identifier,
        "path": str(catalogue.recipe_path(name)),
    }

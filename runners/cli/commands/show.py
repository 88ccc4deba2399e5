"""A recipe with everything that it extends and every default filled in, as YAML or JSON."""

from __future__ import annotations

import argparse

import yaml

from runners.cli.common import add_json, add_recipes, load_recipes, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipes(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    documents = [one.recipe.resolved() for one in load_recipes(options)]
    if options.json:
        print_json({"recipes": documents})
    else:
        print(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True), end="")
    return 0

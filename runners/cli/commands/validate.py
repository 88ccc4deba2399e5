"""Check recipe files. Every problem of every file is reported at once."""

from __future__ import annotations

import argparse

from runners.cli.common import add_json, add_recipes, load_recipes, print_json
from runners.terminal.words import plural


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipes(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Returns 0, or raises InvalidRecipe; with --json the document is printed in either case."""
    loaded = load_recipes(options)
    if options.json:
        print_json({"problems": []})
        return 0
    for reference in options.recipe:
        print(f"{reference}: fine")
    if len(loaded) > len(options.recipe):
        print(f"{plural(len(loaded), 'run')} in all")
    return 0

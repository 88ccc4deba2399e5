"""The JSON Schema of a recipe file. Editors use it to complete and check while you type:

recipe schema > recipe.schema.json
# yaml-language-server: $schema=recipe.schema.json     (the first line of a recipe)
"""

from __future__ import annotations

import argparse

from recipes.schema import json_schema
from runners.cli.common import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> int:
    del options
    print_json(json_schema())
    return 0

"""Offers, findings and the exact steps of a run. Changes nothing and costs nothing."""

from __future__ import annotations

import argparse
import asyncio

from runners.cli.commands.up import plan_all
from runners.cli.common import add_json, add_recipes, load_recipes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipes(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    return asyncio.run(plan_all(load_recipes(options), as_json=options.json))

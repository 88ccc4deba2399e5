"""Runs a program of this package inside Pulumi: from `recipe stack`, and as a plain Pulumi project."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

import pulumi

from stacks.values import INPUTS


def run(program: str, inputs: Mapping[str, Any]) -> None:
    """The program `stacks.<program>.program.run` with these inputs, which are kept among the stack's outputs."""
    importlib.import_module(f"stacks.{program}.program").run(inputs)
    pulumi.export(INPUTS, json.dumps(inputs, sort_keys=True))


def main(program: str) -> None:
    """A plain project's __main__: inputs from `recipe stack inputs`, for the recipes that its configuration names."""
    raise NotImplementedError

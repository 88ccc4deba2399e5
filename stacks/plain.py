"""Runs a program of this package inside Pulumi: from `recipe stack`, and as a plain Pulumi project."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from stacks.reference import StackRef
from stacks.values import INPUTS


def run(program: str, inputs: Mapping[str, Any]) -> None:
    """The program `stacks.<program>.program.run` with these inputs, which are kept among the stack's outputs.

    As a secret: nobody wants to see them whenever outputs are shown.
    """
    importlib.import_module(f"stacks.{program}.program").run(inputs)
    pulumi.export(INPUTS, pulumi.Output.secret(json.dumps(inputs, sort_keys=True)))


def main(program: str) -> None:
    """A plain project's __main__: the program with the inputs that `recipe stack inputs` makes of its configuration.

    `pulumi config set recipe 'FILE… --size 200GB'`: recipes and options as `recipe stack up` takes them, relative to
    the project's folder. Raises RunError, which Pulumi shows without a traceback.
    """
    ref = StackRef(program, pulumi.get_stack())
    words = pulumi.Config().get("recipe")
    if not words:
        raise pulumi.RunError("which recipe? pulumi config set recipe FILE, or a name of recipe's catalogue")
    run(program, _inputs(ref, shlex.split(words)))


def _inputs(ref: StackRef, words: Sequence[str]) -> dict[str, Any]:
    """By a process of its own: what knows recipes stands above this package."""
    # Without PULUMI_BACKEND_URL recipe would look for the stack's last inputs in another backend than this Pulumi does.
    new = [] if "PULUMI_BACKEND_URL" in os.environ else ["--new"]
    argv = [sys.executable, "-m", "runners.cli", "stack", "inputs", str(ref), *words, *new, "--json"]
    ended = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if ended.returncode:
        said = ended.stderr.strip().removeprefix("error: ")
        raise pulumi.RunError(said or f"recipe stack inputs ended with {ended.returncode}")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found

"""The side of a stack that knows recipes: one module here for each program, named as it is.

`stacks.<name>.program.run(inputs)` is the Pulumi program itself; it exports the stack's outputs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from recipes.load import LoadedRecipe
from runners.stacking.billing import Billing, Replaced
from stacks.reference import StackRef
from stacks.values import Changes, Heard


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """What the command line asks for; a program refuses (UsageError) what means nothing to it."""

    size_gb: int | None = None
    """Of 10⁹ bytes."""
    region: str | None = None
    fill: bool = False
    volume: str | None = None
    """The id of a volume that is there already, and is to be gone on with."""
    forced: tuple[str, ...] = ()
    """Checks that may fail."""


class StackProgram(Protocol):
    """One program of stacks/, as `recipe stack` deals with it. A module of this package is one: these are functions."""

    async def inputs(
        self,
        recipes: Sequence[LoadedRecipe],
        ref: StackRef,
        options: StackOptions,
        env: Mapping[str, str],
        before: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """What the Pulumi program is run with: plain JSON; of secrets only the names of their variables.

        `before` are the inputs of the last update, None if there was none; without recipes they are gone on with.
        Changes nothing. Raises UsageError if neither is enough, and what a plan raises.
        """
        ...

    def costs(self, inputs: Mapping[str, Any], changes: Changes, outputs: Mapping[str, Any]) -> list[str]:
        """What it will cost from then on, a line each, such as "$14.00/month for 200 GB until it is destroyed".

        `outputs` are those of the stack as it is; none if it is new.
        """
        ...

    async def warnings(
        self, ref: StackRef, inputs: Mapping[str, Any], outputs: Mapping[str, Any], env: Mapping[str, str]
    ) -> list[str]:
        """What is to be known before an update is agreed to, such as what another one has left, and bills.

        `inputs` are what the update would be run with; none where none is wanted.
        Changes nothing. Raises NoMachine where nobody can be asked.
        """
        ...

    def known(self, outputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The outputs, with what this machine knows besides."""
        ...

    def told(self, outputs: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The stack's outputs for people: what each is, and its value."""
        ...

    async def after_up(
        self,
        ref: StackRef,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        env: Mapping[str, str],
        heard: Heard,
    ) -> list[str]:
        """Whatever is to be waited for, such as a machine that can be reached; returns what is to be told at the end.

        It may be called again for an update that changed nothing. Raises Unusable for what can never be used, and
        nobody else waits for: the stack is emptied then.
        """
        ...

    async def after_failure(
        self,
        ref: StackRef,
        made: Sequence[Mapping[str, Any]],
        outputs: Mapping[str, Any],
        env: Mapping[str, str],
        heard: Heard,
    ) -> list[str]:
        """Called where an update failed or was interrupted: lets go of what was only a means, with proof.

        `made` is what was made before that, as the report has it; `outputs` are those of before the update. Returns the
        names of what stays, and bills. Raises MayStillBillError.
        """
        ...

    def billing(self, outputs: Mapping[str, Any]) -> Billing | None:
        """What of this stack bills until it is destroyed, as data; None if nothing does."""
        ...

    def replaced(
        self,
        changes: Changes,
        before: Mapping[str, Any] | None,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
    ) -> Replaced | None:
        """Why something is replaced, and what is ended for it; None if nothing is.

        `before` are the inputs of the last update, and `outputs` what it has put out.
        """
        ...

    def left(self, ref: StackRef, outputs: Mapping[str, Any]) -> str:
        """What may bill of this stack besides what it puts out, as far as it is known here; "" if nothing does."""
        ...

    async def after_destroy(
        self, ref: StackRef, outputs: Mapping[str, Any], env: Mapping[str, str], *, alone: bool = False
    ) -> list[str]:
        """Called once everything is deleted, with the outputs of before: the proof, a line for each thing.

        What is `left` of the stack is ended here; `alone`: nothing but what these outputs tell of. It may be called for
        a stack that is not there any more, or that Pulumi cannot read.
        Raises MayStillBillError if something of it is there after all.
        """
        ...


def program_of(ref: StackRef) -> StackProgram:
    """The module of this stack's program."""
    module: StackProgram = importlib.import_module(f"runners.stacking.{ref.program}")
    return module


def pulumi_program(ref: StackRef, inputs: Mapping[str, Any]) -> Callable[[], None]:
    """The program of stacks/ with these inputs, for the Automation API. Imports Pulumi when it is called."""

    def run() -> None:
        importlib.import_module("stacks.plain").run(ref.program, inputs)

    return run

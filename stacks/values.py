"""What is said of stacks: changes, outputs, and what can go wrong. Nothing here needs Pulumi."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from recipes.errors import ExitCode, NoMachine, RecipeError, UsageError

Heard = Callable[[str], None]
"""Is told what happens, a readable line at a time, in the event loop's thread."""

INPUTS = "recipe_inputs"
"""The stack output that keeps what the program was run with, so that a colleague can go on from it."""

INNER_KINDS = frozenset({"UniqueName", "PodName", "VolumeName"})
"""Kinds of resources that cost nothing, and that nobody asked for: the names of what people ask for."""

HIDDEN = "[secret]"
"""What Pulumi shows in a secret's place."""


class StackFailed(RecipeError):
    """Pulumi did not get to its end, and the resource's provider did not say why."""

    exit_code = ExitCode.NO_MACHINE


class StackBusy(RecipeError):
    """Somebody else is changing this stack now."""

    exit_code = ExitCode.NO_MACHINE


class NoEngine(NoMachine):
    """Pulumi's engine is not on this machine, or cannot be used."""


class Unusable(NoMachine):
    """What a stack's update made is there, and can never be used."""


class NoSuchStack(UsageError):
    """A stack that nobody has made yet."""


@dataclass(frozen=True)
class Secret:
    """A value that Pulumi keeps encrypted; shown nowhere."""

    value: Any = field(repr=False)

    def __str__(self) -> str:
        return HIDDEN


@dataclass(frozen=True, kw_only=True)
class Step:
    """What happens to one resource."""

    op: str
    """create, update, replace, delete or same; read where it is only looked at."""
    type: str
    """The resource's kind, as people call it: the last word of Pulumi's type, such as Volume."""
    name: str
    urn: str = ""
    changed: tuple[str, ...] = ()
    """The inputs that differ."""


@dataclass(frozen=True)
class Changes:
    """What an update would do."""

    steps: tuple[Step, ...] = ()

    @property
    def counts(self) -> Mapping[str, int]:
        """How many resources meet each operation."""
        return Counter(step.op for step in self.steps)

    @property
    def made(self) -> frozenset[str]:
        """The kinds of which something would be made."""
        return frozenset(step.type for step in self.steps if step.op in ("create", "replace"))

    @property
    def any(self) -> bool:
        """Whether anything would be created, changed or deleted."""
        return any(step.op not in ("same", "read") for step in self.steps)

    def of(self, type_: str) -> Step | None:
        """The step of the first resource of this kind."""
        return next((step for step in self.steps if step.type == type_), None)


@dataclass(frozen=True, kw_only=True)
class StackSummary:
    """A stack in a list."""

    project: str
    name: str
    updated_at: datetime | None = None
    resources: int | None = None
    """How many it holds; None if nobody has said."""
    busy: bool | None = None
    """Whether somebody is changing it now. None where Pulumi does not say: only its own service does."""

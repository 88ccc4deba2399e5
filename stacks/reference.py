"""Which stack is meant: a program of this package, and which of its instances."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from recipes.errors import UsageError
from recipes.explain import did_you_mean

PROGRAMS = ("gpu_pod", "model_cache")
"""Each is a folder of this package, and a Pulumi project."""
USUAL = "main"
"""The instance that is meant where none is named."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class StackRef:
    """One stack, as Pulumi's project and stack."""

    program: str
    name: str = USUAL

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads PROGRAM or PROGRAM/NAME. Raises UsageError."""
        program, slash, name = text.partition("/")
        if program not in PROGRAMS:
            advice = did_you_mean(program, PROGRAMS) or f"there are {' and '.join(PROGRAMS)}"
            raise UsageError(f"{text}: no such stack", advice=advice)
        if slash and not _NAME.fullmatch(name):
            advice = "write letters, digits and . _ -, at most 100, the first a letter or a digit"
            raise UsageError(f"{text}: {name!r} is no name of a stack", advice=advice)
        return cls(program, name or USUAL)

    @classmethod
    def of(cls, project: str, name: str) -> Self:
        """The stack of this name in a Pulumi project of ours."""
        return cls(project.removeprefix("recipe-").replace("-", "_"), name)

    @property
    def project(self) -> str:
        """Its name as a Pulumi project."""
        return f"recipe-{self.program.replace('_', '-')}"

    def __str__(self) -> str:
        return self.program if self.name == USUAL else f"{self.program}/{self.name}"

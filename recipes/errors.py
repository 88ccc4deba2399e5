"""What can go wrong, as types: each says what happened, what to do next, and with which code the command ends.

RecipeError                 1   a bug, unless it is one of these
├── UsageError              2   the command line is wrong
├── InvalidRecipe           2   a recipe file is wrong; holds every problem in it
├── Refused                 3   stopped before anything was spent
├── NoMachine               4   capacity, credentials, unreachable
│   ├── NoCapacity              this offer cannot be had now; another might
│   └── NoCredentials           nobody has said with which key to ask
├── Unsettled               4   nobody knows whether a machine was created
├── HostCommandFailed       5   a command on the host failed
├── EngineFailed            6   the engine did not start, or died
├── WorkloadFailed          7   requests or documents failed
├── NotMet                  8   a run is not what was asked of it
└── MayStillBillError       9   something was not proven gone
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """The command's exit codes."""

    DONE = 0
    BUG = 1
    USAGE = 2
    REFUSED = 3
    NO_MACHINE = 4
    HOST_COMMAND = 5
    ENGINE = 6
    WORKLOAD = 7
    NOT_MET = 8
    STILL_BILLING = 9
    INTERRUPTED = 130


class RecipeError(Exception):
    """An expected failure: what happened, and the advice that leads out of it."""

    exit_code = ExitCode.BUG

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


class UsageError(RecipeError):
    exit_code = ExitCode.USAGE


class Refused(RecipeError):
    exit_code = ExitCode.REFUSED
    code = "model"
    """As a finding's: what it is about."""
    path = "model"
    """The recipe's field that it is about."""


class NoMachine(RecipeError):
    exit_code = ExitCode.NO_MACHINE


class NoCapacity(NoMachine):
    """One offer that cannot be had now; the next is tried."""


class NoCredentials(NoMachine):
    """The provider was not asked: there is no key for it here."""


class Unsettled(RecipeError):
    """Nobody knows whether a machine was created: its lease has to be let go like any other."""

    exit_code = ExitCode.NO_MACHINE


class HostCommandFailed(RecipeError):
    exit_code = ExitCode.HOST_COMMAND


class EngineFailed(RecipeError):
    exit_code = ExitCode.ENGINE


class WorkloadFailed(RecipeError):
    exit_code = ExitCode.WORKLOAD


class NotMet(RecipeError):
    """Results were held against what was asked of them (recipe check), and fall short."""

    exit_code = ExitCode.NOT_MET


class MayStillBillError(RecipeError):
    exit_code = ExitCode.STILL_BILLING


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong in a recipe. Lines and columns count from 1; 0 means that there is none."""

    file: str
    line: int = 0
    column: int = 0
    path: str = ""
    code: str = "invalid"
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        what = f"{self.message}; {self.suggestion}" if self.suggestion else self.message
        return f"{place} {self.path}: {what}" if self.path else f"{place}: {what}"


class InvalidRecipe(RecipeError):
    """A recipe cannot be used; `problems` holds everything that is wrong with it."""

    exit_code = ExitCode.USAGE

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(map(str, self.problems)))

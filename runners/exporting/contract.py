"""What an export target promises, and what it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol, runtime_checkable

from recipes.errors import UsageError
from runners.comparing.groups import base_of
from runners.ledger import Row

What = Literal["runs", "requests", "telemetry"]


@dataclass(frozen=True)
class ExportedRun:
    """A run as the ledger has it, and its folder, which may be gone."""

    row: Row
    result: dict[str, Any]
    """result.json. Of a run that left none, what the ledger knows of it, in the same places."""
    folder: Path

    @property
    def run_id(self) -> str:
        return self.row.run_id

    @property
    def recipe(self) -> str:
        """The recipe's name; of a run of a matrix that of the matrix."""
        return base_of(self.row.recipe, self.row.variant)


@runtime_checkable
class FileTarget(Protocol):
    """Writes runs, or what was measured in them, as one file."""

    suffix: str
    """Of files in this format, with its dot."""
    whats: Sequence[What]
    """What it can write."""
    binary: bool
    """Whether a terminal had better not be shown it."""

    def write(self, what: What, runs: Iterable[ExportedRun], file: IO[bytes]) -> None:
        """Write everything, in the order given, without holding more than some rows in memory.

        Raises UsageError if a library is missing.
        """


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where and how runs are given to an experiment tracker."""

    uri: str | None = None
    """The tracker's address; None for what its own client is set to."""
    group: str | None = None
    """Its experiment or project; None for one of each recipe's name. All runs of a matrix are of one recipe."""
    outputs: bool = False
    """Whether the outputs' files go with the run."""
    again: bool = False
    """Whether a run that is there, and complete, is written anew."""


@dataclass(frozen=True)
class Sent:
    """A run that a tracker has now."""

    run_id: str
    new: bool
    """Whether it was written; False if it was there already."""
    where: str
    note: str = ""
    """What holds for all that were sent so."""


@runtime_checkable
class Tracker(Protocol):
    """Gives runs to an experiment tracker, through the tracker's own client.

    A run that is given twice is there once.
    """

    def send(self, runs: Iterable[ExportedRun], tracking: Tracking) -> Iterator[Sent]:
        """Give it each run; yields as soon as one is there. Raises UsageError if the client's library is missing, and
        NoMachine if the tracker cannot be reached or refuses."""


def imported(load: Callable[[], Any], name: str, extra: str) -> Any:
    """A library that only an export needs. Raises UsageError that says how it is installed."""
    try:
        return load()
    except ImportError as error:
        if (error.name or name).partition(".")[0] != name:
            raise
        raise UsageError(
            f"{name} is not installed in recipe's environment", advice=f"pip install 'gpu-recipe[{extra}]'"
        ) from error

"""One Pulumi stack through the Automation API. Importing this imports nothing of Pulumi; its methods do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from provisioners.contract import Site
from stacks.report import Report
from stacks.values import Changes, Heard, StackSummary


def _nobody(line: str) -> None:
    """For whom nobody listens."""


class Managed:
    """One Pulumi stack. Its methods raise what the resources' providers reported, else StackFailed with the last error.

    A cancelled method asks the engine to finish its running step and to write its state; a second cancellation, or
    LAST_WORD_S, ends it at once. Several may work at the same time in one process.
    """

    fresh: bool
    """Made by this `open`."""
    report: Report
    """What providers told during the last operation."""

    @classmethod
    async def open(
        cls, site: Site, project: str, name: str, program: Callable[[], None] | None = None, *, create: bool
    ) -> Self:
        """The stack, made if it is not there and `create` says so. Raises NoSuchStack, NoEngine, UsageError."""
        raise NotImplementedError

    async def preview(self, heard: Heard = _nobody) -> Changes:
        """What `up` would do. Sends no writing request."""
        raise NotImplementedError

    async def up(self, heard: Heard = _nobody) -> Mapping[str, Any]:
        """Make it so; returns the outputs, secrets as `Secret`."""
        raise NotImplementedError

    async def preview_destroy(self, heard: Heard = _nobody) -> Changes:
        """What `destroy` would delete."""
        raise NotImplementedError

    async def destroy(self, heard: Heard = _nobody, *, patience_s: float) -> None:
        """Delete everything in it; the stack itself stays, empty. Raises StackFailed when patience is over."""
        raise NotImplementedError

    async def refresh(self, heard: Heard = _nobody) -> None:
        """Look at every resource, and write down what is there."""
        raise NotImplementedError

    async def outputs(self) -> Mapping[str, Any]:
        """As of the last update; secrets as `Secret`."""
        raise NotImplementedError

    async def remove(self) -> None:
        """Forget the stack, which must be empty, and its folder here."""
        raise NotImplementedError


async def stacks(site: Site) -> list[StackSummary]:
    """The stacks of both projects in the backend."""
    raise NotImplementedError


def log_of(site: Site, project: str, name: str) -> Path:
    """Where everything lies that the engine said of a stack, masked."""
    return site.home / "pulumi" / "logs" / f"{project}.{name}.log"

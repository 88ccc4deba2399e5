"""What a stack last put out, kept on this machine: for plans, and for where there is no engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from provisioners.contract import Site
from stacks.reference import StackRef


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """A stack's outputs, without secrets."""

    values: Mapping[str, Any]
    at: datetime
    """When they were had from Pulumi."""
    source: Literal["pulumi", "kept"]
    inputs: Mapping[str, Any] | None = None
    """What the program was run with; None if nobody has kept it."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A stack as this machine last saw it."""

    ref: StackRef
    at: datetime
    backend: str
    values: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] | None = None


def keep(site: Site, ref: StackRef, values: Mapping[str, Any], inputs: Mapping[str, Any] | None = None) -> Kept:
    """Write down what a stack puts out. A file that cannot be written is no failure of the stack."""
    raise NotImplementedError


def forget(site: Site, ref: StackRef) -> None:
    """A stack that is gone."""
    raise NotImplementedError


def kept(site: Site, ref: StackRef) -> Kept | None:
    """What this machine last saw of a stack in the backend of now; None if nothing."""
    raise NotImplementedError


async def outputs_of(site: Site, ref: StackRef) -> Outputs:
    """The stack's outputs: Pulumi's if there is an engine, else as they were last seen here (`source` says which).

    Imports nothing of Pulumi. Raises NoSuchStack if there is none, and what `backend_of` raises.
    """
    raise NotImplementedError

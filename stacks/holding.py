"""Which Pulumi stack a lease belongs to, as its details tell. Imports nothing that takes long."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import psutil

from provisioners.contract import Lease
from provisioners.journal import Entry
from stacks.reference import StackRef

_STACK = "stack"
_BACKEND = "backend"
_HELD = "held"
_MINDED = "minded_by"
_IN_USE = ("created", "reached")
"""States of the journal."""


@dataclass(frozen=True)
class Place:
    """The Pulumi project and stack of a lease."""

    project: str
    name: str
    own: bool
    """Made for this lease alone, and removed with it."""
    backend: str | None = None
    """Where its state lies; None if nobody has said."""

    @classmethod
    def of(cls, lease: Lease) -> Place:
        said = lease.details.get(_STACK)
        if isinstance(said, Mapping):
            return cls(str(said.get("project")), str(said.get("name")), False, lease.details.get(_BACKEND))
        return cls(StackRef("gpu_pod").project, lease.name, own=True)


def in_stack(project: str, name: str) -> dict[str, object]:
    """The details of a lease that a stack of several lives holds."""
    return {_STACK: {"project": project, "name": name}}


def in_backend(lease: Lease, url: str) -> Lease:
    """The same, of a stack whose state lies there; a URL without secrets."""
    return replace(lease, details={**lease.details, _BACKEND: url})


def held(lease: Lease, ref: StackRef) -> Lease:
    """The same, kept by a stack whose update has come to its end."""
    return replace(lease, details={**lease.details, _HELD: str(ref)})


def holder_of(entry: Entry, now: datetime) -> str | None:
    """The stack that keeps it until its deadline, as people name it; None if none does, or not any more.

    What somebody has begun to let go is kept by nobody.
    """
    said, deadline = entry.lease.details.get(_HELD), entry.lease.deadline
    over = deadline is not None and deadline <= now
    return str(said) if said and entry.state in _IN_USE and not over else None


def minded(lease: Lease) -> Lease:
    """The same, used by this process for as long as it lives."""
    return replace(lease, details={**lease.details, _MINDED: [os.getpid(), psutil.Process().create_time()]})


def is_minded(lease: Lease) -> bool:
    """Whether the process of this machine that uses it lives."""
    said = lease.details.get(_MINDED)
    if not said:
        return False
    pid, since = said
    try:
        return bool(psutil.Process(int(pid)).create_time() == since)
    except (psutil.Error, ValueError):
        return False

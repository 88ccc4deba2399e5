"""Which Pulumi stack a lease belongs to, as its details tell. Imports nothing that takes long."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import psutil

from provisioners.contract import Lease
from stacks.reference import StackRef

_STACK = "stack"
_HELD = "held"
_MINDED = "minded_by"


@dataclass(frozen=True)
class Place:
    """The Pulumi project and stack of a lease."""

    project: str
    name: str
    own: bool
    """Made for this lease alone, and removed with it."""

    @classmethod
    def of(cls, lease: Lease) -> Place:
        said = lease.details.get(_STACK)
        if isinstance(said, Mapping):
            return cls(str(said.get("project")), str(said.get("name")), own=False)
        return cls(StackRef("gpu_pod").project, lease.name, own=True)


def in_stack(project: str, name: str) -> dict[str, object]:
    """The details of a lease that a stack of several lives holds."""
    return {_STACK: {"project": project, "name": name}}


def held(lease: Lease, ref: StackRef) -> Lease:
    """The same, kept by a stack whose update has come to its end."""
    return replace(lease, details={**lease.details, _HELD: str(ref)})


def holder_of(lease: Lease, now: datetime) -> str | None:
    """The stack that keeps it until its deadline, as people name it; None if none does, or not any more."""
    said = lease.details.get(_HELD)
    over = lease.deadline is not None and lease.deadline <= now
    return str(said) if said and not over else None


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

"""Which Pulumi stack a lease belongs to, as its details tell. Imports nothing that takes long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from provisioners.contract import Lease
from provisioners.journal import Entry
from provisioners.processes import lives, this_one
from stacks.reference import StackRef

_STACK = "stack"
_BACKEND = "backend"
_HELD = "held"
_MINDED = "minded_by"
ELSEWHERE = "elsewhere"
"""Set in the details of a pod that was rented from another computer, and whose key is there."""
UPDATED_BY = "updated_by"
"""The output of a stack that says which process made its last update: its number, and when it began."""
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
    """The same, kept by a stack whose update has come to its end: nobody need mind it any more."""
    return replace(lease, details={**unminded(lease).details, _HELD: str(ref)})


def holder_of(entry: Entry, now: datetime) -> str | None:
    """The stack that keeps it until its deadline, as people name it; None if none does, or not any more.

    What somebody has begun to let go is kept by nobody.
    """
    said, deadline = entry.lease.details.get(_HELD), entry.lease.deadline
    over = deadline is not None and deadline <= now
    return str(said) if said and entry.state in _IN_USE and not over else None


def is_put_out(lease: Lease, outputs: Mapping[str, Any]) -> bool:
    """Whether this machine is the one that a stack with these outputs has."""
    return bool((outputs.get("lease") or {}).get("name") == lease.name)


def is_gone_on_with(lease: Lease, outputs: Mapping[str, Any]) -> bool:
    """Whether another update than the one that asked for this machine came to its end with it, as a colleague's.

    Not where nobody knows which one that was.
    """
    by, minded_by = outputs.get(UPDATED_BY), lease.details.get(_MINDED)
    return is_put_out(lease, outputs) and None not in (by, minded_by) and by != minded_by


def minded(lease: Lease, process: tuple[int, float] | None = None) -> Lease:
    """The same, used for as long as this process lives, or the one that is named by its number and its beginning."""
    return replace(lease, details={**lease.details, _MINDED: list(process or this_one())})


def unminded(lease: Lease) -> Lease:
    """The same, as others may know it: whose process uses it says nothing to them."""
    return replace(lease, details={name: told for name, told in lease.details.items() if name != _MINDED})


def is_minded(lease: Lease, *, by_another: bool = False) -> bool:
    """Whether the process of this machine that uses it lives; `by_another`: and is not this one."""
    try:
        pid, since = lease.details[_MINDED]
        is_meant = not by_another or int(pid) != this_one()[0]
        return is_meant and lives(int(pid), datetime.fromtimestamp(since, UTC))
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return False

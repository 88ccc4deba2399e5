"""What this machine's journal says of the pods that stacks hold, or were to hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from provisioners.contract import Lease
from provisioners.journal import Entry, Journal
from provisioners.site import recipe_home
from runners.ledger import Ledger
from runners.machine import Machine
from runners.machines import in_other_backends, in_stacks, journalled
from stacks.reference import StackRef


def machines_left(ref: StackRef, outputs: Mapping[str, Any]) -> list[Machine]:
    """The journal's open machines of this stack, but for the one that it puts out."""
    out, known = dict(outputs.get("lease") or {}), ledger()
    names = {entry.lease.name for stack, entry in in_stacks(known) if stack == ref} - {out.get("name")}
    return [machine for machine in journalled(known) if machine.lease.name in names]


def of_other_backends(ref: StackRef) -> list[tuple[Lease, str]]:
    """Pods of stacks of this name that may bill, whose state is not in the backend of now, and where it is."""
    return [(entry.lease, url) for stack, entry, url in in_other_backends(ledger()) if stack == ref]


def ledger() -> Ledger:
    """With the journal in it."""
    return Ledger(Path(recipe_home()))


def journal() -> Journal:
    """What may be billing, on this machine's disk."""
    return Journal(ledger().path)


def open_entry(lease: Lease) -> Entry | None:
    """The pod's open lease, if this computer has asked for it."""
    entry = journal().of_run(lease.run_id)
    return entry if entry is not None and entry.open and entry.lease.name == lease.name else None


def proof_of(lease: Lease) -> str:
    """The journal's, that this very pod is gone; "" if it has none. Another of its name has a proof of its own."""
    latest = journal().of_run(lease.run_id)
    if latest is None or latest.state != "gone" or latest.lease.name != lease.name:
        return ""
    return (latest.proof or "") if lease.id in (None, latest.lease.id) else ""

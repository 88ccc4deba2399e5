"""The stacks there are, a row each: Pulumi's, or where there is no engine those that this machine has seen."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from provisioners.at_once import all_of
from provisioners.contract import Site
from provisioners.journal import Journal
from recipes.errors import RecipeError
from runners.ledger import Ledger
from runners.machines import in_stacks
from runners.stacking.billing import Billing
from runners.stacking.program import program_of
from runners.stacking.rows import StackRow
from stacks import kept
from stacks.asking import asked_of
from stacks.automation import stacks
from stacks.events import kind_of
from stacks.reference import StackRef
from stacks.values import INNER_KINDS, NoEngine, StackSummary

NOTHING_THERE = "what it put out is gone, and nothing was made in its place"
"""As its state says; nobody has a better proof."""

_AT_ONCE = 8
_PODS = "gpu_pod"


async def rows_of(site: Site) -> tuple[list[StackRow], Literal["pulumi", "kept"]]:
    """The rows, and whom they are from. Every stack is asked for what it bills.

    Raises NoEngine where there is no engine, and nothing was seen here before; and what the engine says.
    """
    try:
        found = await stacks(site)
    except NoEngine:
        if seen := seen_here(site):
            return seen, "kept"
        raise
    turns = asyncio.Semaphore(_AT_ONCE)
    rows = await all_of(_row(site, summary, turns) for summary in found)
    return [*rows, *_lost(site, {row.ref for row in rows})], "pulumi"


async def _row(site: Site, summary: StackSummary, turns: asyncio.Semaphore) -> StackRow:
    ref = StackRef.of(summary.project, summary.name)
    bill, more, unfinished = None, "", False
    if summary.resources != 0:
        async with turns:
            try:
                bill, more, unfinished = await _told(site, ref, summary)
            except RecipeError as error:
                more = f"nobody knows what bills: {error.message}"
    return StackRow(
        ref=ref,
        resources=summary.resources,
        busy=summary.busy,
        bill=bill,
        more=more,
        unfinished=unfinished,
        updated_at=summary.updated_at,
    )


async def _told(site: Site, ref: StackRef, summary: StackSummary) -> tuple[Billing | None, str, bool]:
    """What it bills, and what else may; whether an update has not come to its end, so that the state alone knows it."""
    found = await kept.outputs_of(site, ref)
    left = program_of(ref).left(ref, found.values)
    bill, begun = await standing(site, ref, found)
    unfinished = bool(begun) or not found.whole or (not found.values and bool(summary.resources))
    unknown = doubt([name for name in begun if not left or name not in left])
    return bill, "; ".join(filter(None, [left, unknown])), unfinished


async def standing(site: Site, ref: StackRef, found: kept.Outputs) -> tuple[Billing | None, list[str]]:
    """What of its outputs bills, as its state has it; and names of pods that may be there without being put out.

    What an update that failed deleted is put out all the same. No bill where only such pods may be there; as it was put
    out where the state cannot be had.
    """
    bill = _bill(ref, found.values)
    if bill is None or ref.program != _PODS or found.source == "kept" or _is_open(site, bill):
        return bill, []
    with suppress(RecipeError):
        deployment = (await asked_of(site, ref, "stack", "export")).get("deployment") or {}
        is_there, begun = _in_state(deployment, str(found.values.get("name") or ""), Journal(Ledger(site.home).path))
        if begun and not is_there:
            return None, begun
        if not is_there:
            return replace(bill, gone=bill.gone or NOTHING_THERE), []
    return bill, []


def doubt(names: Sequence[str]) -> str:
    """What is told of pods that may be there; "" if there are none."""
    what = " and ".join(f"a pod called {name}" if name else "another pod" for name in names)
    return f"nobody knows from here whether {what} {'is' if len(names) == 1 else 'are'} there" if names else ""


def _is_open(site: Site, bill: Billing) -> bool:
    """Whether this machine's journal has it as something that may bill."""
    return any(entry.lease.id == bill.id for _, entry in in_stacks(Ledger(site.home)))


def _in_state(deployment: Mapping[str, Any], put_out: str, journal: Journal) -> tuple[bool, list[str]]:
    """Whether the pod that bears the name `put_out` is in the state; and the names of others that may have been made.

    An empty one is of a pod whose name it does not say. One that is being made counts whatever the journal says.
    """
    asked = [one for one in deployment.get("resources") or () if not str(one.get("type")).startswith("pulumi:")]
    making = [one for one in deployment.get("pending_operations") or () if one.get("type") == "creating"]
    made = [one for one in asked if kind_of(str(one.get("type"))) not in INNER_KINDS]
    is_there = any(_name_of(one) in ("", put_out) for one in made if not one.get("pendingReplacement"))  # else deleted
    names = {name for one in asked if journal.state(name := _name_of(one)) != "gone"}
    names |= {_name_of(one.get("resource") or {}) for one in making}
    return is_there, sorted(names - {"", put_out}) or [""] * bool(making)


def _name_of(resource: Mapping[str, Any]) -> str:
    """The pod's that it is or names; "" if it says none."""
    told = {**(resource.get("inputs") or {}), **(resource.get("outputs") or {})}
    return str(told.get("unique_name") or "")


def _lost(site: Site, known: Collection[StackRef]) -> list[StackRow]:
    """Stacks whose pods were rented from here and may bill, and of which the backend knows nothing."""
    refs = sorted({ref for ref, _ in in_stacks(Ledger(site.home))} - {*known}, key=str)
    ended = "no state knows it, recipe stack destroy {} ends it"
    return [StackRow(ref=ref, more=f"{program_of(ref).left(ref, {})}; {ended.format(ref)}") for ref in refs]


def seen_here(site: Site) -> list[StackRow]:
    """The stacks as this machine last saw them. Asks nobody."""
    return [
        StackRow(ref=ref, bill=_bill(ref, one.values), is_kept=True, updated_at=one.at)
        for ref, one in kept.all_kept(site)
    ]


def _bill(ref: StackRef, values: Mapping[str, Any]) -> Billing | None:
    return program_of(ref).billing(values) if values else None

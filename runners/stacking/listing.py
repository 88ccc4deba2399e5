"""The stacks there are, a row each: Pulumi's, or where there is no engine those that this machine has seen."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from provisioners.at_once import all_of
from provisioners.contract import Site
from recipes.errors import RecipeError
from runners.ledger import Ledger
from runners.machines import in_stacks
from runners.stacking.billing import Billing
from runners.stacking.program import program_of
from runners.stacking.rows import StackRow
from stacks import kept
from stacks.asking import asked_of
from stacks.automation import stacks
from stacks.reference import StackRef
from stacks.values import INNER_KINDS, NoEngine, StackSummary

_AT_ONCE = 8


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
    bill, left = _bill(ref, found.values), program_of(ref).left(ref, found.values)
    unfinished = not found.whole or (not found.values and bool(summary.resources))
    if found.whole and bill is not None and not await _is_there(site, ref, bill):
        bill = replace(bill, gone=bill.gone or "what it put out is gone, and nothing was made in its place")
    return bill, left, unfinished


async def _is_there(site: Site, ref: StackRef, bill: Billing) -> bool:
    """Whether the state has anything that could bill. What an update that failed deleted is put out all the same."""
    if bill.gone or any(entry.lease.id == bill.id for _, entry in in_stacks(Ledger(site.home))):
        return not bill.gone
    deployment = (await asked_of(site, ref, "stack", "export")).get("deployment") or {}
    kinds = {str(one.get("type")) for one in deployment.get("resources") or ()}
    return any(not kind.startswith("pulumi:") and kind.rpartition(":")[2] not in INNER_KINDS for kind in kinds)


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

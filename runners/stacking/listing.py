"""The stacks there are, a row each: Pulumi's, or where there is no engine those that this machine has seen."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Literal

from provisioners.contract import Site
from recipes.errors import RecipeError
from runners.ledger import Ledger
from runners.machines import in_stacks
from runners.stacking.billing import Billing
from runners.stacking.program import program_of
from stacks import kept
from stacks.automation import stacks
from stacks.model_cache.state import cache
from stacks.reference import PROGRAMS, StackRef
from stacks.values import NoEngine, StackSummary

_AT_ONCE = 8


async def rows_of(site: Site, *, bills: bool = True) -> tuple[list[dict[str, Any]], Literal["pulumi", "kept"]]:
    """The rows, and whom they are from; with what each bills, if that is wanted, which asks for every stack's outputs.

    Raises NoEngine where there is no engine, and nothing was seen here before; and what the engine says.
    """
    try:
        found = await stacks(site)
    except NoEngine:
        if seen := _seen(site):
            return seen, "kept"
        raise
    turns = asyncio.Semaphore(_AT_ONCE)

    async def row(summary: StackSummary) -> dict[str, Any]:
        ref = StackRef.of(summary.project, summary.name)
        bill, told, left, unfinished = None, "", "", False
        if bills and summary.resources != 0:
            async with turns:
                try:
                    bill, left, unfinished = await _told(site, ref, summary)
                except RecipeError as error:
                    told = f"nobody knows what bills: {error.message}"
        return {
            "stack": str(ref),
            "resources": summary.resources,
            "busy": summary.busy,
            "bills": _data(bill),
            "says": "; ".join(filter(None, [told or _says(bill), left])),
            "unfinished": unfinished,
            "updated_at": summary.updated_at.isoformat(timespec="seconds") if summary.updated_at else None,
        }

    rows = list(await asyncio.gather(*map(row, found)))
    return [*rows, *(_lost(site, {row["stack"] for row in rows}) if bills else [])], "pulumi"


def _lost(site: Site, known: Collection[str]) -> list[dict[str, Any]]:
    """Stacks whose pods were rented from here and may bill, and of which the backend knows nothing."""
    refs = dict.fromkeys(ref for ref, _ in in_stacks(Ledger(site.home)) if str(ref) not in known)
    return [
        {
            "stack": str(ref),
            "resources": None,
            "busy": None,
            "bills": None,
            "says": f"{program_of(ref).left(ref, {})}; no state knows it, recipe stack destroy {ref} ends it",
            "unfinished": False,
            "updated_at": None,
        }
        for ref in refs
    ]


def _seen(site: Site) -> list[dict[str, Any]]:
    rows = []
    for path in sorted((site.home / "stacks").glob("*.*.json")):
        program, _, name = path.stem.partition(".")
        ref = StackRef(program, name)
        before = kept.kept(site, ref) if program in PROGRAMS else None
        if before is not None:
            at = before.at.isoformat(timespec="seconds")
            bill = _bills(ref, before.values)
            row = {"stack": str(ref), "resources": None, "busy": None, "bills": _data(bill), "says": _says(bill)}
            way_out = bill.way_out if bill is not None and not bill.over else ""
            rows.append({**row, "unfinished": False, "way_out": way_out, "updated_at": at})
    return rows


async def _told(site: Site, ref: StackRef, summary: StackSummary) -> tuple[Billing | None, str, bool]:
    """What it bills, and what else may; whether an update has not come to its end, so that the state alone knows it."""
    values = (await kept.outputs_of(site, ref)).values
    left = program_of(ref).left(ref, values)
    if values:
        return _bills(ref, values), left, False
    if ref.program != "model_cache":
        return None, left, bool(summary.resources)
    known = await cache(site, ref)
    return _bills(ref, known.volume), left, bool(known.names)


def _bills(ref: StackRef, values: Mapping[str, Any]) -> Billing | None:
    return program_of(ref).billing(values) if values else None


def _data(bill: Billing | None) -> dict[str, Any] | None:
    return bill.data() if bill is not None else None


def _says(bill: Billing | None) -> str:
    return bill.what if bill is not None else ""

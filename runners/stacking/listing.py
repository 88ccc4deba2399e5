"""The stacks there are, a row each: Pulumi's, or where there is no engine those that this machine has seen."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

from provisioners.contract import Site
from recipes.errors import RecipeError
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
        told, unfinished = "", False
        if bills and summary.resources != 0:
            async with turns:
                try:
                    told, unfinished = await _told(site, ref, summary)
                except RecipeError as error:
                    told = f"nobody knows what bills: {error.message}"
        return {
            "stack": str(ref),
            "resources": summary.resources,
            "busy": summary.busy,
            "bills": told,
            "unfinished": unfinished,
            "updated_at": summary.updated_at.isoformat(timespec="seconds") if summary.updated_at else None,
        }

    return list(await asyncio.gather(*map(row, found))), "pulumi"


def _seen(site: Site) -> list[dict[str, Any]]:
    rows = []
    for path in sorted((site.home / "stacks").glob("*.*.json")):
        program, _, name = path.stem.partition(".")
        ref = StackRef(program, name)
        before = kept.kept(site, ref) if program in PROGRAMS else None
        if before is not None:
            at = before.at.isoformat(timespec="seconds")
            bills = _bills(ref, before.values)
            row = {"stack": str(ref), "resources": None, "busy": None, "bills": bills, "unfinished": False}
            rows.append({**row, "updated_at": at})
    return rows


async def _told(site: Site, ref: StackRef, summary: StackSummary) -> tuple[str, bool]:
    """What it bills; and whether an update has not come to its end, of which only the state knows what it has made."""
    if values := (await kept.outputs_of(site, ref)).values:
        return _bills(ref, values), False
    if ref.program != "model_cache":
        return "", bool(summary.resources)
    known = await cache(site, ref)
    return _bills(ref, known.volume), bool(known.names)


def _bills(ref: StackRef, values: Mapping[str, Any]) -> str:
    return program_of(ref).may_bill(values) if values else ""

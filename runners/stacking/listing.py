"""The stacks there are, a row each: Pulumi's, or where there is no engine those that this machine has seen."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from provisioners.contract import Site
from recipes.errors import RecipeError
from runners.stacking.program import program_of
from stacks import kept
from stacks.automation import stacks
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
        ref, values = StackRef.of(summary.project, summary.name), dict[str, Any]()
        if bills and summary.resources:
            async with turns:
                with suppress(RecipeError):
                    values = dict((await kept.outputs_of(site, ref)).values)
        return {
            "stack": str(ref),
            "resources": summary.resources,
            "busy": summary.busy,
            "bills": _bills(ref, values),
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
            rows.append({"stack": str(ref), "resources": None, "busy": None, "bills": bills, "updated_at": at})
    return rows


def _bills(ref: StackRef, values: Mapping[str, Any]) -> str:
    return program_of(ref).may_bill(values) if values else ""

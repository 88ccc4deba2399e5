"""Which stacks there are, and Pulumi's engine: what `recipe stack` does with no stack in particular."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Literal

from provisioners.site import site_of
from provisioners.threads import in_thread
from recipes.errors import ExitCode, NoCredentials, RecipeError
from runners.cli import loose_volumes
from runners.cli.common import print_json
from runners.cli.stack_screen import Screen
from runners.stacking.listing import rows_of, seen_here
from runners.stacking.rows import StackRow
from runners.terminal.problems import error_document, error_lines
from runners.terminal.stack_view import stacks_lines, volumes_lines
from stacks import engine
from stacks.values import NoEngine

_BEGIN = (
    "no stacks yet",
    "recipe stack up model_cache RECIPE   makes a volume for its model, downloaded once",
    "recipe stack up gpu_pod RECIPE       makes a pod that stays",
)


async def list_all(as_json: bool) -> int:
    """The stacks there are, and volumes of caches that none of them uses: told also where no stack can be asked.

    Raises why there is no list of stacks.
    """
    (rows, source, failed), (volumes, unasked) = await asyncio.gather(
        _stacks(), loose_volumes.volumes_there(site_of(os.environ))
    )
    why = loose_volumes.why_not(unasked)
    if as_json:
        told = {"stacks": [row.document() for row in rows] if source else None, "source": source}
        listed = {"volumes": loose_volumes.rows_of(volumes), "volumes_unknown": why or None}
        print_json({**told, **listed, **(error_document(failed) if failed is not None else {})})
        for line in error_lines(failed) if failed is not None else ():
            print(line, file=sys.stderr)
        return failed.exit_code if failed is not None else ExitCode.DONE
    screen = Screen()
    if rows or failed is None:
        screen.print(stacks_lines(rows, screen.width) if rows else _BEGIN)
    screen.print(volumes_lines(loose_volumes.unused(volumes), screen.width))
    if why and (failed is None or not isinstance(unasked, NoCredentials)):
        screen.remark(why)
    if source == "kept":
        why_kept = "" if failed is not None else "; Pulumi's engine is not on it (recipe stack install)"
        screen.remark(f"as last seen on this machine{why_kept}")
    if failed is not None:
        raise failed
    return ExitCode.DONE


async def _stacks() -> tuple[list[StackRow], Literal["pulumi", "kept"] | None, RecipeError | None]:
    """What there is, and from whom that is known; where nobody can be asked as last seen here, and why."""
    try:
        return *(await rows_of(site_of(os.environ))), None
    except RecipeError as error:
        seen = seen_here(site_of(os.environ))
        return seen, "kept" if seen else None, error


async def install(as_json: bool) -> int:
    """Get the engine."""
    site, screen, fresh = site_of(os.environ), Screen(as_json=as_json), False
    try:
        found = await in_thread(engine.need, site)
    except NoEngine:
        with screen.happening(f"gets Pulumi's engine {engine.pinned()}"):
            found, fresh = await engine.install(site), True
    if as_json:
        print_json({"path": str(found.path), "version": found.version, "installed": fresh})
    else:
        there = "" if fresh else " (was there already)"
        screen.print([f"Pulumi's engine {found.version}: {found.path}{there}"])
    return ExitCode.DONE

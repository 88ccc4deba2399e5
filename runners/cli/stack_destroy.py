"""`recipe stack destroy`: everything in a stack is deleted, with proof, and the stack is forgotten."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from recipes.errors import ExitCode, MayStillBillError, RecipeError
from runners.cli.common import print_json
from runners.cli.stack_screen import Screen
from runners.cli.stacking import Wish, before_of, existing, site, steps_of, undone
from runners.stacking.program import StackProgram, program_of
from stacks import kept
from stacks.automation import Managed
from stacks.reference import StackRef
from stacks.values import Changes, Heard, NoEngine, NoSuchStack, StackFailed

PATIENCE_S = 600.0
"""How long everything of a stack may take to be gone, with proof."""
INSTALL = "recipe stack install"


async def destroy(wish: Wish) -> int:
    """Delete everything in it, with proof, and forget it. Raises MayStillBillError if something is not proven gone."""
    program, screen = program_of(wish.ref), Screen(as_json=wish.as_json)
    async with screen.heeding_signals(f"recipe stack destroy {wish.ref}"):
        with screen.happening(f"looks at {wish.ref}") as heard:
            managed, before, changes = await _to_destroy(wish.ref, program, heard)
        left = program.left(wish.ref, before)
        bills = [program.may_bill(before) if changes.any else "", left]
        if managed is None:
            screen.print([f"no state knows stack {wish.ref} any more; {left} is left of it"])
        else:
            screen.changes(changes, "ends", list(filter(None, bills)))
        if (changes.any or left) and not await screen.agreed("delete this", yes=wish.yes):
            return undone(wish, {"stack": str(wish.ref), "changes": steps_of(changes)})
        with screen.happening(f"deletes {wish.ref}", changing=True) as heard:
            if managed is None:
                proofs = await program.after_destroy(wish.ref, before, os.environ)
            else:
                proofs = await destroyed(wish.ref, managed, program, before, heard)
                await managed.remove()
        kept.forget(site(), wish.ref)
    if wish.as_json:
        print_json({"stack": str(wish.ref), "changes": steps_of(changes), "done": True, "proofs": proofs})
    else:
        screen.outputs([("gone", proof) for proof in proofs or [f"stack {wish.ref}"]])
    return ExitCode.DONE


async def _to_destroy(
    ref: StackRef, program: StackProgram, heard: Heard
) -> tuple[Managed | None, Mapping[str, Any], Changes]:
    """The stack, what it puts out, and what would be deleted; None where no state knows it, and something is left."""
    try:
        before = await before_of(ref)
        managed = await existing(ref)
        return managed, before, await managed.preview_destroy(heard)
    except (StackFailed, NoEngine) as error:
        raise _unreadable(ref, program, error) from error
    except NoSuchStack:
        if not program.left(ref, {}):
            raise
        return None, {}, Changes()


async def destroyed(
    ref: StackRef, managed: Managed, program: StackProgram, outputs: Mapping[str, Any], heard: Heard
) -> list[str]:
    """The proofs. Raises MayStillBillError if there is none for something that bills."""
    try:
        await managed.destroy(heard, patience_s=PATIENCE_S)
        proofs = list(managed.report.proofs)
        return await program.after_destroy(ref, outputs, os.environ) or proofs
    except MayStillBillError as error:
        again = f"recipe stack destroy {ref}"
        if again in error.advice:
            raise
        raise MayStillBillError(error.message, advice=f"{again}, again; or {error.advice}") from error
    except RecipeError as error:
        bills = program.may_bill(outputs)
        if not bills:
            raise
        message = f"NOT PROVEN GONE: {bills}: {error.message}"
        raise MayStillBillError(message, advice=f"recipe stack destroy {ref}, again") from error


def _unreadable(ref: StackRef, program: StackProgram, error: RecipeError) -> RecipeError:
    """A stack that Pulumi cannot read, or no Pulumi: what it held when this machine last saw it may bill."""
    last = kept.kept(site(), ref)
    bills = program.billing(last.values) if last is not None else None
    what, way_out = (bills.what, bills.way_out) if bills is not None and not bills.over else (program.left(ref, {}), "")
    if not what:
        return error
    way_out = way_out or "recipe ps shows it, and recipe down RUN ends it without Pulumi"
    then = f"{INSTALL} gets the engine" if isinstance(error, NoEngine) else error.advice
    return MayStillBillError(
        f"NOT PROVEN GONE: {what}: {error.message}", advice="; ".join(filter(None, [way_out, then]))
    )

"""`recipe stack up`: preview, ask, do it, and wait until it can be used; `recipe stack preview` is its beginning."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recipes.errors import ExitCode, MayStillBillError, NoMachine, RecipeError
from runners.cli.common import print_json
from runners.cli.stack_destroy import destroyed
from runners.cli.stack_screen import Screen
from runners.cli.stacking import Wish, before_of, inputs_of, site, steps_of, undone
from runners.stacking.billing import Replaced
from runners.stacking.program import StackProgram, program_of, pulumi_program
from runners.together import to_its_end
from stacks import kept
from stacks.automation import Managed
from stacks.reference import StackRef
from stacks.values import INPUTS, Changes, Heard, Secret, StackBusy, Unusable


async def up(wish: Wish) -> int:
    """Make it so. Returns the exit code."""
    program, screen = program_of(wish.ref), Screen(as_json=wish.as_json)
    async with screen.heeding_signals(f"recipe stack up {wish.ref}"):
        seen = await _seen(wish, program, screen)
        try:
            agreed = not seen.changes.any or await screen.agreed("do this", yes=wish.yes)
        except BaseException:
            await _forget_if_fresh(seen.managed)
            raise
        if not agreed:
            await _forget_if_fresh(seen.managed)
            return undone(wish, seen.document(wish.ref))
        with screen.happening(f"makes {wish.ref}", changing=True) as heard:
            outputs = await _updated(wish, program, seen, heard)
        notes = await _usable(wish.ref, program, seen, outputs, screen)
    if wish.as_json:
        print_json({**seen.document(wish.ref), "done": True, "outputs": outputs, "notes": notes})
    else:
        screen.outputs(program.told(outputs), notes)
    return ExitCode.DONE


async def preview(wish: Wish) -> int:
    """What `up` would do."""
    screen = Screen(as_json=wish.as_json)
    async with screen.heeding_signals(f"recipe stack preview {wish.ref}"):
        seen = await _seen(wish, program_of(wish.ref), screen)
        await _forget_if_fresh(seen.managed)
    if wish.as_json:
        print_json(seen.document(wish.ref))
    return ExitCode.DONE


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What an update would do."""

    managed: Managed
    outputs: Mapping[str, Any]
    """Of before."""
    inputs: dict[str, Any]
    changes: Changes
    costs: list[str]
    warnings: list[str]
    replaced: Replaced | None

    def document(self, ref: StackRef) -> dict[str, Any]:
        """For --json."""
        said = {"costs": self.costs, "warnings": self.warnings}
        why = {"because": list(self.replaced.because), "ends": self.replaced.ends} if self.replaced else {}
        return {"stack": str(ref), "changes": steps_of(self.changes), **said, **why}


async def _seen(wish: Wish, program: StackProgram, screen: Screen) -> _Seen:
    """Previews, and shows it. Nothing is made, but an empty stack where there was none: see `_forget_if_fresh`."""
    with screen.happening(f"looks at what would change in {wish.ref}") as heard:
        before = await before_of(wish.ref)
        last = await kept.inputs_of(site(), wish.ref)
        inputs = await inputs_of(wish, program, last)
        run = pulumi_program(wish.ref, inputs)
        managed = await Managed.open(site(), wish.ref.project, wish.ref.name, run, create=True)
        try:
            changes = await managed.preview(heard, refresh=True)
            warnings = await program.warnings(wish.ref, before, os.environ)
        except BaseException:
            await _forget_if_fresh(managed)
            raise
    costs = program.costs(inputs, changes, before)
    replaced = program.replaced(changes, last, inputs, before)
    screen.changes(changes, "costs", costs, list(replaced.lines()) if replaced else [])
    for warning in warnings:
        screen.remark(f"warning: {warning}")
    return _Seen(
        managed=managed,
        outputs=before,
        inputs=inputs,
        changes=changes,
        costs=costs,
        warnings=warnings,
        replaced=replaced,
    )


async def _forget_if_fresh(managed: Managed) -> None:
    """A stack that was only made to be looked at does not stay."""
    if managed.fresh:
        await managed.remove()


async def _updated(wish: Wish, program: StackProgram, seen: _Seen, heard: Heard) -> dict[str, Any]:
    """The outputs without secrets, which are kept here as well.

    After a failure what was only a means is let go, and what stays is told: it bills.
    """
    ref, managed = wish.ref, seen.managed
    try:
        outputs = await managed.up(heard, refresh=True, makes=seen.changes.made)
    except StackBusy:
        raise  # nothing was begun, and what there is belongs to somebody else's update
    except BaseException:
        made = managed.report.created
        for name in await to_its_end(program.after_failure(ref, made, seen.outputs, os.environ, heard)):
            heard(f"{name} exists, and bills; recipe stack up {ref} goes on, recipe stack destroy {ref} ends it")
        raise
    kept.keep(site(), ref, outputs, seen.inputs)
    return {name: value for name, value in outputs.items() if name != INPUTS and not isinstance(value, Secret)}


async def _usable(
    ref: StackRef, program: StackProgram, seen: _Seen, outputs: Mapping[str, Any], screen: Screen
) -> list[str]:
    """What is to be told once it can be used. Whoever stops waiting is told what is there, and bills."""
    made = bool(seen.managed.report.created)
    with screen.happening(f"waits until {ref} can be used") as heard:
        try:
            return await program.after_up(ref, seen.inputs, outputs, os.environ, heard)
        except Unusable as error:
            if made:  # else it is an earlier update's, of which somebody may know more
                raise await to_its_end(_let_go(ref, program, seen, outputs, error, heard)) from error
            raise
        except asyncio.CancelledError:
            if bills := program.may_bill(outputs):
                heard(f"{bills} is there; recipe stack up {ref} goes on, recipe stack destroy {ref} ends it")
            raise


async def _let_go(
    ref: StackRef,
    program: StackProgram,
    seen: _Seen,
    outputs: Mapping[str, Any],
    error: Unusable,
    heard: Heard,
) -> RecipeError:
    """What this update made for nothing is deleted; the error that tells all of it."""
    heard(f"{error.message}; it is let go")
    try:
        proofs = await destroyed(ref, seen.managed, program, outputs, heard)
    except MayStillBillError as left:
        return MayStillBillError(f"{error.message}; {left.message}", advice=left.advice)
    kept.keep(site(), ref, {}, seen.inputs)
    message = "; ".join([error.message, *(f"it was let go: {proof}" for proof in proofs)])
    return NoMachine(message, advice=f"recipe stack up {ref} asks for another one")

"""`recipe stack up`: preview, ask, do it, and wait until it can be used; `recipe stack preview` is its beginning."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from recipes.errors import ExitCode, MayStillBillError, NoMachine, RecipeError
from runners.cli.common import print_json
from runners.cli.stack_destroy import Ended, destroyed, proven
from runners.cli.stack_screen import Screen
from runners.cli.stacking import Wish, inputs_of, site, steps_of, undone
from runners.stacking.billing import Replaced
from runners.stacking.program import StackProgram, program_of, pulumi_program
from runners.together import to_its_end
from stacks import kept
from stacks.automation import Managed
from stacks.values import INPUTS, Changes, Heard, NoSuchStack, Secret, StackBusy, Unusable

_FILLED = "still has resources"
"""Says Pulumi of a stack that somebody else has filled meanwhile."""


async def up(wish: Wish) -> int:
    """Make it so. Returns the exit code."""
    program, screen = program_of(wish.ref), Screen(as_json=wish.as_json)
    async with screen.heeding_signals(wish.again):
        seen = await _seen(wish, program, screen)
        try:
            agreed = not seen.changes.any or await screen.agreed("do this", yes=wish.yes)
        except BaseException:
            await _forget_if_fresh(seen.managed, screen)
            raise
        if not agreed:
            await _forget_if_fresh(seen.managed, screen)
            return undone(wish, seen.document(wish))
        with screen.happening(f"makes {wish.ref}", changing=True) as heard:
            outputs = await _updated(wish, program, seen, heard)
        notes = await _usable(wish, program, seen, outputs, screen)
    if wish.as_json:
        print_json({**seen.document(wish), "done": True, "outputs": outputs, "notes": notes})
    else:
        screen.outputs(program.told(outputs), notes)
    return ExitCode.DONE


async def preview(wish: Wish) -> int:
    """What `up` would do."""
    screen = Screen(as_json=wish.as_json)
    async with screen.heeding_signals(f"recipe stack preview {wish.ref}"):
        seen = await _seen(wish, program_of(wish.ref), screen)
        await _forget_if_fresh(seen.managed, screen)
    if wish.as_json:
        print_json(seen.document(wish))
    elif seen.changes.any:
        screen.labelled("go:", wish.again)
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

    def document(self, wish: Wish) -> dict[str, Any]:
        """For --json."""
        said = {"costs": self.costs, "warnings": self.warnings}
        why = {"because": list(self.replaced.because), "ends": self.replaced.ends} if self.replaced else {}
        return {"stack": str(wish.ref), "changes": steps_of(self.changes), **said, **why}


async def _seen(wish: Wish, program: StackProgram, screen: Screen) -> _Seen:
    """Previews, and shows it. Nothing is made, but an empty stack where there was none: see `_forget_if_fresh`."""
    with screen.happening(f"looks at what would change in {wish.ref}") as heard:
        before, last = await kept.known_of(site(), wish.ref)
        inputs = await inputs_of(wish, program, last)
        run = pulumi_program(wish.ref, inputs)
        managed = await Managed.open(site(), wish.ref.project, wish.ref.name, run, create=True)
        try:
            changes = await managed.preview(heard, refresh=True)
            warnings = await program.warnings(wish.ref, inputs, before, os.environ)
            costs = program.costs(inputs, changes, before)
            replaced = program.replaced(changes, last, inputs, before)
        except BaseException:
            await _forget_if_fresh(managed, screen)
            raise
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


async def _forget_if_fresh(managed: Managed, screen: Screen) -> None:
    """A stack that was only made to be looked at does not stay. What keeps it is told, and hides no other error."""
    if managed.fresh:
        try:
            await managed.remove()
        except RecipeError as error:
            if _FILLED not in error.message:
                screen.remark(f"the empty stack {managed} stays: {error.message}")


async def _updated(wish: Wish, program: StackProgram, seen: _Seen, heard: Heard) -> dict[str, Any]:
    """The outputs without secrets, which are kept here as well.

    After a failure what was only a means is let go, and what stays is told: it bills. Raises MayStillBillError where
    nobody knows of something whether it is there.
    """
    ref, managed = wish.ref, seen.managed
    try:
        outputs = await managed.up(heard, refresh=True, makes=seen.changes.made)
    except StackBusy:  # nothing was begun: what there is, is another's
        raise
    except BaseException as error:
        left = await to_its_end(_left_by(wish, program, seen, heard))
        if left and isinstance(error, RecipeError) and not isinstance(error, MayStillBillError):
            advice = "; ".join(filter(None, [_ways(wish), error.advice]))
            raise MayStillBillError(f"{error.message}; {left} may bill", advice=advice) from error
        if left:
            heard(f"{left} may bill; {_ways(wish)}")
        raise
    kept.keep(site(), ref, outputs, seen.inputs)
    return {name: value for name, value in outputs.items() if name != INPUTS and not isinstance(value, Secret)}


async def _left_by(wish: Wish, program: StackProgram, seen: _Seen, heard: Heard) -> str:
    """What an update that failed has left, as far as it is known here; what the stack holds of it is told.

    Raises MayStillBillError: no other error takes the place of the one that began it.
    """
    try:
        made = seen.managed.report.created
        stays = await program.after_failure(wish.ref, made, seen.outputs, os.environ, heard)
        if left := program.left(wish.ref, seen.outputs):
            return left
    except MayStillBillError:
        raise
    except Exception as error:
        heard(f"nobody could see what it has left: {error or type(error).__name__}; recipe stack list shows what bills")
        return ""
    for name in stays:
        heard(f"{name} exists, and bills; {_ways(wish)}")
    return ""


async def _usable(
    wish: Wish, program: StackProgram, seen: _Seen, outputs: Mapping[str, Any], screen: Screen
) -> list[str]:
    """What is to be told once it can be used. Whoever stops waiting is told what is there, and bills."""
    with screen.happening(f"waits until {wish.ref} can be used") as heard:
        try:
            return await program.after_up(wish.ref, seen.inputs, outputs, os.environ, heard)
        except Unusable as error:
            raise await to_its_end(_let_go(wish, program, seen, outputs, error, heard)) from error
        except BaseException:
            if bill := program.billing(outputs):
                heard(f"{bill.what} is there; {_ways(wish)}")
            raise


def _ways(wish: Wish) -> str:
    return f"{wish.again} goes on, recipe stack destroy {wish.ref} ends it"


async def _let_go(
    wish: Wish, program: StackProgram, seen: _Seen, outputs: Mapping[str, Any], error: Unusable, heard: Heard
) -> RecipeError:
    """What was made for nothing, by this update or by one that was stopped, is deleted; the error that tells it all."""
    heard(f"{error.message}; it is let go")
    other, bill = await _holds_by_now(wish, program, outputs), program.billing(outputs)
    bills = [bill.what] if bill is not None else []
    try:
        ended = await proven(wish.ref, bills, _given_up(wish, program, seen, outputs, heard, alone=bool(other)))
    except MayStillBillError as left:
        return MayStillBillError(f"{error.message}; {left.message}", advice=left.advice)
    message = "; ".join([error.message, *(f"it was let go: {proof}" for proof in ended.proofs)])
    if other:
        message = f"{message}; somebody else has changed stack {wish.ref} meanwhile, which holds {other}"
        return NoMachine(message, advice=f"recipe stack outputs {wish.ref} shows what it holds, and that stays")
    return NoMachine(message, advice=f"{wish.again} asks for another one")


async def _given_up(
    wish: Wish, program: StackProgram, seen: _Seen, outputs: Mapping[str, Any], heard: Heard, *, alone: bool
) -> Ended:
    """The stack is emptied; `alone`, or where somebody is changing it: what this update made, and nothing else."""
    if not alone:
        with suppress(StackBusy):
            ended = await destroyed(wish.ref, seen.managed, program, outputs, heard)
            kept.keep(site(), wish.ref, {}, seen.inputs)
            return ended
    return Ended(proofs=await program.after_destroy(wish.ref, outputs, os.environ, alone=True))


async def _holds_by_now(wish: Wish, program: StackProgram, outputs: Mapping[str, Any]) -> str:
    """What the stack holds if it is not what this update made; "" if it still is.

    Nobody locks it while what was made is waited for.
    """
    try:
        now = (await kept.outputs_of(site(), wish.ref)).values
    except NoSuchStack:
        return "nothing any more"
    except RecipeError as error:
        return f"nobody knows what: {error.message}"
    bill, ours = program.billing(now), program.billing(outputs)
    if bill is None:
        return "nothing any more"
    return "" if ours is not None and bill.id == ours.id else bill.what

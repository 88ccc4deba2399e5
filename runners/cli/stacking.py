"""What `recipe stack` does: preview, ask, do it, and say what came of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

from provisioners.contract import Site
from provisioners.site import site_of
from recipes.errors import ExitCode, MayStillBillError, NoMachine, RecipeError, UsageError
from recipes.load import LoadedRecipe
from runners.cli.common import print_json
from runners.cli.stack_screen import Screen
from runners.stacking.billing import Replaced
from runners.stacking.listing import rows_of
from runners.stacking.program import StackOptions, StackProgram, program_of, pulumi_program
from stacks import engine, kept
from stacks.automation import Managed
from stacks.reference import StackRef
from stacks.values import INPUTS, Changes, Heard, NoEngine, NoSuchStack, Secret, StackFailed, Unusable

T = TypeVar("T")
PATIENCE_S = 600.0
"""How long everything of a stack may take to be gone, with proof."""
INSTALL = "recipe stack install"
_SHOWN = 12
"""Of stacks that are there, where another one was named."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a command line asks for."""

    ref: StackRef
    recipes: tuple[LoadedRecipe, ...] = ()
    options: StackOptions = field(default_factory=StackOptions)
    yes: bool = False
    as_json: bool = False


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
            return _undone(wish, seen.document(wish.ref))
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


async def destroy(wish: Wish) -> int:
    """Delete everything in it, with proof, and forget it. Raises MayStillBillError if something is not proven gone."""
    site, program, screen = _site(), program_of(wish.ref), Screen(as_json=wish.as_json)
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
            return _undone(wish, {"stack": str(wish.ref), "changes": _steps(changes)})
        with screen.happening(f"deletes {wish.ref}", changing=True) as heard:
            if managed is None:
                proofs = await program.after_destroy(wish.ref, before, os.environ)
            else:
                proofs = await _destroyed(wish.ref, managed, program, before, heard)
                await managed.remove()
        kept.forget(site, wish.ref)
    if wish.as_json:
        print_json({"stack": str(wish.ref), "changes": _steps(changes), "done": True, "proofs": proofs})
    else:
        screen.outputs([("gone", proof) for proof in proofs or [f"stack {wish.ref}"]])
    return ExitCode.DONE


async def _to_destroy(
    ref: StackRef, program: StackProgram, heard: Heard
) -> tuple[Managed | None, Mapping[str, Any], Changes]:
    """The stack, what it puts out, and what would be deleted; None where no state knows it, and something is left."""
    try:
        before = await _before(ref)
        managed = await _existing(ref)
        return managed, before, await managed.preview_destroy(heard)
    except (StackFailed, NoEngine) as error:
        raise _unreadable(ref, program, error) from error
    except NoSuchStack:
        if not program.left(ref, {}):
            raise
        return None, {}, Changes()


async def outputs(wish: Wish) -> int:
    """What a stack has put out."""
    try:
        found = await kept.outputs_of(_site(), wish.ref)
    except NoSuchStack as error:
        raise await _meant(wish.ref, error) from None
    if wish.as_json:
        document = {"stack": str(wish.ref), "at": found.at.isoformat(timespec="seconds"), "source": found.source}
        print_json({**document, "outputs": dict(program_of(wish.ref).known(found.values))})
        return ExitCode.DONE
    screen = Screen()
    told = program_of(wish.ref).told(found.values) if found.values else []
    screen.outputs(told, [] if told else [f"stack {wish.ref} puts out nothing; recipe stack up {wish.ref} fills it"])
    if found.source == "kept":
        screen.remark(f"as last seen on this machine, {found.at:%Y-%m-%d %H:%M} UTC; Pulumi's engine is not on it")
        bills = program_of(wish.ref).billing(found.values)
        if bills is not None and not bills.over:
            screen.remark(bills.way_out)
    return ExitCode.DONE


async def inputs(wish: Wish, *, new: bool) -> int:
    """What a stack's program is run with."""
    before = None if new else await kept.inputs_of(_site(), wish.ref)
    print_json(await _inputs(wish, program_of(wish.ref), before))
    return ExitCode.DONE


async def unlock(wish: Wish) -> int:
    """Lift whoever's lock."""
    screen = Screen(as_json=wish.as_json)
    async with screen.heeding_signals(f"recipe stack unlock {wish.ref}"):
        managed = await _existing(wish.ref)
        screen.remark(f"two updates of {wish.ref} at once spoil its state")
        if not await screen.agreed("has the other one ended", yes=wish.yes):
            return _undone(wish, {"stack": str(wish.ref)})
        await managed.unlock()
    if wish.as_json:
        print_json({"stack": str(wish.ref), "done": True})
    else:
        screen.print([f"{wish.ref} is unlocked; recipe stack up {wish.ref} goes on where it was left"])
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
        return {"stack": str(ref), "changes": _steps(self.changes), **said, **why}


async def _seen(wish: Wish, program: StackProgram, screen: Screen) -> _Seen:
    """Previews, and shows it. Nothing is made, but an empty stack where there was none: see `_forget_if_fresh`."""
    with screen.happening(f"looks at what would change in {wish.ref}") as heard:
        before = await _before(wish.ref)
        last = await kept.inputs_of(_site(), wish.ref)
        inputs = await _inputs(wish, program, last)
        run = pulumi_program(wish.ref, inputs)
        managed = await Managed.open(_site(), wish.ref.project, wish.ref.name, run, create=True)
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
    except BaseException:
        made = managed.report.created
        for name in await _to_its_end(program.after_failure(ref, made, seen.outputs, os.environ, heard)):
            heard(f"{name} exists, and bills; recipe stack up {ref} goes on, recipe stack destroy {ref} ends it")
        raise
    kept.keep(_site(), ref, outputs, seen.inputs)
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
                raise await _to_its_end(_let_go(ref, program, seen, outputs, error, heard)) from error
            raise
        except asyncio.CancelledError:
            if bills := program.may_bill(outputs):
                heard(f"{bills} is there; recipe stack up {ref} goes on, recipe stack destroy {ref} ends it")
            raise


def _undone(wish: Wish, document: Mapping[str, Any]) -> int:
    """The user has said no."""
    if wish.as_json:
        print_json({**document, "done": False})
    return ExitCode.DONE


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
        proofs = await _destroyed(ref, seen.managed, program, outputs, heard)
    except MayStillBillError as left:
        return MayStillBillError(f"{error.message}; {left.message}", advice=left.advice)
    kept.keep(_site(), ref, {}, seen.inputs)
    message = "; ".join([error.message, *(f"it was let go: {proof}" for proof in proofs)])
    return NoMachine(message, advice=f"recipe stack up {ref} asks for another one")


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Letting go is never cut short."""
    working = asyncio.ensure_future(work)
    while not working.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({working})
    return working.result()


async def _destroyed(
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
    last = kept.kept(_site(), ref)
    bills = program.billing(last.values) if last is not None else None
    what, way_out = (bills.what, bills.way_out) if bills is not None and not bills.over else (program.left(ref, {}), "")
    if not what:
        return error
    way_out = way_out or "recipe ps shows it, and recipe down RUN ends it without Pulumi"
    then = f"{INSTALL} gets the engine" if isinstance(error, NoEngine) else error.advice
    return MayStillBillError(
        f"NOT PROVEN GONE: {what}: {error.message}", advice="; ".join(filter(None, [way_out, then]))
    )


async def _before(ref: StackRef) -> Mapping[str, Any]:
    """What the stack puts out; nothing if it is new. Raises NoEngine: nothing is changed without an engine."""
    engine.need(_site())
    try:
        return (await kept.outputs_of(_site(), ref)).values
    except NoSuchStack:
        return {}


async def _existing(ref: StackRef) -> Managed:
    """A stack that is there. Raises NoSuchStack with what may have been meant."""
    try:
        return await Managed.open(_site(), ref.project, ref.name, create=False)
    except NoSuchStack as error:
        raise await _meant(ref, error) from None


async def _meant(ref: StackRef, error: NoSuchStack) -> NoSuchStack:
    """The same, with a stack that is there and has almost this name."""
    rows, _ = await rows_of(_site(), bills=False)
    others = [StackRef.parse(row["stack"]) for row in rows]
    names = {other.name: str(other) for other in others if other.program == ref.program}
    near = get_close_matches(ref.name, names, n=1)
    hint = f"did you mean {names[near[0]]}?" if near else ""
    if others and not near:
        hint = f"there {'is' if len(others) == 1 else 'are'} {', '.join(map(str, others[:_SHOWN]))}; {error.advice}"
    left = await _left_of(ref)
    return NoSuchStack("; ".join([f"stack {ref} does not exist", *left]), advice=hint or error.advice)


async def _left_of(ref: StackRef) -> list[str]:
    """What bears its name all the same, and bills; nothing where nobody can be asked."""
    with suppress(RecipeError):
        return await program_of(ref).warnings(ref, {}, os.environ)
    return []


async def _inputs(wish: Wish, program: StackProgram, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the Pulumi program is run with. Raises UsageError where neither a recipe nor an update before says it."""
    if not wish.recipes and before is None:
        message = f"stack {wish.ref} was never made, so there is nothing to go on with"
        raise UsageError(message, advice=f"name a recipe: recipe stack up {wish.ref} RECIPE")
    return await program.inputs(wish.recipes, wish.ref, wish.options, os.environ, before)


def _steps(changes: Changes) -> list[dict[str, Any]]:
    """Those that are any."""
    found = [asdict(step) for step in changes.steps if step.op not in ("same", "read")]
    return [{**step, "changed": list(step["changed"])} for step in found]


def _site() -> Site:
    return site_of(os.environ)

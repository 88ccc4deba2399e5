"""What `recipe stack` shows of a stack, and unlocks; and what its other commands share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any

from provisioners.contract import Site
from provisioners.site import site_of
from provisioners.threads import in_thread
from recipes.errors import ExitCode, RecipeError, UsageError
from recipes.load import LoadedRecipe
from runners.cli.common import print_json
from runners.cli.stack_screen import Screen
from runners.stacking.listing import NOTHING_THERE, doubt, standing
from runners.stacking.program import StackOptions, StackProgram, program_of
from stacks import engine, kept
from stacks.automation import Managed, stacks
from stacks.reference import StackRef
from stacks.values import Changes, NoSuchStack

_SHOWN = 12
"""Of stacks that are there, where another one was named."""
_LEFT_S = 10.0
"""How long volumes of a stack that is not there may be asked for."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a command line asks for."""

    ref: StackRef
    recipes: tuple[LoadedRecipe, ...] = ()
    options: StackOptions = field(default_factory=StackOptions)
    yes: bool = False
    as_json: bool = False
    command: str = ""
    """The whole command line that makes the stack what is asked for."""

    @property
    def again(self) -> str:
        """What goes on where an update has stopped."""
        return self.command or f"recipe stack up {self.ref}"


async def outputs(wish: Wish) -> int:
    """What a stack has put out."""
    try:
        found = await kept.outputs_of(site(), wish.ref)
    except NoSuchStack as error:
        raise await meant(wish.ref, error) from None
    bill, begun = await standing(site(), wish.ref, found)
    if wish.as_json:
        document = {"stack": str(wish.ref), "at": found.at.isoformat(timespec="seconds"), "source": found.source}
        bills = bill.data() if bill is not None and not bill.gone else None
        known = dict(program_of(wish.ref).known(found.values))
        print_json({**document, "outputs": known, "bills": bills, "unfinished": bool(begun) or not found.whole})
        return ExitCode.DONE
    screen = Screen()
    told = program_of(wish.ref).told(found.values) if found.values else []
    screen.outputs(told, [] if told else [f"stack {wish.ref} puts out nothing; recipe stack up {wish.ref} fills it"])
    if told and not found.whole:
        screen.remark(f"its last update has not come to its end; recipe stack up {wish.ref} goes on with it")
    if found.source == "kept":
        screen.remark(f"as last seen on this machine, {found.at:%Y-%m-%d %H:%M} UTC; Pulumi's engine is not on it")
    if begun:
        ways = f"recipe stack up {wish.ref} goes on, recipe stack destroy {wish.ref} ends it"
        screen.remark(f"what it put out is gone, and {doubt(begun)}; {ways}")
    elif bill is not None and bill.gone:
        what = bill.gone if bill.gone == NOTHING_THERE else f"it is gone: {bill.gone}"
        screen.remark(f"{what}; recipe stack up {wish.ref} makes another one")
    elif bill is not None and not bill.over and found.source == "kept":
        screen.remark(bill.way_out)
    return ExitCode.DONE


async def inputs(wish: Wish, *, new: bool) -> int:
    """What a stack's program is run with."""
    before = None if new else await kept.inputs_of(site(), wish.ref)
    print_json(await inputs_of(wish, program_of(wish.ref), before))
    return ExitCode.DONE


async def unlock(wish: Wish) -> int:
    """Lift whoever's lock."""
    screen = Screen(as_json=wish.as_json)
    async with screen.heeding_signals(f"recipe stack unlock {wish.ref}"):
        managed = await existing(wish.ref)
        screen.remark(f"two updates of {wish.ref} at once spoil its state")
        if not await screen.agreed("has the other one ended", yes=wish.yes):
            return undone(wish, {"stack": str(wish.ref)})
        await managed.unlock()
    if wish.as_json:
        print_json({"stack": str(wish.ref), "done": True})
    else:
        screen.print([f"{wish.ref} is unlocked; recipe stack up {wish.ref} goes on where it was left"])
    return ExitCode.DONE


def undone(wish: Wish, document: Mapping[str, Any]) -> int:
    """The user has said no."""
    if wish.as_json:
        print_json({**document, "done": False})
    return ExitCode.DONE


async def before_of(ref: StackRef) -> Mapping[str, Any]:
    """What the stack puts out; nothing if it is new. Raises NoEngine: nothing is changed without an engine."""
    await in_thread(engine.need, site())
    try:
        return (await kept.outputs_of(site(), ref)).values
    except NoSuchStack:
        return {}


async def existing(ref: StackRef) -> Managed:
    """A stack that is there. Raises NoSuchStack with what may have been meant."""
    try:
        return await Managed.open(site(), ref.project, ref.name, create=False)
    except NoSuchStack as error:
        raise await meant(ref, error) from None


async def meant(ref: StackRef, error: NoSuchStack) -> NoSuchStack:
    """The same, with a stack that is there and has almost this name."""
    others = list[StackRef]()
    with suppress(RecipeError):
        others = [StackRef.of(one.project, one.name) for one in await stacks(site())]
    names = {other.name: str(other) for other in others if other.program == ref.program}
    near = get_close_matches(ref.name, names, n=1)
    hint = f"did you mean {names[near[0]]}?" if near else ""
    if others and not near:
        hint = f"there {'is' if len(others) == 1 else 'are'} {', '.join(map(str, others[:_SHOWN]))}; {error.advice}"
    left = await _left_of(ref)
    return NoSuchStack("; ".join([f"stack {ref} does not exist", *left]), advice=hint or error.advice)


async def _left_of(ref: StackRef) -> list[str]:
    """What bears its name all the same, and bills; nothing where nobody can be asked soon."""
    from runners.stacking.pod_words import told_of_others

    with suppress(RecipeError, TimeoutError):
        if ref.program == "gpu_pod":
            return told_of_others(ref)
        async with asyncio.timeout(_LEFT_S):
            return await program_of(ref).warnings(ref, {}, {}, os.environ)
    return []


async def inputs_of(wish: Wish, program: StackProgram, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the Pulumi program is run with. Raises UsageError where neither a recipe nor an update before says it."""
    if not wish.recipes and before is None:
        message = f"stack {wish.ref} was never made, so there is nothing to go on with"
        raise UsageError(message, advice=f"name a recipe: recipe stack up {wish.ref} RECIPE")
    return await program.inputs(wish.recipes, wish.ref, wish.options, os.environ, before)


def steps_of(changes: Changes) -> list[dict[str, Any]]:
    """Those that are any."""
    found = [asdict(step) for step in changes.steps if step.op not in ("same", "read")]
    return [{**step, "changed": list(step["changed"])} for step in found]


def site() -> Site:
    return site_of(os.environ)

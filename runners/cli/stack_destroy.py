"""`recipe stack destroy`: everything in a stack is deleted, with proof, and the stack is forgotten."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from recipes.errors import ExitCode, MayStillBillError, RecipeError, UsageError
from runners.cli.common import print_json
from runners.cli.loose_volumes import volumes_there
from runners.cli.stack_screen import Screen
from runners.cli.stacking import Wish, before_of, existing, site, steps_of, undone
from runners.stacking.program import StackProgram, program_of
from runners.together import to_its_end
from stacks import kept
from stacks.automation import Managed
from stacks.backend import backend_of
from stacks.reference import StackRef
from stacks.values import Changes, Heard, NoEngine, NoSuchStack, StackFailed

PATIENCE_S = 600.0
"""How long everything of a stack may take to be gone, with proof."""
INSTALL = "recipe stack install"
_TIDY_S = 60.0
"""How long a stack that holds nothing any more may take to be forgotten."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a stack held is gone."""

    proofs: Sequence[str]
    failed: RecipeError | None = None
    """What Pulumi said, where it was of no help: its state tells of what is gone."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A stack that is to be destroyed, as far as it can be read."""

    managed: Managed | None
    """None where no state knows it, and something is left of it."""
    outputs: Mapping[str, Any] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)
    bills: tuple[str, ...] = ()
    """What may bill of it."""
    unread: RecipeError | None = None
    """Why Pulumi can tell what it puts out, and delete nothing."""


async def destroy(wish: Wish) -> int:
    """Delete everything in it, with proof, and forget it. Raises MayStillBillError if something is not proven gone."""
    ref, program, screen = wish.ref, program_of(wish.ref), Screen(as_json=wish.as_json)
    async with screen.heeding_signals(f"recipe stack destroy {ref}"):
        with screen.happening(f"looks at {ref}") as heard:
            found = await _found(ref, program, heard)
        _show(ref, found, screen)
        asks = found.changes.any or found.bills or found.unread
        if asks and not await screen.agreed("delete this", yes=wish.yes):
            return undone(wish, {"stack": str(ref), "changes": steps_of(found.changes)})
        with screen.happening(f"deletes {ref}", changing=True) as heard:
            ended = await proven(ref, found.bills, _ended(ref, program, found, heard))
            if (unseen := _unseen(ref, found)) is None:
                kept.forget(site(), ref)
            notes = await to_its_end(_forgotten(ref, found, ended))
    if unseen is not None:
        screen.outputs([("gone", proof) for proof in ended.proofs])
        raise unseen
    if wish.as_json:
        document = {"stack": str(ref), "changes": steps_of(found.changes), "done": True}
        print_json({**document, "proofs": list(ended.proofs), "notes": notes})
    else:
        screen.outputs([("gone", proof) for proof in ended.proofs or [f"stack {ref}"]])
        for note in notes:
            screen.remark(note)
    return ExitCode.DONE


async def _found(ref: StackRef, program: StackProgram, heard: Heard) -> _Found:
    """What would be deleted. Raises NoSuchStack, and MayStillBillError where it cannot be read, and something bills."""
    managed, before = None, dict[str, Any]()
    try:
        before.update(await before_of(ref))
        managed = await existing(ref)
        changes = await managed.preview_destroy(heard)
    except NoSuchStack:
        if not (left := program.left(ref, {})):
            raise
        return _Found(managed=None, bills=(left,))
    except (StackFailed, UsageError) as error:
        if managed is None and isinstance(error, UsageError):
            raise _unreadable(ref, program, before, error) from error
        outputs = before or _last_seen(ref)
        bills = _bills(ref, program, outputs)
        if managed is None and not bills:
            raise
        return _Found(managed=managed, outputs=outputs, bills=bills, unread=error)
    except RecipeError as error:
        raise _unreadable(ref, program, before, error) from error
    bills = _bills(ref, program, before if changes.any else {})
    return _Found(managed=managed, outputs=before, changes=changes, bills=bills)


def _unseen(ref: StackRef, found: _Found) -> RecipeError | None:
    """Why nobody can say what else it holds: in a backend of several, others may have changed it since it was seen."""
    if found.managed is not None or found.unread is None or backend_of(site()).own:
        return None
    message = f"what stack {ref} held when it was last seen here is gone; what else it holds nobody can say now"
    return StackFailed(f"{message}: {found.unread.message}", advice=f"recipe stack destroy {ref}, again")


def _bills(ref: StackRef, program: StackProgram, outputs: Mapping[str, Any]) -> tuple[str, ...]:
    bill = program.billing(outputs) if outputs else None
    what = bill.what if bill is not None and not bill.gone else ""
    return tuple(filter(None, [what, program.left(ref, outputs)]))


def _show(ref: StackRef, found: _Found, screen: Screen) -> None:
    if found.unread is not None:
        screen.print([f"Pulumi cannot delete what stack {ref} holds: {found.unread.message}"])
        for what in found.bills:
            screen.labelled("ends", what)
        screen.print([f"it is ended without Pulumi{', and then the stack is forgotten' if found.managed else ''}"])
    elif found.managed is None:
        screen.print([f"no state knows stack {ref} any more; {' and '.join(found.bills)} is left of it"])
    else:
        screen.changes(found.changes, "ends", found.bills)


async def _ended(ref: StackRef, program: StackProgram, found: _Found, heard: Heard) -> Ended:
    if found.unread is not None:
        return await _without_pulumi(ref, program, found.outputs, found.unread)
    if found.managed is None:
        return Ended(proofs=await program.after_destroy(ref, found.outputs, os.environ))
    return await destroyed(ref, found.managed, program, found.outputs, heard)


async def destroyed(
    ref: StackRef, managed: Managed, program: StackProgram, outputs: Mapping[str, Any], heard: Heard
) -> Ended:
    """Everything in it is gone. Pulumi's failure is none where the provider proves that what bills is gone anyway.

    Raises MayStillBillError, and what Pulumi says.
    """
    try:
        await managed.destroy(heard, patience_s=PATIENCE_S)
    except NoSuchStack:  # somebody else was faster
        return Ended(proofs=await program.after_destroy(ref, outputs, os.environ))
    except (StackFailed, UsageError) as error:  # a preview that meets no secret needs no passphrase; this does
        return await _without_pulumi(ref, program, outputs, error)
    proofs = list(managed.report.proofs)
    its, asked = program.billing(outputs), await program.after_destroy(ref, outputs, os.environ)
    others = [proof for proof in proofs if proof not in asked and not (asked and its and its.id and its.id in proof)]
    return Ended(proofs=[*asked, *others])


async def _without_pulumi(
    ref: StackRef, program: StackProgram, outputs: Mapping[str, Any], error: RecipeError
) -> Ended:
    """Whom Pulumi was to ask is asked himself. Raises the error where nothing is proven by that."""
    try:
        proofs = await program.after_destroy(ref, outputs, os.environ)
    except MayStillBillError as left:
        again = f"{left.advice}; or end it at its provider: recipe stack destroy {ref} then forgets the stack"
        raise MayStillBillError(f"{left.message}; {error.message}", advice=f"{error.advice}; or {again}") from error
    if not proofs and not await _is_all_known(ref, outputs, error):
        raise error
    return Ended(proofs=proofs, failed=error)


async def _is_all_known(ref: StackRef, outputs: Mapping[str, Any], error: RecipeError) -> bool:
    """Whether nothing can be there of a stack that puts out nothing: all its pods are in the journal of this machine.

    Volumes are in none: their provider is asked. Raises NoMachine where he cannot be, and MayStillBillError.
    """
    if isinstance(error, StackFailed) or outputs or not backend_of(site()).own:
        return False
    if ref.program == "gpu_pod":
        return True
    volumes, why = await volumes_there(site())
    if why is not None:
        raise why
    its = [one for one in volumes or () if one.ref == ref]
    if left := " and ".join(str(one) for one in its if one.state in ("held", "unfinished")):
        again = f"or delete it at its provider: recipe stack destroy {ref} then forgets the stack"
        raise MayStillBillError(f"NOT PROVEN GONE: {left}: {error.message}", advice=f"{error.advice}; {again}")
    return all(one.state != "unknown" for one in its)


async def proven(ref: StackRef, bills: Sequence[str], ending: Coroutine[Any, Any, Ended]) -> Ended:
    """What comes of it. Whatever else happens to it, what bills is named: raises MayStillBillError then."""
    again, what = f"recipe stack destroy {ref}", " and ".join(bills)
    try:
        return await ending
    except MayStillBillError as error:
        if again in error.advice:
            raise
        raise MayStillBillError(error.message, advice=f"{again}, again; or {error.advice}") from error
    except RecipeError as error:
        if not what:
            raise
        advice = "; or ".join(filter(None, [f"{again}, again", error.advice]))
        raise MayStillBillError(f"NOT PROVEN GONE: {what}: {error.message}", advice=advice) from error
    except asyncio.CancelledError:
        if not what:
            raise
        message = f"NOT PROVEN GONE: {what}: interrupted before it was done"
        raise MayStillBillError(message, advice=f"{again} goes on") from None


async def _forgotten(ref: StackRef, found: _Found, ended: Ended) -> list[str]:
    """The stack itself goes. What keeps it is told, and is no failure: it holds nothing that bills."""
    notes, managed = list[str](), found.managed
    if ended.failed is not None and found.unread is None:
        notes.append(f"not through Pulumi: {ended.failed.message}")
    if managed is None and found.unread is not None:
        notes.append(f"the stack itself stays: {found.unread.message}")
    if managed is None:
        return notes
    try:
        async with asyncio.timeout(_TIDY_S):
            await managed.remove(force=ended.failed is not None)
    except NoSuchStack:
        pass  # somebody else was faster
    except (RecipeError, TimeoutError) as error:
        why = str(error) or f"Pulumi did not answer in {_TIDY_S:.0f} s"
        notes.append(f"the stack stays, and holds nothing that bills: {why}; recipe stack destroy {ref}, again")
    return notes


def _unreadable(ref: StackRef, program: StackProgram, outputs: Mapping[str, Any], error: RecipeError) -> RecipeError:
    """A stack that Pulumi cannot read, or no Pulumi: what it held when this machine last saw it may bill."""
    outputs = outputs or _last_seen(ref)
    if not (bills := _bills(ref, program, outputs)):
        return error
    bill = program.billing(outputs) if outputs else None
    ways = [bill.way_out] if bill is not None and not bill.gone else []
    if left := program.left(ref, outputs):
        ways.append(f"recipe ps shows {left}, and recipe down RUN ends it without Pulumi")
    ways.append(f"{INSTALL} gets the engine" if isinstance(error, NoEngine) else error.advice)
    return MayStillBillError(
        f"NOT PROVEN GONE: {' and '.join(bills)}: {error.message}", advice="; ".join(filter(None, ways))
    )


def _last_seen(ref: StackRef) -> Mapping[str, Any]:
    """What it put out when this machine last saw it; nothing where nobody knows where its state lies."""
    with suppress(RecipeError):
        if (last := kept.kept(site(), ref)) is not None:
            return last.values
    return {}

"""What `recipe stack` does: preview, ask, do it, and say what came of it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from provisioners.site import site_of
from recipes.errors import ExitCode, MayStillBillError, RecipeError, UsageError
from recipes.load import LoadedRecipe
from runners.cli.common import console, print_json
from runners.signals import WISH, handled
from runners.stacking.listing import rows_of
from runners.stacking.program import StackOptions, StackProgram, program_of, pulumi_program
from runners.terminal.layout import width_of
from runners.terminal.stack_view import Happening, changes_lines, outputs_lines, stacks_lines
from stacks import engine, kept
from stacks.automation import Managed
from stacks.reference import StackRef
from stacks.values import INPUTS, Changes, Heard, NoEngine, NoSuchStack, Secret

T = TypeVar("T")
PATIENCE_S = 600.0
"""How long everything of a stack may take to be gone, with proof."""


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
    site, program = site_of(os.environ), program_of(wish.ref)
    async with _heeding_signals(f"recipe stack up {wish.ref}"):
        with _happening(f"looks at what would change in {wish.ref}").shown() as heard:
            before = await _before(wish.ref)
            inputs = await _inputs(wish, program, before)
            managed = await _opened(wish.ref, inputs)
            changes = await _previewed(managed, heard)
        costs = program.costs(inputs, changes, before.values)
        _show(wish, changes, "costs", costs)
        if changes.any and not await _agreed(wish, managed, "do this"):
            return ExitCode.DONE
        with _happening(f"makes {wish.ref}").shown() as heard:
            outputs = await _updated(wish, program, managed, before.values, heard)
            kept.keep(site, wish.ref, outputs, inputs)
            plain = _plain(outputs)
            notes = await program.after_up(wish.ref, inputs, plain, os.environ, heard)
    if wish.as_json:
        told = {"stack": str(wish.ref), "changes": _steps(changes), "costs": costs, "outputs": plain, "notes": notes}
        print_json(told)
    else:
        _show_outputs(program, plain, notes)
    return ExitCode.DONE


async def preview(wish: Wish) -> int:
    """What `up` would do."""
    program = program_of(wish.ref)
    async with _heeding_signals(f"recipe stack up {wish.ref}"):
        with _happening(f"looks at what would change in {wish.ref}").shown() as heard:
            before = await _before(wish.ref)
            inputs = await _inputs(wish, program, before)
            managed = await _opened(wish.ref, inputs)
            changes = await _previewed(managed, heard)
            await _forget_if_fresh(managed)
        costs = program.costs(inputs, changes, before.values)
        _show(wish, changes, "costs", costs)
    if wish.as_json:
        print_json({"stack": str(wish.ref), "changes": _steps(changes), "costs": costs})
    return ExitCode.DONE


async def destroy(wish: Wish) -> int:
    """Delete everything in it, with proof, and forget it. Raises MayStillBillError if something is not proven gone."""
    site, program = site_of(os.environ), program_of(wish.ref)
    async with _heeding_signals(f"recipe stack destroy {wish.ref}"):
        with _happening(f"looks at {wish.ref}").shown() as heard:
            before = await _before(wish.ref)
            managed = await _opened(wish.ref, None)
            changes = await managed.preview_destroy(heard)
        bills = program.may_bill(before.values) if changes.any else ""
        _show(wish, changes, "ends", [bills] if bills else [])
        if changes.any and not await _agreed(wish, managed, "delete this"):
            return ExitCode.DONE
        proofs = await _destroyed(wish.ref, managed, program, before.values)
        await managed.remove()
        kept.forget(site, wish.ref)
    if wish.as_json:
        print_json({"stack": str(wish.ref), "changes": _steps(changes), "proofs": proofs})
    else:
        out = console()
        for line in outputs_lines([("gone", proof) for proof in proofs or [f"stack {wish.ref}"]], width_of(out)):
            out.print(line)
    return ExitCode.DONE


async def outputs(wish: Wish) -> int:
    """What a stack has put out."""
    found = await _existing(wish.ref)
    if wish.as_json:
        document = {"stack": str(wish.ref), "at": found.at.isoformat(timespec="seconds"), "source": found.source}
        print_json({**document, "outputs": dict(found.values)})
        return ExitCode.DONE
    out = console()
    for line in outputs_lines(program_of(wish.ref).told(found.values), width_of(out)):
        out.print(line)
    if found.source == "kept":
        _remark(f"as last seen on this machine, {found.at:%Y-%m-%d %H:%M} UTC; Pulumi's engine is not on it")
    return ExitCode.DONE


async def inputs(wish: Wish, *, new: bool) -> int:
    """What a stack's program is run with."""
    before = kept.Outputs.none() if new else await _before(wish.ref)
    print_json(await _inputs(wish, program_of(wish.ref), before))
    return ExitCode.DONE


async def unlock(wish: Wish) -> int:
    """Lift whoever's lock."""
    managed = await _opened(wish.ref, None)
    print(f"two updates of {wish.ref} at once spoil its state", file=sys.stderr)
    if not await _agreed(wish, managed, "has the other one ended"):
        return ExitCode.DONE
    await managed.unlock()
    if wish.as_json:
        print_json({"stack": str(wish.ref), "unlocked": True})
    else:
        print(f"{wish.ref} is unlocked; recipe stack up {wish.ref} goes on where it was left")
    return ExitCode.DONE


async def list_all(as_json: bool) -> int:
    """The stacks there are."""
    rows, source = await rows_of(site_of(os.environ))
    if as_json:
        print_json({"stacks": rows, "source": source})
        return ExitCode.DONE
    out = console()
    if not rows:
        out.print("no stacks yet")
        out.print("recipe stack up model_cache RECIPE   makes a volume for its model, downloaded once")
        out.print("recipe stack up gpu_pod RECIPE       makes a pod that stays")
        return ExitCode.DONE
    for line in stacks_lines(rows, width_of(out)):
        out.print(line)
    if source == "kept":
        _remark("as last seen on this machine; Pulumi's engine is not on it (recipe stack install)")
    return ExitCode.DONE


async def install(as_json: bool) -> int:
    """Get the engine."""
    site = site_of(os.environ)
    try:
        found, fresh = engine.need(site), False
    except NoEngine:
        with _happening(f"gets Pulumi's engine {engine.pinned()}").shown():
            found, fresh = await engine.install(site), True
    if as_json:
        print_json({"path": str(found.path), "version": found.version, "installed": fresh})
    else:
        print(f"Pulumi's engine {found.version}: {found.path}" + ("" if fresh else " (was there already)"))
    return ExitCode.DONE


async def _before(ref: StackRef) -> kept.Outputs:
    """What the stack last put out; nothing if it is new. Raises NoEngine: nothing is changed without an engine."""
    site = site_of(os.environ)
    engine.need(site)
    try:
        found = await kept.outputs_of(site, ref)
    except NoSuchStack:
        return kept.Outputs.none()
    last = kept.kept(site, ref)
    # A stack that was emptied puts out nothing any more; what it was made of is still known here.
    return replace(found, inputs=last.inputs) if found.inputs is None and last is not None else found


async def _existing(ref: StackRef) -> kept.Outputs:
    """Of a stack that is there. Raises NoSuchStack with what may have been meant."""
    try:
        return await kept.outputs_of(site_of(os.environ), ref)
    except NoSuchStack as error:
        raise await _meant(ref, error) from None


async def _meant(ref: StackRef, error: NoSuchStack) -> NoSuchStack:
    from recipes.explain import did_you_mean

    rows, _ = await rows_of(site_of(os.environ), bills=False)
    names = [row["stack"] for row in rows]
    hint = did_you_mean(str(ref), names) if names else ""
    return NoSuchStack(f"stack {ref} does not exist", advice=hint or error.advice)


async def _opened(ref: StackRef, inputs: Mapping[str, Any] | None) -> Managed:
    """The stack; with inputs made if it is new, and with its program."""
    site = site_of(os.environ)
    program = None if inputs is None else pulumi_program(ref, inputs)
    try:
        return await Managed.open(site, ref.project, ref.name, program, create=inputs is not None)
    except NoSuchStack as error:
        raise await _meant(ref, error) from None


async def _inputs(wish: Wish, program: StackProgram, before: kept.Outputs) -> dict[str, Any]:
    if not wish.recipes and before.inputs is None:
        advice = f"recipe stack up {wish.ref} RECIPE"
        raise UsageError(f"{wish.ref} was never made, so there is nothing to go on with: name a recipe", advice=advice)
    options = replace(wish.options, outputs=before.values)
    return await program.inputs(wish.recipes, wish.ref, options, os.environ, before.inputs)


async def _previewed(managed: Managed, heard: Heard) -> Changes:
    """What would change, as things are now. A stack that was only made to be looked at does not stay."""
    try:
        return await managed.preview(heard, refresh=True)
    except BaseException:
        await _forget_if_fresh(managed)
        raise


async def _forget_if_fresh(managed: Managed) -> None:
    if managed.fresh:
        await managed.remove()


async def _updated(
    wish: Wish, program: StackProgram, managed: Managed, before: Mapping[str, Any], heard: Heard
) -> Mapping[str, Any]:
    """The outputs. After a failure what was only a means is let go, and what stays is told, since it bills."""
    try:
        return await managed.up(heard, refresh=True)
    except BaseException:
        for name in await _to_its_end(program.after_failure(wish.ref, managed.report.created, before, os.environ)):
            ways = f"recipe stack up {wish.ref} goes on, recipe stack destroy {wish.ref} ends it"
            _remark(f"{name} exists, and bills: {ways}")
        raise


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Letting go is never cut short."""
    working = asyncio.ensure_future(work)
    while not working.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({working})
    return working.result()


async def _destroyed(ref: StackRef, managed: Managed, program: StackProgram, outputs: Mapping[str, Any]) -> list[str]:
    """The proofs."""
    try:
        with _happening(f"deletes {ref}").shown() as heard:
            await managed.destroy(heard, patience_s=PATIENCE_S)
        proofs = list(managed.report.proofs)
        return await program.after_destroy(ref, outputs, os.environ) or proofs
    except MayStillBillError:
        raise
    except RecipeError as error:
        bills = program.may_bill(outputs)
        if not bills:
            raise
        message = f"NOT PROVEN GONE: {bills}: {error.message}"
        raise MayStillBillError(message, advice=f"recipe stack destroy {ref}, again") from error


def _show(wish: Wish, changes: Changes, label: str, texts: Sequence[str]) -> None:
    """On the terminal; for --json it is part of the document."""
    out = console(stderr=True) if wish.as_json else console()
    for line in changes_lines(changes, label, texts, width_of(out)):
        out.print(line)


def _show_outputs(program: StackProgram, outputs: Mapping[str, Any], notes: Sequence[str]) -> None:
    out = console()
    for line in outputs_lines(program.told(outputs), width_of(out)):
        out.print(line)
    for note in notes:
        out.print(note)


def _steps(changes: Changes) -> list[dict[str, Any]]:
    """Those that are any."""
    found = [asdict(step) for step in changes.steps if step.op not in ("same", "read")]
    return [{**step, "changed": list(step["changed"])} for step in found]


def _plain(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Without secrets, and without what only `up` itself reads."""
    return {name: value for name, value in outputs.items() if name != INPUTS and not isinstance(value, Secret)}


async def _agreed(wish: Wish, managed: Managed, question: str) -> bool:
    """Whether the user, at a terminal, says yes. Raises UsageError where nobody can be asked."""
    if wish.yes:
        return True
    agreed = False
    try:
        if not sys.stdin.isatty():
            raise UsageError("nothing was changed: nobody can be asked here", advice="the same with --yes does it")
        print(f"{question}? [y/N] ", end="", file=sys.stderr, flush=True)
        agreed = (await _typed()).strip().lower() in ("y", "yes")
    finally:
        if not agreed:
            await _forget_if_fresh(managed)
    if not agreed:
        print("nothing was changed", file=sys.stderr)
    return agreed


async def _typed() -> str:
    """A line from the terminal; a signal while waiting is heard at once."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    number = sys.stdin.fileno()
    loop.add_reader(number, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(number)
    return os.read(number, 1024).decode(errors="replace")


def _happening(what: str) -> Happening:
    return Happening(console(stderr=True), what)


def _remark(text: str) -> None:
    console(stderr=True).print(text)


@asynccontextmanager
async def _heeding_signals(again: str) -> AsyncIterator[None]:
    """The first signal lets Pulumi finish its step and write its state; the second ends it at once."""
    task = asyncio.current_task()
    heard: list[str] = []

    def on_signal(name: str) -> None:
        if name == WISH.name or task is None:
            return
        heard.append(name)
        if len(heard) == 1:
            _remark("stops after the running step; once more: now")
        task.cancel()

    with handled(on_signal):
        try:
            yield
        except asyncio.CancelledError:
            advice = f"recipe stack list shows what there is; {again} goes on"
            raise Interrupted(f"interrupted by {heard[0] if heard else 'a signal'}", advice=advice) from None


class Interrupted(RecipeError):
    """By a signal."""

    exit_code = ExitCode.INTERRUPTED

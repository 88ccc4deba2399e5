"""Reaching the engine of a run that another process minds: the same way, and with the same key, as that one does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from provisioners.journal import Entry, Journal
from recipes.errors import NoMachine, UsageError
from recipes.load import LoadedRecipe, load_resolved
from recipes.spec import Recipe
from runners import registry
from runners.client import Endpoint
from runners.ledger import Ledger
from runners.run_folder import RunFolder

_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Reachable:
    """A run whose engine may be spoken to."""

    folder: RunFolder
    recipe: Recipe
    entry: Entry | None
    """Its machine; None if the engine runs elsewhere."""
    port: int | None
    """Where it listens there."""


def reachable(folder: RunFolder, ledger: Ledger) -> Reachable:
    """What is needed to reach the run's engine, from what the run has written down. Nothing is asked of anybody.

    Raises UsageError if the run has ended, and NoMachine if it has no engine yet.
    """
    recipe = recipe_of(folder).recipe
    if recipe.engine.url is not None:
        return Reachable(folder, recipe, None, None)
    row, entry = ledger.run(folder.run_id), Journal(ledger.path).of_run(folder.run_id)
    if entry is None or not entry.open:
        status = row["status"] if row else "unknown"
        if status == "running":
            raise NoMachine(f"{folder.run_id} has no machine yet", advice=f"recipe logs -f {folder.run_id}")
        advice = f"recipe up {recipe.name} --keep holds the machine after the work"
        raise UsageError(f"{folder.run_id} has ended ({status}), and its engine with it", advice=advice)
    engine = folder.read_json("engine.json")
    if engine is None:
        raise NoMachine(f"{folder.run_id} has not started its engine yet", advice=f"recipe logs -f {folder.run_id}")
    return Reachable(folder, recipe, entry, int(engine["port"]))


@asynccontextmanager
async def reached(run: Reachable, env: Mapping[str, str]) -> AsyncIterator[Endpoint]:
    """While entered, the way to the engine. Nobody has asked it anything yet. Raises NoMachine."""
    engine, served = run.recipe.engine, run.recipe.model.identifier
    if run.entry is None:
        assert engine.url is not None
        base = engine.url.rstrip("/")
        key = env.get(engine.api_key_env) if engine.api_key_env else None
        yield Endpoint(base.removesuffix("/v1"), served, key, base)
        return
    assert run.port is not None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            host = await registry.provisioner(run.entry.lease.provider).host(run.entry.lease)
    except TimeoutError:
        what = f"{run.folder.run_id}: its machine did not answer in {_PATIENCE_S:.0f} s"
        raise NoMachine(what, advice="see recipe ps") from None
    try:
        way = await host.forward(run.port)
        yield Endpoint(f"http://{way.address}", served, host.key)
    finally:
        await host.close()


def recipe_of(folder: RunFolder) -> LoadedRecipe:
    """The recipe as it was resolved when the run began. Raises UsageError."""
    resolved, plan = folder.read_json("resolved.json"), folder.read_json("plan.json")
    if resolved is None or plan is None:
        advice = f"recipe down {folder.run_id}"
        raise UsageError(f"{folder.run_id} was cut off before its plan was written", advice=advice)
    text = (folder.path / "recipe.yaml").read_text(encoding="utf-8")
    return load_resolved(resolved, text, plan)

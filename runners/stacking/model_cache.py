"""The cache for models: its size from what the recipes ask for, its place from where their GPUs are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from provisioners.at_once import all_of
from provisioners.contract import Lease
from provisioners.journal import Journal
from provisioners.naming import owner_name
from provisioners.site import site_of
from recipes.errors import MayStillBillError, UsageError
from recipes.load import LoadedRecipe
from runners import registry
from runners.stack_volumes import forget
from runners.stacking.billing import Replaced
from runners.stacking.cache_places import (
    command_of,
    filler_usd_per_h,
    keeper_for,
    keeper_named,
    kept_size,
    lying_in,
    size_gb_of,
)
from runners.stacking.cache_volumes import others_of, taken_on_by
from runners.stacking.cache_wanted import MOUNTED_AT, left_out, lying_on, models_of, not_mounting, wanted_of
from runners.stacking.cache_words import billing, costs, known, told
from runners.stacking.program import StackOptions
from stacks.holding import is_minded
from stacks.model_cache.lifecycle import VOLUME, let_all_go, tag_of
from stacks.reference import StackRef
from stacks.values import Changes, Heard

__all__ = [
    "after_destroy",
    "after_failure",
    "after_up",
    "billing",
    "costs",
    "inputs",
    "known",
    "left",
    "replaced",
    "told",
    "warnings",
]
_ENDS_S, _LOOK_S = 10.0, 0.05
"""How long a provider may take to see that its engine has ended."""


async def inputs(
    recipes: Sequence[LoadedRecipe],
    ref: StackRef,
    options: StackOptions,
    env: Mapping[str, str],
    before: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the Pulumi program is run with. What the cache was asked to hold before stays counted.

    Raises UsageError, Refused if a model cannot be had or no machine may download it, and NoMachine where nothing of
    the wanted kind is in stock.
    """
    if options.forced:
        raise UsageError("--force: no check stands in the way of a model cache", advice="leave it out")
    if not recipes and before is None:
        raise UsageError(f"nobody has said what {ref} is to hold", advice=f"recipe stack up {ref} RECIPE…")
    before = before or {}
    keeper, name = keeper_for(recipes, before)
    taken_on = await taken_on_by(ref, site_of(env), options.volume, options.region) if options.volume else None
    wanted = await all_of(wanted_of(loaded, ref) for loaded in recipes)
    there = await lying_on(ref, before, env, taken_on.id if taken_on else None)
    models = models_of(wanted, name, before, options, env, there)
    engines = {**before.get("engines", {}), **dict(one.engine for one in wanted)}
    wishes = [one.recipe.resources.model_copy(update={"volumes": ()}) for one in wanted]
    filled = [model for model in models if model["fill"]]
    missing = [model for model in filled if not there.has(model)]
    lies_in = taken_on.region if taken_on is not None else there.region
    where = await lying_in(keeper, wishes, options, before, lies_in, lambda of: command_of(recipes, of), ref)
    return {
        "stack": ref.name,
        "provisioner": name,
        "owner": owner_name(env),
        "volume_name": taken_on.name if taken_on else str(before.get("volume_name") or ""),
        "size_gb": max(size_gb_of(models, engines, options, before, keeper), taken_on.size_gb if taken_on else 0),
        "asked_size_gb": max(options.size_gb or 0, int(before.get("asked_size_gb") or 0)),
        "asked_region": where.asked,
        "suggested_region": where.suggested,
        "models": models,
        "engines": engines,
        "filler_usd_per_h": await filler_usd_per_h(keeper, filled, missing, where.region),
        "says": [
            *where.says,
            *kept_size(options, before),
            *left_out(models, before),
            *not_mounting(wanted, ref),
        ],
    }


async def warnings(
    ref: StackRef, inputs: Mapping[str, Any], outputs: Mapping[str, Any], env: Mapping[str, str]
) -> list[str]:
    """Volumes that were made for a stack of this name, that no stack here has, and that this update does not take."""
    others = await others_of(site_of(env), ref, str(outputs.get("volume_id") or ""))
    ways = "" if outputs.get("volume_id") else "recipe stack up {0} RECIPE --volume {1} goes on with it; "
    return [
        f"{one} ({one.volume.name}) was made for a stack of this name: {one.says}; "
        f"{ways.format(ref, one.volume.id)}{one.command} deletes it"
        for one in others
        if one.volume.name != inputs.get("volume_name")
    ]


async def after_up(
    ref: StackRef, inputs: Mapping[str, Any], outputs: Mapping[str, Any], env: Mapping[str, str], heard: Heard
) -> list[str]:
    """How recipes find it."""
    return [f"a recipe mounts it with volumes: [{{stack: {ref}, path: {MOUNTED_AT}}}]"]


async def after_failure(
    ref: StackRef,
    made: Sequence[Mapping[str, Any]],
    outputs: Mapping[str, Any],
    env: Mapping[str, str],
    heard: Heard,
) -> list[str]:
    """The volume stays, as far as it was made; a machine that was filling it is let go. Raises MayStillBillError."""
    volumes = [str(one["name"]) for one in made if one.get("kind") == VOLUME]
    names = {*volumes, *([str(outputs["name"])] if outputs.get("name") else [])}
    journal = Journal(site_of(env).home / "ledger.db")
    begun = tuple(f"{tag_of(name)}-" for name in names)
    leases = [entry.lease for entry in journal.open_leases() if entry.lease.run_id.startswith(begun)]
    if left := await _left_by_their_providers(leases):
        ended = await let_all_go(journal, [(registry.provisioner(lease.provider), lease) for lease in left])
        for lease, gone in zip(left, ended, strict=True):
            heard(f"{lease.name} is gone: {gone.proof}")
    return volumes


async def _left_by_their_providers(leases: Sequence[Lease]) -> list[Lease]:
    """Those that no process lets go of by itself. The providers of an update that was ended end a moment later."""
    end_s = time.monotonic() + _ENDS_S
    while any(map(is_minded, leases)) and time.monotonic() < end_s:
        await asyncio.sleep(_LOOK_S)
    return [lease for lease in leases if not is_minded(lease)]


def replaced(
    changes: Changes, before: Mapping[str, Any] | None, inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> Replaced | None:
    """A volume never is."""
    return None


def left(ref: StackRef, outputs: Mapping[str, Any]) -> str:
    """Nothing: its volumes are in no journal."""
    return ""


async def after_destroy(
    ref: StackRef, outputs: Mapping[str, Any], env: Mapping[str, str], *, alone: bool = False
) -> list[str]:
    """That the provider does not have the volume any more. Raises MayStillBillError if it has."""
    volume_id = outputs.get("volume_id")
    if not volume_id or not outputs.get("provisioner"):
        return []
    keeper = keeper_named(str(outputs["provisioner"]))
    if await keeper.find_volume(str(volume_id)) is not None:
        raise MayStillBillError(f"{billing(outputs)} is still there", advice=f"recipe stack destroy {ref}")
    forget(site_of(env), str(volume_id))
    return [f"volume {volume_id}: gone, neither read nor listed any more; what lay on it is gone too"]

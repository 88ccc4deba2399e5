"""Who keeps the volume of a model cache, how large it is, and in which data centre."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import ceil
from typing import Any

from provisioners.named import underlying_of
from provisioners.volumes import Place, StoredVolume, VolumeKeeper
from recipes.errors import NoCapacity, NoMachine, UsageError
from recipes.explain import did_you_mean
from recipes.load import LoadedRecipe
from recipes.spec import Resources
from runners import registry
from runners.stack_volumes import amount_of, keeper_of
from runners.stacking.program import StackOptions
from stacks.reference import StackRef

_GB = 10**9
_SPARE, _BESIDES_GB, _STEP_GB = 0.05, 5, 10
"""Room besides models and engines: a share of them, and logs; the size is rounded up to whole steps."""


def keeper_for(recipes: Sequence[LoadedRecipe], before: Mapping[str, Any]) -> tuple[VolumeKeeper, str]:
    """Who keeps the volume: one provisioner for all of the recipes. Raises UsageError."""
    asked = [loaded.recipe.resources.provisioner for loaded in recipes]
    names = {
        underlying_of(registry.provisioner(name)) for name in (*asked, *([before["provisioner"]] if before else ()))
    }
    if before and names != {before["provisioner"]}:
        others = " and ".join(sorted(names - {before["provisioner"]}))
        raise UsageError(
            f"the volume of this stack is {before['provisioner']}'s, and machines of {others} cannot mount it",
            advice=f"name a recipe of {before['provisioner']}; or make another cache: recipe stack up model_cache/NAME",
        )
    if len(names) > 1:
        raise UsageError(
            f"one volume cannot be mounted by machines of {' and '.join(sorted(names))}",
            advice="name recipes of one provisioner; --set resources.provisioner=runpod changes it",
        )
    (name,) = names
    return keeper_named(name), name


def keeper_named(name: str) -> VolumeKeeper:
    keeper = keeper_of(registry.provisioner(name))
    if keeper is None:
        raise UsageError(
            f"provisioner {name} has no network volumes",
            advice="name a recipe with provisioner: runpod, or --set resources.provisioner=runpod",
        )
    return keeper


def size_gb_of(
    models: Iterable[Mapping[str, Any]],
    engines: Mapping[str, float],
    options: StackOptions,
    before: Mapping[str, Any],
    keeper: VolumeKeeper,
) -> int:
    """What everything takes, with room; or what is asked for. Raises UsageError if that is too small or too large."""
    bytes_gb = sum(int(model["bytes"]) for model in models) / _GB
    needed_gb = ceil(bytes_gb + sum(engines.values()) + 1)
    with_room = ceil(((bytes_gb + sum(engines.values())) * (1 + _SPARE) + _BESIDES_GB) / _STEP_GB) * _STEP_GB
    asked_gb = options.size_gb
    if asked_gb is not None and asked_gb < needed_gb:
        what = f"the models take {amount_of(round(bytes_gb * _GB))}, and engines {sum(engines.values()):,.1f} GB"
        raise UsageError(f"--size {asked_gb}GB is too small: {what}", advice=f"--size {with_room}GB, or leave it out")
    size_gb = max(keeper.smallest_gb, asked_gb or max(with_room, int(before.get("asked_size_gb") or 0)))
    if size_gb > keeper.largest_gb:
        raise UsageError(
            f"{size_gb:,} GB is more than a network volume can have ({keeper.largest_gb:,} GB)",
            advice="split the recipes over several: recipe stack up model_cache/NAME",
        )
    return size_gb


def kept_size(options: StackOptions, before: Mapping[str, Any]) -> str:
    """That a volume is never made smaller, where somebody asks for it; else ""."""
    now_gb = int(before.get("size_gb") or 0)
    if not options.size_gb or options.size_gb >= now_gb:
        return ""
    return f"it keeps its {now_gb} GB: a volume can grow, and never be made smaller"


def asked_place(asked: str, places: Sequence[Place]) -> Place:
    """The data centre of this name. Raises UsageError for one that keeps no volumes."""
    known = {place.region: place for place in places}
    if asked not in known:
        what = f"--region {asked}: no data centre that keeps network volumes"
        near = did_you_mean(asked.upper(), known)
        there = f"there are {', '.join(sorted(known))}"
        raise UsageError(what, advice=f"{near} {there}" if near.startswith("did") else there)
    return known[asked]


def stock_in(place: Place, wishes: Sequence[Resources]) -> str:
    """What of the wanted hardware is there now, in a sentence; "" where nothing was wanted."""
    names = _names(wishes)
    if not names:
        return ""
    if place.stock == "none":
        return f"{place.region} has not all of {names} in stock now: runs there may find no machine"
    price = f", from ${place.usd_per_h:,.2f}/h" if place.usd_per_h is not None else ""
    return f"{place.region} has {names} in stock ({place.stock}){price}"


def best_of(places: Sequence[Place], wishes: Sequence[Resources], ref: StackRef) -> Place:
    """Where everything is in stock. Raises NoCapacity where nothing is."""
    if places and places[0].stock != "none":
        return places[0]
    names = _names(wishes) or "the wanted GPUs"
    advice = f"recipe stack up {ref} --region PLACE puts it somewhere all the same; recipe offers shows what there is"
    if places:
        advice = f"recipe stack up {ref} --region {places[0].region} puts it there all the same, or add fallbacks"
    raise NoCapacity(f"no data centre that keeps volumes has all of {names} in stock now", advice=advice)


def _names(wishes: Sequence[Resources]) -> str:
    return " and ".join(dict.fromkeys(str(wish.accelerators) for wish in wishes if wish.accelerators))


async def filler_usd_per_h(keeper: VolumeKeeper, models: Iterable[Mapping[str, Any]], region: str) -> float | None:
    """What the cheapest machine takes that could fill a volume there; None where none is needed, or nobody can say."""
    if not any(model["fill"] and not model.get("noted") for model in models):
        return None
    with suppress(NoMachine):
        offers = await keeper.fillers(StoredVolume(id="", name="", size_gb=0, region=region))
        return min((o.price_usd_per_h for o in offers if o.price_usd_per_h is not None), default=None)
    return None

"""Who keeps the volume of a model cache, how large it is, and in which data centre."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from provisioners.named import underlying_of
from provisioners.volumes import Place, Stocked, StoredVolume, VolumeKeeper
from recipes.errors import NoCapacity, NoMachine, Refused, UsageError
from recipes.explain import did_you_mean
from recipes.load import LoadedRecipe
from recipes.spec import Resources
from recipes.units import rough_size
from runners import registry
from runners.stack_volumes import keeper_of, mounting
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
    models: Sequence[Mapping[str, Any]],
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
        what = f"the models take {rough_size(round(bytes_gb * _GB))}, and engines {sum(engines.values()):,.1f} GB"
        raise UsageError(f"--size {asked_gb}GB is too small: {what}", advice=f"--size {with_room}GB, or leave it out")
    size_gb = max(keeper.smallest_gb, asked_gb or max(with_room, int(before.get("asked_size_gb") or 0)))
    if size_gb > keeper.largest_gb:
        raise UsageError(
            f"{size_gb:,} GB is more than a network volume can have ({keeper.largest_gb:,} GB)",
            advice=_instead([int(model["bytes"]) / _GB for model in models], with_room, keeper.largest_gb),
        )
    return size_gb


def _instead(models_gb: Sequence[float], with_room_gb: int, largest_gb: int) -> str:
    """What helps where a volume would be too large."""
    if with_room_gb <= largest_gb:
        return f"--size {largest_gb}GB is the most; {with_room_gb}GB are enough for what it is to hold"
    if max(models_gb) > largest_gb:
        return "no cache can hold this model: let each run have a disk of its own, volumes: [{size: …, path: …}]"
    return "split the recipes over several: recipe stack up model_cache/NAME RECIPE"


def kept_size(options: StackOptions, before: Mapping[str, Any]) -> list[str]:
    """That a volume is never made smaller, where somebody asks for it."""
    now_gb = int(before.get("size_gb") or 0)
    if not options.size_gb or options.size_gb >= now_gb:
        return []
    return [f"it keeps its {now_gb} GB: a volume can grow, and never be made smaller"]


def command_of(recipes: Iterable[LoadedRecipe], ref: StackRef) -> str:
    """The command that makes this stack what the recipes ask for, with what is set of them.

    Where they mount another one, it sets that too; or says what to write, where one setting is not right for all.
    """
    recipes = tuple(recipes)
    asked = [shlex.split(loaded.command)[2:] for loaded in recipes]
    settings = dict.fromkeys(tuple(words[1:]) for words in asked)
    names = dict.fromkeys(words[0] for words in asked)
    words = ["recipe", "stack", "up", str(ref), *names, *(word for words in settings for word in words)]
    mounted = {_mounted(loaded) for loaded in recipes}
    if all(found is None or found[1] == ref for found in mounted):
        return shlex.join(words)
    indexes = {found[0] if found else None for found in mounted}
    (index, *others) = indexes
    if index is None or others:
        return f"write stack: {ref} into the recipes, then {shlex.join(words)}"
    return shlex.join([*words, *mounting(index, ref)])


def _mounted(loaded: LoadedRecipe) -> tuple[int, StackRef] | None:
    """Which of a recipe's volumes is a stack's, and of which stack; None if it mounts none."""
    volumes = enumerate(loaded.recipe.resources.volumes)
    return next(((index, StackRef.parse(one.stack)) for index, one in volumes if one.stack), None)


@dataclass(frozen=True, kw_only=True)
class Lying:
    """Where a volume lies, or will."""

    asked: str
    """With --region, now or before; else empty."""
    suggested: str
    """By where the recipes' GPUs are, once, when the volume was made."""
    says: tuple[str, ...]
    """What there is of the recipes' hardware."""
    here: str = ""
    """Where it is already."""

    @property
    def region(self) -> str:
        """The data centre."""
        return self.here or self.asked or self.suggested


async def lying_in(
    keeper: VolumeKeeper,
    wishes: Sequence[Resources],
    options: StackOptions,
    before: Mapping[str, Any],
    here: str,
    command: Callable[[StackRef], str],
    ref: StackRef,
) -> Lying:
    """Where the volume lies, with what there is for these recipes; `here` is where it is already, "" for a new one.

    `command` makes a stack of this reference for them. Raises UsageError for a place that keeps no volumes, and
    NoCapacity where no place has all that is wanted.
    """
    asked, suggested = str(before.get("asked_region") or ""), here or str(before.get("suggested_region") or "")
    places = list[Place]()
    if options.region or wishes:
        with suppress(NoMachine) if suggested and not options.region else nullcontext():
            places = await keeper.places(wishes)
    if options.region:
        asked = asked_place(options.region, places).region
    elif not asked and not suggested:
        suggested = best_of(places, wishes, command(ref) + _besides(options)).region
    lying = Lying(asked=asked, suggested=suggested or asked, says=(), here=here)
    elsewhere = f"a second cache, elsewhere: {command(StackRef(ref.program, 'NAME'))}" if here else ""
    found = (place for place in places if place.region == lying.region)
    return replace(lying, says=tuple(line for place in found for line in stock_in(place, wishes, elsewhere)))


def _besides(options: StackOptions) -> str:
    """What is asked for besides recipes and a place, as it is typed."""
    size = f" --size {options.size_gb}GB" if options.size_gb is not None else ""
    return f"{size} --fill" if options.fill else size


def asked_place(asked: str, places: Sequence[Place]) -> Place:
    """The data centre of this name, in any case of letters. Raises UsageError for one that keeps no volumes."""
    known = {place.region: place for place in places}
    if asked.upper() not in known:
        what = f"--region {asked}: no data centre that keeps network volumes"
        near = did_you_mean(asked.upper(), known)
        there = f"there are {', '.join(sorted(known))}"
        raise UsageError(what, advice=f"{near} {there}" if near.startswith("did") else there)
    return known[asked.upper()]


def stock_in(place: Place, wishes: Sequence[Resources], otherwise: str) -> list[str]:
    """What of the wanted hardware is there now, in sentences: what is in stock, what is not, what no run may use.

    `otherwise` is what helps where something is missing.
    """
    found = {_name(wish): there for wish, there in zip(wishes, place.wished, strict=True) if wish.accelerators}
    has = [_priced(name, there) for name, there in found.items() if there.stock != "none"]
    lacks = [name for name, there in found.items() if there.stock == "none" and not there.excluded]
    excluded = [name for name, there in found.items() if there.excluded]
    lines = []
    if lacks:
        lines.append(f"{place.region} has no {' and no '.join(lacks)} in stock now: runs there may find no machine")
    if excluded:
        names = " and of ".join(excluded)
        lines.append(f"resources.regions of {names} leave {place.region} out: each of their runs is refused there")
    lines = [f"{line}; {otherwise}" if otherwise else line for line in lines]
    return [f"{place.region} has {', and '.join(has)}", *lines] if has else lines


def _priced(name: str, found: Stocked) -> str:
    price = f", from ${found.usd_per_h:,.2f}/h" if found.usd_per_h is not None else ""
    return f"{name} in stock ({found.stock}){price}"


def best_of(places: Sequence[Place], wishes: Sequence[Resources], up: str) -> Place:
    """Where everything is in stock; `up` is the command that asks. Raises NoCapacity where nothing is."""
    if places and places[0].has_all:
        return places[0]
    names = " and ".join(dict.fromkeys(_name(wish) for wish in wishes if wish.accelerators)) or "the wanted GPUs"
    raise NoCapacity(
        f"no data centre that keeps volumes has all of {names} in stock now",
        advice="add fallbacks under resources.any_of (recipe offers shows what is in stock), or try again later; "
        f"{up} --region PLACE puts it somewhere all the same",
    )


def _name(wish: Resources) -> str:
    return f"{wish.accelerators}{' or a fallback' if wish.any_of else ''}"


async def filler_usd_per_h(
    keeper: VolumeKeeper, filled: Sequence[Mapping[str, Any]], missing: Sequence[Mapping[str, Any]], region: str
) -> float | None:
    """What the cheapest machine takes that could bring models; None where none are to be `filled`, or nobody can say.

    Raises Refused where no machine can bring those that are `missing`, or none as cheap as a recipe asks: no volume is
    bought for that.
    """
    if not filled:
        return None
    otherwise = "without --fill the first run that mounts it brings the model"
    try:
        offers = await keeper.fillers(StoredVolume(id="", name="", size_gb=0, region=region))
    except NoMachine:
        return None
    if missing and not offers:
        raise Refused(f"no machine can be had in {region} now that could fill the volume", advice=otherwise)
    usd_per_h = min((o.price_usd_per_h for o in offers if o.price_usd_per_h is not None), default=None)
    most = min((float(one["max_price"]) for one in missing if one.get("max_price") is not None), default=None)
    if most is not None and usd_per_h is not None and usd_per_h > most:
        raise Refused(
            f"the cheapest machine in {region} that could fill the volume takes ${usd_per_h:,.2f}/h, above "
            f"limits.max_price ${most:,.2f}/h",
            advice=f"--set limits.max_price={usd_per_h:g}; or {otherwise}",
        )
    return usd_per_h

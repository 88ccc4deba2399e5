"""The cache for models: its size from what the recipes ask for, its place from where their GPUs are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from provisioners.contract import Lease, Offer, Order
from provisioners.journal import Journal
from provisioners.named import underlying_of
from provisioners.naming import owner_name
from provisioners.preflight import clear
from provisioners.site import site_of
from provisioners.storage_prices import storage_prices
from provisioners.threads import in_thread
from provisioners.volumes import Place, VolumeKeeper
from recipes.errors import MayStillBillError, NoCapacity, UsageError
from recipes.load import LoadedRecipe
from recipes.spec import Recipe, Resources, Volume
from runners import registry
from runners.boot import fetch_boot
from runners.environments import environment_name
from runners.models import HubModel, resolve_model
from runners.stack_volumes import amount_of, files_of, forget, held_in, keeper_of, noted, place_on
from runners.stacking.cache_volumes import others_of, taken_on_by
from runners.stacking.program import StackOptions
from runners.terminal.words import plural
from stacks.kept import kept, outputs_of
from stacks.model_cache.lifecycle import VOLUME, let_go, tag_of
from stacks.model_cache.values import Held, merged
from stacks.orders import Request, pack
from stacks.reference import StackRef
from stacks.values import Changes, Heard

_GB = 10**9
_SPARE, _BESIDES_GB, _STEP_GB = 0.05, 5, 10
"""Room besides models and engines: a share of them, and logs; the size is rounded up to whole steps."""
_MOUNTED_AT = "/workspace"
"""Where RunPod mounts volumes, for a recipe that does not say."""
_SLOWEST_BYTES_PER_S, _LONGEST_S, _START_S = 5e6, 24 * 3600.0, 1800.0
"""For how long a machine may fill the volume: downloads of 1 to 3 MB/s were seen, hundreds are usual."""


@dataclass(frozen=True)
class _Wanted:
    """What one recipe asks of the cache."""

    recipe: Recipe
    hub: HubModel
    engine: tuple[str, float]
    """Its environment's name, and its size in 10⁹ bytes."""
    volume: Volume


async def inputs(
    recipes: Sequence[LoadedRecipe],
    ref: StackRef,
    options: StackOptions,
    env: Mapping[str, str],
    before: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the Pulumi program is run with. What the cache was asked to hold before stays counted.

    Raises UsageError, Refused if a model cannot be had, and NoMachine where nothing of the wanted kind is in stock.
    """
    if options.forced:
        raise UsageError("--force: no check stands in the way of a model cache", advice="leave it out")
    if not recipes and before is None:
        raise UsageError(f"nobody has said what {ref} is to hold", advice=f"recipe stack up {ref} RECIPE…")
    before = before or {}
    keeper, name = _keeper(recipes, before)
    wanted = await asyncio.gather(*(_wanted(loaded, ref) for loaded in recipes))
    taken_on = await taken_on_by(ref, site_of(env), options.volume, options.region) if options.volume else None
    brought = await _brought(ref, before, env, taken_on.id if taken_on else None)
    models = _models(wanted, name, before, options, env, brought)
    engines = {**before.get("engines", {}), **dict(one.engine for one in wanted)}
    asked_region = options.region or str(before.get("asked_region") or "")
    wishes = [one.recipe.resources.model_copy(update={"volumes": ()}) for one in wanted]
    suggested = str(before.get("suggested_region") or "")
    if options.region:
        _check_region(options.region, await keeper.places([]))
    elif taken_on is not None:
        suggested = taken_on.region
    elif not asked_region and not suggested:
        suggested = _best(await keeper.places(wishes), wishes, ref).region
    return {
        "stack": ref.name,
        "provisioner": name,
        "owner": owner_name(env),
        "volume_name": taken_on.name if taken_on else str(before.get("volume_name") or ""),
        "size_gb": max(_size_gb(models, engines, options, before, keeper), taken_on.size_gb if taken_on else 0),
        "asked_size_gb": max(options.size_gb or 0, int(before.get("asked_size_gb") or 0)),
        "asked_region": asked_region,
        "suggested_region": suggested or asked_region,
        "models": models,
        "engines": engines,
    }


def costs(inputs: Mapping[str, Any], changes: Changes, outputs: Mapping[str, Any]) -> list[str]:
    """What the volume costs from then on, and what filling it asks for."""
    region = outputs.get("region") or inputs["asked_region"] or inputs["suggested_region"]
    now_gb = int(outputs.get("size_gb") or 0)
    size_gb = max(int(inputs["size_gb"]), now_gb)
    lines = [f"{_price(size_gb)} for {size_gb} GB in {region}, until it is destroyed ({_source()})"]
    if inputs["volume_name"] and not outputs:
        lines.append(f"{inputs['volume_name']} is gone on with: none is made besides it")
    if 0 < now_gb < size_gb:
        lines.append(f"it grows from {now_gb} GB, which cost {_price(now_gb)}; it can never be made smaller")
    fetched = {step.name for step in changes.steps if step.type == "Model" and step.op in ("create", "replace")}
    to_fill = [one for one in inputs["models"] if one["fill"] and not one.get("noted")]
    if fetched and to_fill:
        size = amount_of(sum(one["bytes"] for one in to_fill))
        lines.append(f"{plural(len(fetched), 'download')}, {size}: by the cheapest pod in {region}, let go after")
    return lines


async def warnings(ref: StackRef, outputs: Mapping[str, Any], env: Mapping[str, str]) -> list[str]:
    """Volumes that were made for a stack of this name, and that no stack here has."""
    others = await others_of(site_of(env), ref, str(outputs.get("volume_id") or ""))
    ways = "" if outputs.get("volume_id") else "recipe stack up {0} RECIPE --volume {1} goes on with it; "
    return [
        f"{one} ({one.volume.name}) was made for a stack of this name: {one.says}; "
        f"{ways.format(ref, one.volume.id)}{one.command} deletes it"
        for one in others
    ]


def told(outputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The volume, its price, and what lies on it."""
    size_gb, usd = int(outputs["size_gb"]), outputs.get("usd_per_month")
    lines = [
        ("volume", f"{outputs['volume_id']} ({outputs['name']})"),
        ("size", f"{size_gb} GB in {outputs['region']}"),
    ]
    lines += [("price", f"${float(usd):,.2f}/month")] if usd is not None else []
    held = held_in(outputs)
    lines += [("holds" if i == 0 else "", _line(one)) for i, one in enumerate(held)]
    return lines if held else [*lines, ("holds", "nothing yet: the first run fills it, or recipe stack up --fill")]


async def after_up(
    ref: StackRef, inputs: Mapping[str, Any], outputs: Mapping[str, Any], env: Mapping[str, str], heard: Heard
) -> list[str]:
    """How recipes find it."""
    return [f"a recipe mounts it with volumes: [{{stack: {ref}, path: {_MOUNTED_AT}}}]"]


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
    for entry in journal.open_leases():
        if any(entry.lease.run_id.startswith(f"{tag_of(name)}-") for name in names):
            gone = await let_go(registry.provisioner(entry.lease.provider), journal, entry.lease)
            heard(f"{entry.lease.name} is gone: {gone.proof}")
    return volumes


def may_bill(outputs: Mapping[str, Any]) -> str:
    """The volume, with its price."""
    if not outputs.get("volume_id"):
        return ""
    size_gb = int(outputs.get("size_gb") or 0)
    usd = outputs.get("usd_per_month")
    price = f" for ${float(usd):,.2f}/month" if usd is not None else ""
    held = held_in(outputs)
    holds = f", holds {plural(len(held), 'model')}, {amount_of(sum(one.bytes for one in held))}" if held else ""
    return f"volume {outputs['volume_id']}, {size_gb} GB in {outputs.get('region')}{price}{holds}"


def left(ref: StackRef, outputs: Mapping[str, Any]) -> str:
    """Nothing: its volumes are in no journal."""
    return ""


async def after_destroy(ref: StackRef, outputs: Mapping[str, Any], env: Mapping[str, str]) -> list[str]:
    """That the provider does not have the volume any more. Raises MayStillBillError if it has."""
    volume_id = outputs.get("volume_id")
    if not volume_id:
        return []
    keeper = _keeper_named("runpod")
    if await keeper.find_volume(str(volume_id)) is not None:
        raise MayStillBillError(f"{may_bill(outputs)} is still there", advice=f"recipe stack destroy {ref}")
    forget(site_of(env), str(volume_id))
    return [f"volume {volume_id}: gone, neither read nor listed any more; what lay on it is gone too"]


def _keeper(recipes: Sequence[LoadedRecipe], before: Mapping[str, Any]) -> tuple[VolumeKeeper, str]:
    """Who keeps the volume: one provisioner for all of the recipes. Raises UsageError."""
    asked = [loaded.recipe.resources.provisioner for loaded in recipes]
    names = {
        underlying_of(registry.provisioner(name)) for name in (*asked, *([before["provisioner"]] if before else ()))
    }
    if len(names) > 1:
        raise UsageError(
            f"one volume cannot be mounted by machines of {' and '.join(sorted(names))}",
            advice="name recipes of one provisioner; --set resources.provisioner=runpod changes it",
        )
    (name,) = names
    return _keeper_named(name), name


def _keeper_named(name: str) -> VolumeKeeper:
    keeper = keeper_of(registry.provisioner(name))
    if keeper is None:
        raise UsageError(
            f"provisioner {name} has no network volumes",
            advice="name a recipe with provisioner: runpod, or --set resources.provisioner=runpod",
        )
    return keeper


async def _wanted(loaded: LoadedRecipe, ref: StackRef) -> _Wanted:
    """Raises UsageError for a recipe that would not use this cache, and Refused if its model cannot be had."""
    recipe = loaded.recipe
    engine = registry.engine(recipe.engine.name)
    volumes = [volume for volume in recipe.resources.volumes if volume.stack or volume.name]
    mounted = next((v for v in volumes if v.stack and StackRef.parse(v.stack) == ref), None)
    if mounted is None and volumes:
        other = f"stack {volumes[0].stack}" if volumes[0].stack else f"volume {volumes[0].name}"
        raise UsageError(
            f"recipe {recipe.name} mounts {other}, not stack {ref}",
            advice=f"write volumes: [{{stack: {ref}, path: {_MOUNTED_AT}}}]",
        )
    model = await in_thread(resolve_model, recipe, engine)
    if model.hub is None:
        raise UsageError(
            f"recipe {recipe.name} downloads no model", advice="name recipes whose model.repo is at the Hub"
        )
    volume = mounted or Volume(path=_MOUNTED_AT, stack=str(ref))
    if place_on(recipe, volume) is None:
        raise UsageError(
            f"recipe {recipe.name} stores its model at {recipe.model.path}, outside of the volume at {volume.path}",
            advice=f"leave model.path out, or write one below {volume.path}",
        )
    accelerated = recipe.resources.accelerators is not None
    version = recipe.engine.version or engine.default_version or ""
    installation = engine.installation(version, accelerated=accelerated)
    named = environment_name(engine.name, version, installation) if installation else engine.name
    size_gb = (engine.install_gb(version, accelerated=accelerated) or 0.0) if installation else 0.0
    return _Wanted(recipe, model.hub, (named, size_gb), volume)


def _models(
    wanted: Iterable[_Wanted],
    provisioner: str,
    before: Mapping[str, Any],
    options: StackOptions,
    env: Mapping[str, str],
    brought: Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Those of the recipes, and those of before, with who has brought them as far as this machine knows."""
    found = {_key(model): dict(model) for model in before.get("models", ())}
    for one in wanted:
        model = _model(one, provisioner, env)
        earlier = found.get(_key(model), {})
        found[_key(model)] = {**model, "fill": bool(earlier.get("fill")), "noted": earlier.get("noted")}
    for held in brought:
        found.setdefault(_key(held), _unasked(held))["noted"] = dict(held)
    for model in found.values():
        if options.fill and model["order"]:
            model["fill"] = True
    return sorted(found.values(), key=_key)


async def _brought(
    ref: StackRef, before: Mapping[str, Any], env: Mapping[str, str], taken_on: str | None
) -> list[dict[str, Any]]:
    """What is known to lie on the stack's volume, with the volume's id: runs of this machine have brought it.

    Of one that is taken on also what this machine last saw of the stack that had it.
    """
    if not before and not taken_on:
        return []
    site, held = site_of(env), list[Held]()
    volume_id = taken_on or (await outputs_of(site, ref)).values.get("volume_id")
    seen = kept(site, ref) if taken_on else None
    if seen is not None and seen.values.get("volume_id") == taken_on:
        held = held_in(seen.values)
    known = merged(*held, *noted(site, str(volume_id))) if volume_id else []
    return [{**one.data(), "volume_id": volume_id} for one in known]


def _model(one: _Wanted, provisioner: str, env: Mapping[str, str]) -> dict[str, Any]:
    place = place_on(one.recipe, one.volume)
    secrets = [name for name in one.recipe.secrets if name == "HF_TOKEN"]
    hub_env = {"HF_ENDPOINT": env["HF_ENDPOINT"]} if env.get("HF_ENDPOINT") else {}
    plain = {name: value for name, value in one.recipe.env.items() if name not in one.recipe.secrets}
    resources = Resources(
        provisioner=provisioner,
        image=one.recipe.resources.image,
        volumes=(Volume(path=one.volume.path, name="volume"),),
    )
    order = Order(
        offer=Offer(provider=provisioner, id=""),
        lease=Lease(provider=provisioner, name="", run_id=""),
        resources=resources,
        boot=fetch_boot(one.hub, one.recipe.model.path, {**hub_env, **plain}),
    )
    return {
        "repo": one.hub.repo,
        "commit": one.hub.commit,
        "files": files_of(one.hub),
        "bytes": one.hub.bytes,
        "place": place,
        "order": pack(Request.of(order, clear(()))),
        "secrets": secrets,
        "gated": one.hub.gated,
        "lasts_s": min(_LONGEST_S, _START_S + one.hub.bytes / _SLOWEST_BYTES_PER_S),
    }


def _unasked(held: Mapping[str, Any]) -> dict[str, Any]:
    """A model that a run has brought, and that no recipe of this stack names."""
    told = {key: held[key] for key in ("repo", "commit", "files", "bytes", "place")}
    return {**told, "order": "", "secrets": [], "gated": False, "lasts_s": 0.0, "fill": False}


def _key(model: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return str(model["repo"]), str(model["commit"]), str(model["files"]), str(model["place"])


def _size_gb(
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


def _check_region(asked: str, places: Sequence[Place]) -> None:
    """Raises UsageError for a data centre that keeps no volumes."""
    known = sorted(place.region for place in places)
    if asked not in known:
        what = f"--region {asked}: no data centre that keeps network volumes"
        raise UsageError(what, advice=f"there are {', '.join(known)}")


def _best(places: Sequence[Place], wishes: Sequence[Resources], ref: StackRef) -> Place:
    """Where everything is in stock. Raises NoCapacity where nothing is."""
    if places and places[0].stock != "none":
        return places[0]
    names = " and ".join(dict.fromkeys(str(w.accelerators) for w in wishes if w.accelerators)) or "the wanted GPUs"
    advice = f"recipe stack up {ref} --region PLACE puts it somewhere all the same; recipe offers shows what there is"
    if places:
        advice = f"recipe stack up {ref} --region {places[0].region} puts it there all the same, or add fallbacks"
    raise NoCapacity(f"no data centre that keeps volumes has all of {names} in stock now", advice=advice)


def _price(size_gb: int) -> str:
    usd = _keeper_named("runpod").volume_usd_per_month(size_gb)
    return "at a price that nobody has said" if usd is None else f"${usd:,.2f}/month"


def _source() -> str:
    return f"RunPod's prices of {storage_prices('runpod')['network'].seen_on}, assumed"


def _line(held: Held) -> str:
    when = f"{held.at:%Y-%m-%d %H:%M} UTC"
    return f"{held.repo} @ {held.commit[:7]}, {amount_of(held.bytes)}, since {when} ({held.by})"

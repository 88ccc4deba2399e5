"""What recipes want a model cache to hold, and what lies there already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from provisioners.contract import Lease, Offer, Order
from provisioners.preflight import clear
from provisioners.site import site_of
from provisioners.threads import in_thread
from recipes.errors import UsageError
from recipes.load import LoadedRecipe
from recipes.spec import Recipe, Resources, Volume
from runners import registry
from runners.boot import fetch_boot
from runners.environments import environment_name
from runners.models import HubModel, resolve_model
from runners.stack_volumes import file_of, files_of, held_in, noted, place_on
from runners.stacking.program import StackOptions
from stacks.kept import kept, outputs_of
from stacks.model_cache.values import merged, named
from stacks.orders import Request, pack
from stacks.reference import StackRef

MOUNTED_AT = "/workspace"
"""Where RunPod mounts volumes, for a recipe that does not say."""
_SLOWEST_BYTES_PER_S, _LONGEST_S, _START_S = 5e6, 24 * 3600.0, 1800.0
"""For how long a machine may fill the volume: downloads of 1 to 3 MB/s were seen, hundreds are usual."""


@dataclass(frozen=True)
class Wanted:
    """What one recipe asks of the cache."""

    recipe: Recipe
    hub: HubModel
    mounts_it: bool
    engine: tuple[str, float]
    """Its environment's name, and its size in 10⁹ bytes."""
    volume: Volume


@dataclass(frozen=True, kw_only=True)
class OnVolume:
    """What is known to lie on a cache's volume."""

    region: str = ""
    """Where it is itself; empty if there is none yet."""
    brought: tuple[dict[str, Any], ...] = ()
    """By runs of this machine, and by the stack itself: as `Held.data` has it, with the volume's id."""

    def has(self, model: Mapping[str, Any]) -> bool:
        """Whether this model is among them."""
        return _key(model) in map(_key, self.brought)


async def wanted_of(loaded: LoadedRecipe, ref: StackRef) -> Wanted:
    """Raises UsageError for a recipe that would not use this cache, and Refused if its model cannot be had."""
    recipe = loaded.recipe
    engine = registry.engine(recipe.engine.name)
    volumes = [volume for volume in recipe.resources.volumes if volume.stack or volume.name]
    mounted = next((v for v in volumes if v.stack and StackRef.parse(v.stack) == ref), None)
    if mounted is None and volumes:
        other = f"stack {volumes[0].stack}" if volumes[0].stack else f"volume {volumes[0].name}"
        raise UsageError(
            f"recipe {recipe.name} mounts {other}, not stack {ref}",
            advice=f"write volumes: [{{stack: {ref}, path: {MOUNTED_AT}}}]",
        )
    model = await in_thread(resolve_model, recipe, engine)
    if model.hub is None:
        raise UsageError(
            f"recipe {recipe.name} downloads no model", advice="name recipes whose model.repo is at the Hub"
        )
    volume = mounted or Volume(path=MOUNTED_AT, stack=str(ref))
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
    return Wanted(recipe, model.hub, mounted is not None, (named, size_gb), volume)


def models_of(
    wanted: Iterable[Wanted],
    provisioner: str,
    before: Mapping[str, Any],
    options: StackOptions,
    env: Mapping[str, str],
    there: OnVolume,
) -> list[dict[str, Any]]:
    """Those of the recipes, and those of before, with who has brought them as far as this machine knows.

    One that was to be downloaded, and is not there, is so no more if its recipe is named without --fill.
    """
    found = {_key(model): dict(model) for model in before.get("models", ())}
    limits = dict[Any, float]()
    for one in wanted:
        model = _model(one, provisioner, env)
        earlier = found.get(_key(model), {})
        if model["max_price"] is not None:
            limits[_key(model)] = min(model["max_price"], limits.get(_key(model), inf))
        model["max_price"] = limits.get(_key(model))
        filled = bool(earlier.get("fill")) and there.has(model)
        found[_key(model)] = {**model, "fill": filled, "noted": earlier.get("noted")}
    for held in there.brought:
        found.setdefault(_key(held), _unasked(held))["noted"] = dict(held)
    for model in found.values():
        if options.fill and model["order"]:
            model["fill"] = True
    return sorted(found.values(), key=_key)


def not_mounting(wanted: Iterable[Wanted], ref: StackRef) -> list[str]:
    """A sentence for each recipe whose runs would not find their model here."""
    return [
        f"recipe {one.recipe.name} does not mount it, so its runs download their model all the same: "
        f"write volumes: [{{stack: {ref}, path: {MOUNTED_AT}}}]"
        for one in wanted
        if not one.mounts_it
    ]


def left_out(models: Iterable[Mapping[str, Any]], before: Mapping[str, Any]) -> list[str]:
    """A sentence for each model that was to be downloaded, and is so no more."""
    filled = {_key(model) for model in before.get("models", ()) if model["fill"]}
    dropped = [named(model) for model in models if _key(model) in filled and not model["fill"]]
    return [f"{one} is not downloaded now: --fill is left out, so the first run brings it" for one in dropped]


async def lying_on(ref: StackRef, before: Mapping[str, Any], env: Mapping[str, str], taken_on: str | None) -> OnVolume:
    """What is known to lie on the stack's volume: its state says so, and notes of this machine's runs.

    Of one that is taken on also what this machine last saw of the stack that had it.
    """
    if not before and not taken_on:
        return OnVolume()
    site, seen = site_of(env), kept(site_of(env), ref) if taken_on else None
    values = {} if taken_on else (await outputs_of(site, ref)).values
    volume_id = taken_on or values.get("volume_id")
    if not volume_id:
        return OnVolume()
    was_its = seen is not None and seen.values.get("volume_id") == taken_on
    before_that = held_in(seen.values) if seen is not None and was_its else []
    brought = merged(*held_in(values), *before_that, *noted(site, str(volume_id)))
    return OnVolume(
        region=str(values.get("region") or ""),
        brought=tuple({**one.data(), "volume_id": volume_id} for one in brought),
    )


def _model(one: Wanted, provisioner: str, env: Mapping[str, str]) -> dict[str, Any]:
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
        "file": file_of(one.hub),
        "order": pack(Request.of(order, clear(()))),
        "secrets": secrets,
        "gated": one.hub.gated,
        "max_price": one.recipe.limits.max_price,
        "lasts_s": min(_LONGEST_S, _START_S + one.hub.bytes / _SLOWEST_BYTES_PER_S),
    }


def _unasked(held: Mapping[str, Any]) -> dict[str, Any]:
    """A model that a run has brought, and that no recipe of this stack names."""
    told = {key: held[key] for key in ("repo", "commit", "files", "bytes", "place", "file")}
    return {**told, "order": "", "secrets": [], "gated": False, "lasts_s": 0.0, "max_price": None, "fill": False}


def _key(model: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return str(model["repo"]), str(model["commit"]), str(model["files"]), str(model["place"])

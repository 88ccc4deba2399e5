"""Volumes of stacks in recipes: which one is meant, what it holds, and who has brought that."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, cast

from provisioners.contract import Finding, Host, Offer, Provisioner, Site
from provisioners.files import write_whole
from provisioners.named import underlying_of
from provisioners.volumes import VolumeKeeper
from recipes.errors import NoMachine, RecipeError, Refused
from recipes.load import LoadedRecipe
from recipes.spec import Recipe, Volume
from recipes.units import rough_size
from runners import registry
from runners.models import HubModel
from stacks.kept import Outputs, outputs_of
from stacks.model_cache.values import Held, merged
from stacks.reference import StackRef
from stacks.values import NoEngine, NoSuchStack

_GB = 10**9
_FRESH_S = 20.0
_asked: dict[tuple[Path, str | None, StackRef], tuple[float, Outputs]] = {}
_OWN_CACHE = ".recipe-cache/huggingface"
"""Where a machine keeps the Hub's models on a volume, from where it is mounted on."""


class NoStackVolume(Refused):
    """The recipe is right, and its stack has no volume that could be mounted."""

    code = "stack"
    path = "resources.volumes"


@dataclass(frozen=True, kw_only=True)
class StackVolume:
    """The volume of a recipe's stack."""

    ref: StackRef
    id: str
    region: str
    size_gb: int
    place: str | None
    """Of the recipe's model on it, as in `Held`; None if it lies elsewhere."""
    path: str
    """Where it is mounted."""
    grows_by: str
    """The command that makes room for this recipe."""
    index: int = 0
    """Which of the recipe's volumes it is."""
    holds: tuple[Held, ...] = ()
    seen_at: datetime | None = None
    """When the stack was seen, if that was not now."""

    def held(self, hub: HubModel | None) -> Held | None:
        """The model, if it is known to lie there."""
        if hub is None or self.place is None:
            return None
        wanted = (hub.repo, hub.commit, files_of(hub), self.place)
        return next((held for held in self.holds if held.key == wanted), None)

    def findings(self, hub: HubModel | None, offers: Sequence[Offer] = ()) -> Iterator[Finding]:
        """Whether the download is paid for already, and whether the volume keeps the recipe from its machines."""
        if offers and all(offer.stock == "none" for offer in offers):
            second = StackRef(self.ref.program, "NAME")
            makes = self.grows_by.replace(f"up {self.ref} ", f"up {second} ", 1)
            another = f"{makes} {shlex.join(mounting(self.index, second))}"
            yield Finding(
                level="warn",
                code="stack",
                message=f"stack {self.ref} binds this recipe to {self.region}, where its volume lies, and none of its "
                "machines is in stock there",
                suggestion=f"make a second cache where there are some: {another}; runs mount it with the same --set",
            )
        if self.seen_at is not None:
            yield Finding(
                level="warn",
                code="stack",
                message=f"stack {self.ref} as this machine saw it at {self.seen_at:%Y-%m-%d %H:%M} UTC",
                suggestion="recipe stack install gets Pulumi's engine, which knows how it is now",
            )
        if hub is None:
            return
        if self.place is None:
            yield Finding(
                level="warn",
                code="stack",
                message=f"the recipe stores its model outside of the volume at {self.path}: every run downloads it",
                suggestion=f"leave model.path out, or write one below {self.path}",
                numbers={"bytes": hub.bytes},
                path="model.path",
            )
            return
        size, numbers = rough_size(hub.bytes), {"bytes": hub.bytes}
        if held := self.held(hub):
            message = f"{size} model on stack {self.ref} since {held.at:%Y-%m-%d}, already paid for: no download"
        else:
            message = f"{size} model not on stack {self.ref} yet: this run brings it"
        yield Finding(level="ok", code="stack", message=message, numbers=numbers)

    def document(self, hub: HubModel | None) -> dict[str, Any]:
        """As plain data, for plan.json."""
        held = self.held(hub)
        return {
            "stack": str(self.ref),
            "volume_id": self.id,
            "region": self.region,
            "size_gb": self.size_gb,
            "free_gb": round(self.free_gb, 1),
            "held": held.data() if held else None,
            "seen_at": self.seen_at.isoformat(timespec="seconds") if self.seen_at else None,
        }

    @property
    def free_gb(self) -> float:
        """What the models on it leave, in 10⁹ bytes; engines are not known."""
        return max(0.0, self.size_gb - sum(held.bytes for held in self.holds) / _GB)


async def resolved(
    loaded: LoadedRecipe, provisioner: Provisioner, site: Site
) -> tuple[LoadedRecipe, StackVolume | None]:
    """The recipe with the id of its stack's volume as the volume's name; as it is, if it names no stack.

    Raises NoStackVolume where there is no such stack, no volume in it, or none any more.
    """
    recipe = loaded.recipe
    volume = next((volume for volume in recipe.resources.volumes if volume.stack), None)
    if volume is None or volume.stack is None:
        return loaded, None
    ref = StackRef.parse(volume.stack)
    makes = loaded.command.replace("recipe up", f"recipe stack up {ref}", 1)
    keeper = keeper_of(provisioner)
    if keeper is None:
        raise NoStackVolume(
            f"resources.volumes: stack {ref} keeps a network volume, and provisioner {provisioner.name} mounts none",
            advice="write provisioner: runpod, or leave the volume out",
        )
    try:
        outputs = await _outputs(site, ref)
    except NoSuchStack as error:
        raise NoStackVolume(f"resources.volumes: {error.message}", advice=f"make it: {makes}") from error
    except NoEngine as error:
        advice = (
            f"recipe stack install gets it; or name the volume itself: volumes: [{{name: ID, path: {volume.path}}}]"
        )
        raise NoStackVolume(f"stack {ref} cannot be looked up: {error.message}", advice=advice) from error
    except RecipeError as error:
        raise NoStackVolume(f"stack {ref} cannot be asked: {error.message}", advice=error.advice) from error
    if not outputs.values.get("volume_id"):
        raise NoStackVolume(f"stack {ref} has no volume yet: its update did not get so far", advice=f"go on: {makes}")
    found = _of(ref, outputs, place_on(recipe, volume), site, path=volume.path, grows_by=makes)
    found = replace(found, index=recipe.resources.volumes.index(volume))
    with suppress(NoMachine):  # then the offers say what is wrong
        now = await keeper.find_volume(found.id)
        if now is None:
            raise NoStackVolume(
                f"the volume {found.id} of stack {ref} is not there any more: somebody deleted it",
                advice=f"make another one, empty: {makes}",
            )
        found = replace(found, size_gb=now.size_gb, region=now.region)
    return replace(loaded, recipe=_mounting(recipe, volume, found.id)), found


def mounting(index: int, ref: StackRef) -> tuple[str, str]:
    """The words of a command line by which a recipe's volume is that of this stack."""
    return "--set", f"resources.volumes[{index}].stack={ref}"


async def _outputs(site: Site, ref: StackRef) -> Outputs:
    """As they are, or were a moment ago: a matrix has a plan for each of its runs, and Pulumi takes its time."""
    key = (site.home, site.env.get("PULUMI_BACKEND_URL"), ref)
    asked_at, outputs = _asked.get(key, (-_FRESH_S, None))
    if outputs is None or time.monotonic() - asked_at > _FRESH_S:
        outputs = await outputs_of(site, ref)
        if outputs.source == "pulumi":
            _asked[key] = (time.monotonic(), outputs)
    return outputs


def keeper_of(provisioner: Provisioner) -> VolumeKeeper | None:
    """Who keeps the volumes that its machines mount; None if they mount none that outlive them."""
    name = underlying_of(provisioner)
    keeper = provisioner if name == provisioner.name else registry.provisioner(name)
    return cast(VolumeKeeper, keeper) if hasattr(keeper, "make_volume") else None


def place_on(recipe: Recipe, volume: Volume) -> str | None:
    """The folder of the Hub's library on this volume, from where it is mounted on; None if the model lies elsewhere."""
    path = recipe.model.path
    if path is None:
        return _OWN_CACHE
    if not PurePosixPath(path).is_relative_to(volume.path):
        return None
    return str(PurePosixPath(path).relative_to(volume.path))


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a run has to say of its stack's volume, a sentence each."""

    missed: str = ""
    """The model was not there, although it was said to be."""
    brought: str = ""
    """This run has brought it."""


def after_prepare(
    volume: StackVolume, hub: HubModel, host: Host, downloaded_bytes: int, *, site: Site, run_id: str, at: datetime
) -> Told:
    """Note who brought the model, once it lies on the volume whole."""
    if volume.place is None or host.place(volume.path) != volume.path:
        return Told()
    if not volume.held(hub):
        note_filled(site, volume, hub, run_id, at)
        return Told(brought=f"stack {volume.ref} holds it now; recipe stack up {volume.ref} tells other machines")
    if not downloaded_bytes:
        return Told()
    size = rough_size(downloaded_bytes)
    return Told(missed=f"stack {volume.ref} was said to hold {hub.repo}, and did not: {size} were downloaded again")


def note_filled(site: Site, volume: StackVolume, hub: HubModel, run_id: str, at: datetime) -> None:
    """Write down that a run has brought its model onto the volume. A disk that is full stops nothing."""
    if volume.place is None or volume.held(hub):
        return
    held = Held(
        repo=hub.repo,
        commit=hub.commit,
        files=files_of(hub),
        bytes=hub.bytes,
        file=file_of(hub),
        place=volume.place,
        by=run_id,
        at=at,
    )
    key = hashlib.sha256("\n".join(held.key).encode()).hexdigest()[:16]
    path = _notes(site, volume.id) / f"{key}.json"
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(held.data()) + "\n", private=True)


def noted(site: Site, volume_id: str) -> list[Held]:
    """What runs of this machine have brought onto the volume."""
    found = []
    for path in sorted(_notes(site, volume_id).glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found.append(Held.of(json.loads(path.read_text(encoding="utf-8"))))
    return found


def forget(site: Site, volume_id: str) -> None:
    """A volume that is gone holds nothing."""
    shutil.rmtree(_notes(site, volume_id), ignore_errors=True)


def _of(ref: StackRef, outputs: Outputs, place: str | None, site: Site, *, path: str, grows_by: str) -> StackVolume:
    values = outputs.values
    volume_id = str(values["volume_id"])
    return StackVolume(
        ref=ref,
        id=volume_id,
        region=str(values.get("region") or ""),
        size_gb=int(values.get("size_gb") or 0),
        place=place,
        path=path,
        grows_by=grows_by,
        holds=tuple(merged(*held_in(values), *noted(site, volume_id))),
        seen_at=outputs.at if outputs.source == "kept" else None,
    )


def held_in(values: Mapping[str, Any]) -> list[Held]:
    """What a stack's outputs say that its volume holds."""
    found = []
    for data in values.get("holds") or ():
        with suppress(ValueError, KeyError, TypeError):
            found.append(Held.of(data))
    return found


def files_of(hub: HubModel) -> str:
    """A digest of the files that are fetched: of one repository, engines load different ones."""
    told = sorted((file.name, file.bytes) for file in hub.files)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def file_of(hub: HubModel) -> str:
    """The one file that is the model, with others beside it that are none; else empty."""
    models = [file.name for file in hub.files if file.name.endswith(".gguf")]
    return models[0] if len(models) == 1 else ""


def _mounting(recipe: Recipe, volume: Volume, volume_id: str) -> Recipe:
    volumes = tuple(Volume(path=one.path, name=volume_id) if one is volume else one for one in recipe.resources.volumes)
    resources = recipe.resources.model_copy(update={"volumes": volumes})
    return recipe.model_copy(update={"resources": resources})


def _notes(site: Site, volume_id: str) -> Path:
    return site.home / "stacks" / "filled" / hashlib.sha256(volume_id.encode()).hexdigest()[:16]

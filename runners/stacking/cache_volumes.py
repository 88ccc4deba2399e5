"""The account's volumes that bear a cache's name, and which of them no stack here holds: each bills without end."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from provisioners.contract import Site
from provisioners.named import underlying_of
from provisioners.volumes import StoredVolume, VolumeKeeper
from recipes.errors import NoCredentials, NoMachine, RecipeError, UsageError
from runners import registry
from runners.stack_volumes import held_in, keeper_of
from stacks import kept
from stacks.backend import BACKEND_URL, OWN, key_of
from stacks.model_cache.state import Known, caches
from stacks.model_cache.values import is_of, named, stack_in
from stacks.reference import USUAL, StackRef
from stacks.values import NoSuchStack

_PATIENCE_S = 30.0
State = Literal["held", "unfinished", "twin", "elsewhere", "stray", "unknown"]
"""held: a stack's. unfinished: asked for by an update that could not write it down. twin: another of a stack's name.

elsewhere: this machine has seen a stack of another backend hold it. stray: held by no stack of this backend. unknown:
nobody can say, since the stacks could not be asked.
"""


@dataclass(frozen=True, kw_only=True)
class _Elsewhere:
    """What this machine has seen of a volume's stack in another backend."""

    ref: StackRef
    seen: kept.Kept
    note: Path
    own: bool
    """That of this RECIPE_HOME."""
    whole: bool
    """Whether the backend's URL is noted whole: a password and a query are left out of notes."""

    @property
    def command(self) -> str:
        """What ends it."""
        if self.own:
            return f"env -u {BACKEND_URL} recipe stack destroy {self.ref}"
        if not self.whole:
            return f"with the whole {BACKEND_URL} of {self.seen.backend} set: recipe stack destroy {self.ref}"
        return f"{BACKEND_URL}={shlex.quote(self.seen.backend)} recipe stack destroy {self.ref}"

    def __str__(self) -> str:
        held = held_in(self.seen.values)
        what = f", holding {', '.join(named(one.data()) for one in held)}" if held else ""
        is_service = self.seen.backend.startswith("https://")
        passphrase = "" if self.own or is_service else "; whoever ends it needs that backend's passphrase, too"
        return (
            f"held by stack {self.ref} of {self.seen.backend}, as this machine saw it at {self.seen.at:%Y-%m-%d %H:%M} "
            f"UTC{what}; if that state is lost, remove {self.note} first{passphrase}"
        )


@dataclass(frozen=True, kw_only=True)
class CacheVolume:
    """A network volume that was made for a model cache, by whomever."""

    volume: StoredVolume
    provisioner: str
    usd_per_month: float | None
    state: State
    ref: StackRef
    """The stack that holds it; for which it was made, as its name says, where none does."""
    why: str = ""
    """Why nobody can say."""
    elsewhere: _Elsewhere | None = None

    @property
    def is_loose(self) -> bool:
        """Whether no stack here is known to have it."""
        return self.state in ("stray", "unknown")

    @property
    def command(self) -> str:
        """What ends it."""
        if self.elsewhere is not None:
            return self.elsewhere.command
        if self.state in ("held", "unfinished"):
            return f"recipe stack destroy {self.ref}"
        return f"recipe stack destroy {self.ref} --volume {self.volume.id}"

    @property
    def advice(self) -> str:
        """What is left to whoever wanted to go on with it for a stack of his own."""
        if self.state == "twin":
            return f"{self.command} ends it"
        return f"{self.command.replace('stack destroy', 'stack up')} goes on with it"

    def __str__(self) -> str:
        price = f", ${self.usd_per_month:,.2f}/month" if self.usd_per_month is not None else ""
        return f"volume {self.volume.id}, {self.volume.size_gb} GB in {self.volume.region}{price}"

    @property
    def says(self) -> str:
        """Whose it is."""
        match self.state:
            case "held":
                return f"held by stack {self.ref}"
            case "unfinished":
                return f"of stack {self.ref}, whose update did not come to its end"
            case "twin":
                return f"a second one called {self.volume.name}, which stack {self.ref} does not use"
            case "elsewhere":
                return str(self.elsewhere)
            case "stray":
                return "held by no stack here: of a state that was lost, or of one that is kept elsewhere"
            case _:
                return f"nobody can say here whether a stack holds it: {self.why}"

    def row(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "id": self.volume.id,
            "name": self.volume.name,
            "provider": self.provisioner,
            "size_gb": self.volume.size_gb,
            "region": self.volume.region,
            "usd_per_month": self.usd_per_month,
            "state": self.state,
            "stack": str(self.ref),
            "says": self.says,
            "command": self.command,
        }


async def cache_volumes(site: Site) -> list[CacheVolume]:
    """All of the accounts whose keys are there. Raises NoMachine; NoCredentials where there is no key at all."""
    listed = await _listed()
    if not listed:
        return []
    known, why = list[Known](), ""
    try:
        known = await caches(site)
    except RecipeError as error:
        known, why = _seen_here(site), error.message
    found = [_judged(name, keeper, volume, known, why) for name, keeper, volume in listed]
    seen = _seen_elsewhere(site)
    return [_of_another(one, seen[one.volume.id]) if one.is_loose and one.volume.id in seen else one for one in found]


def _seen_elsewhere(site: Site) -> dict[str, _Elsewhere]:
    """Volumes of stacks that this machine has seen in other backends, by their ids."""
    return {
        str(seen.values["volume_id"]): _Elsewhere(
            ref=ref, seen=seen, note=note, own=note.parent.name == OWN, whole=_is_whole(site, seen.backend, note)
        )
        for note, ref, seen in kept.kept_of_others(site)
        if seen.values.get("volume_id")
    }


def _is_whole(site: Site, url: str, note: Path) -> bool:
    """Whether this URL, as it is shown, is all of that by which the note's folder is called."""
    return "***@" not in url and key_of(replace(site, env={BACKEND_URL: url})) == note.parent.name


def _of_another(one: CacheVolume, elsewhere: _Elsewhere) -> CacheVolume:
    return replace(one, state="elsewhere", ref=elsewhere.ref, why="", elsewhere=elsewhere)


async def others_of(site: Site, ref: StackRef, volume_id: str) -> list[CacheVolume]:
    """Volumes that were made for a stack of this name, and that no stack here knows of; `volume_id` is its own."""
    if not any(is_of(volume.name, ref.name) and volume.id != volume_id for _, _, volume in await _listed()):
        return []
    return [one for one in await cache_volumes(site) if is_of(one.volume.name, ref.name) and one.is_loose]


async def taken_on_by(ref: StackRef, site: Site, asked: str, region: str | None) -> StoredVolume:
    """The volume that is to be gone on with. Raises UsageError for one that is not there, or that a stack has."""
    with suppress(NoSuchStack):
        if has := (await kept.outputs_of(site, ref)).values.get("volume_id"):
            raise UsageError(
                f"stack {ref} has volume {has}: --volume {asked} is for a stack that has none yet",
                advice=f"a second one: recipe stack up {ref.program}/NAME RECIPE --volume {asked}",
            )
    volumes = await cache_volumes(site)
    one = next((one for one in volumes if one.volume.id == asked), None)
    if one is None:
        advice = "recipe stack list shows those that no stack has"
        raise UsageError(f"--volume {asked}: no model cache has left such a volume", advice=advice)
    if not one.is_loose:
        raise UsageError(f"--volume {asked}: {one.says}", advice=one.advice)
    if one.state == "unknown":
        raise UsageError(f"--volume {asked}: {one.says}", advice="recipe stack list says more")
    twins = [other.volume.id for other in volumes if other.volume.name == one.volume.name and other is not one]
    if twins:
        raise UsageError(
            f"--volume {asked}: another one has the same name, {', '.join(twins)}",
            advice=f"end the one that holds nothing: recipe stack destroy {one.ref} --volume {twins[0]}",
        )
    if region not in (None, one.volume.region):
        raise UsageError(
            f"--volume {asked} lies in {one.volume.region}, and no volume can be moved", advice="leave --region out"
        )
    return one.volume


async def _listed() -> list[tuple[str, VolumeKeeper, StoredVolume]]:
    """Those with a cache's name, each with who keeps it."""
    found, keyless = list[tuple[str, VolumeKeeper, StoredVolume]](), list[NoCredentials]()
    keepers = {name: keeper for name in registry.installed().provisioners if (keeper := _keeper(name))}
    for name, keeper in keepers.items():
        try:
            async with asyncio.timeout(_PATIENCE_S):
                found += [(name, keeper, volume) for volume in await keeper.volumes() if stack_in(volume.name)]
        except NoCredentials as error:
            keyless.append(error)
        except TimeoutError:
            message = f"{name} did not list its volumes within {_PATIENCE_S:.0f} s"
            raise NoMachine(message, advice="try again later") from None
    if keyless and len(keyless) == len(keepers):
        raise keyless[0]
    return found


def _keeper(name: str) -> VolumeKeeper | None:
    """One that keeps volumes itself."""
    provisioner = registry.provisioner(name)
    return keeper_of(provisioner) if underlying_of(provisioner) == provisioner.name else None


def _seen_here(site: Site) -> list[Known]:
    """The caches as this machine last saw them, where Pulumi cannot be asked."""
    return [Known(ref=ref, volume=one.values) for ref, one in kept.all_kept(site) if ref.program == "model_cache"]


def _judged(name: str, keeper: VolumeKeeper, volume: StoredVolume, known: Iterable[Known], why: str) -> CacheVolume:
    ref, state = StackRef("model_cache", stack_in(volume.name) or USUAL), _loose(why)
    for one in known:
        if volume.id == one.volume_id:
            ref, state = one.ref, "held"
            break
        if volume.name in one.names:
            ref, state = one.ref, "twin" if one.volume_id else "unfinished"
    usd = keeper.volume_usd_per_month(volume.size_gb)
    return CacheVolume(volume=volume, provisioner=name, usd_per_month=usd, state=state, ref=ref, why=why)


def _loose(why: str) -> State:
    return "unknown" if why else "stray"

"""Volumes of model caches that no stack has: which there are, and the end of one."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from provisioners.contract import Site
from provisioners.naming import owner_name
from provisioners.site import site_of
from recipes.errors import ExitCode, NoCredentials, NoMachine, UsageError
from runners.cli.common import print_json
from stacks.model_cache.values import is_of
from stacks.reference import StackRef

if TYPE_CHECKING:
    from runners.stacking.cache_volumes import CacheVolume


async def volumes_there(site: Site) -> tuple[list[CacheVolume] | None, NoMachine | None]:
    """All that were made for a cache; None, with the reason, where they could not be asked for."""
    from runners.stacking.cache_volumes import cache_volumes

    try:
        return await cache_volumes(site), None
    except NoMachine as error:
        return None, error
    except Exception as error:
        return None, NoMachine(f"{type(error).__name__}: {error}")


def rows_of(volumes: list[CacheVolume] | None) -> list[dict[str, Any]] | None:
    """As JSON has them."""
    return None if volumes is None else [one.row() for one in volumes]


def unused(volumes: list[CacheVolume] | None) -> list[dict[str, Any]]:
    """The rows of those that no stack uses, and that bill all the same."""
    return [one.row() for one in volumes or () if one.state != "held"]


def why_not(error: NoMachine | None) -> str:
    """Why nobody knows of volumes; nothing where there is no key to ask with."""
    if error is None:
        return ""
    if isinstance(error, NoCredentials):
        return f"network volumes were not asked for: {error.message}"
    return f"network volumes could not be asked for: {error.message}"


async def destroy_volume(ref: StackRef, volume_id: str, *, yes: bool, as_json: bool) -> int:
    """Delete one that no stack has, with proof. Raises UsageError for any other, MayStillBillError without a proof."""
    from runners.cli.stack_screen import Screen
    from runners.stacking.cache_volumes import cache_volumes
    from stacks.masks import mask_of
    from stacks.model_cache.lifecycle import Cache

    site, screen = site_of(os.environ), Screen(as_json=as_json)
    async with screen.heeding_signals(f"recipe stack destroy {ref} --volume {volume_id}"):
        with screen.happening(f"looks for volume {volume_id}"):
            one = _meant(ref, volume_id, await cache_volumes(site))
        if one.state == "elsewhere" and (yes or not _somebody_can_be_asked()):
            raise UsageError(f"volume {volume_id} is {one.says}", advice=f"{one.command} ends it")
        screen.print([f"-   delete   {one} ({one.volume.name})", f"    {one.says}; whatever lies on it is lost"])
        if not await screen.agreed("delete this", yes=yes):
            if as_json:
                print_json({"volume": one.row(), "done": False})
            return ExitCode.DONE
        cache = Cache.of(site, one.provisioner, mask_of(site.env))
        with screen.happening(f"deletes volume {volume_id}", changing=True):
            gone = await cache.delete_one(one.volume, owner_name(site.env))
    if as_json:
        print_json({"volume": one.row(), "done": True, "proofs": [gone.proof]})
    else:
        screen.outputs([("gone", gone.proof)])
    return ExitCode.DONE


def _somebody_can_be_asked() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def _meant(ref: StackRef, volume_id: str, volumes: list[CacheVolume]) -> CacheVolume:
    """Raises UsageError for one that a stack has, that nobody can say that of, or that is not there."""
    one = next((one for one in volumes if one.volume.id == volume_id), None)
    if one is None or (one.ref != ref and not is_of(one.volume.name, ref.name)):
        what = f"{volume_id} is no volume that was made for a stack called {ref}"
        raise UsageError(what, advice=one.command if one else "recipe stack list shows those that no stack has")
    if one.state in ("held", "unfinished"):
        raise UsageError(f"volume {volume_id} is {one.says}", advice=f"{one.command} ends it")
    if one.state == "unknown":
        raise UsageError(f"volume {volume_id}: {one.says}", advice="recipe stack list says more")
    return one

"""A cache's network volume as a dynamic resource: made once, grown, never made smaller, never replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pulumi import Input, Output, ResourceOptions
from pulumi.dynamic import (
    CheckResult,
    CreateResult,
    DiffResult,
    ReadResult,
    Resource,
    UpdateResult,
)

from provisioners.volumes import StoredVolume
from recipes.errors import UsageError
from stacks import report
from stacks.agreed import check_agreed
from stacks.model_cache.lifecycle import Cache
from stacks.providing import Name, NameProvider, Provider, plain
from stacks.unique import made_here


class CacheProvider(Provider):
    """What the providers of a cache's resources have in common."""

    def _cache(self, props: Mapping[str, Any]) -> Cache:
        return Cache.of(self._site, str(props["provisioner"]), self._mask)


class VolumeProvider(CacheProvider):
    """Creates, grows, reads and deletes one volume. Also called twice, or after a crash, it makes one at most."""

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """A volume stays where it is, and as large as it is, whatever a recipe needs now."""
        news = {**news, "region": news.get("asked_region") or _olds.get("region") or news["suggested_region"]}
        before_gb = int(_olds.get("size_gb") or 0)
        if int(news["size_gb"]) < before_gb:
            report.say(f"the volume keeps its {before_gb} GB: it can grow, and never be made smaller")
            news["size_gb"] = before_gb
        return CheckResult(news, [])

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """It grows, or is made anew where somebody has deleted it; or a twin of it is there, which ends.

        Raises UsageError for one that is to move.
        """
        with self._told():
            asked, here = _news.get("asked_region"), _olds["region"]
            if asked and asked != here:
                raise UsageError(
                    f"the volume {_olds['volume_id']} lies in {here}, and no volume can be moved to {asked}",
                    advice=f"make a second one: recipe stack up model_cache/NAME --region {asked}; or recipe stack "
                    "destroy first, and all that it holds is lost",
                )
            cache = self._cache(_olds)
            found, twins = asyncio.run(_seen(cache, str(_olds["volume_id"])))
            if found is None:
                report.say(f"volume {_olds['volume_id']} is not there any more: another one is made, and it is empty")
                return DiffResult(changes=True, replaces=[])
            spare = [twin for twin in twins if _is_spare(twin, found, _news)]
            for twin in twins:
                cache.say(_of_twin(twin, found, spare=twin in spare))
            return DiffResult(changes=bool(spare) or int(_news["size_gb"]) > found.size_gb, replaces=[])

    def create(self, props: dict[str, Any]) -> CreateResult:
        with self._told():
            check_agreed("Volume")
            cache = self._cache(props)
            volume = asyncio.run(cache.make(props, fresh=made_here(str(props["unique_name"]))))
            return CreateResult(volume.name, _outs(props, volume, cache))

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        with self._told():
            cache, wanted = self._cache(_news), {**_news, "region": _olds["region"]}
            return UpdateResult(_outs(wanted, asyncio.run(_adjusted(cache, str(_olds["volume_id"]), wanted)), cache))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        with self._told():
            cache = self._cache(props)
            volume = asyncio.run(cache.provisioner.find_volume(str(props["volume_id"])))
            return ReadResult("", {}) if volume is None else ReadResult(id_, _outs(props, volume, cache))

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """With proof. Raises with name, price and command where there is none."""
        with self._told():
            cache = self._cache(_props)
            gone = asyncio.run(cache.delete(_stored(_props), str(_props["owner"])))
            cache.say(gone.proof)


class VolumeNameProvider(NameProvider, CacheProvider):
    """The volume's, and whatever fills it."""

    async def end(self, props: Mapping[str, Any]) -> None:
        await self._cache(props).delete_unnamed(str(props["unique_name"]), str(props["owner"]))


class VolumeName(Name, module="recipe", name="VolumeName"):
    """The name of a volume."""


class CacheVolume(Resource, module="recipe", name="Volume"):
    """A network volume."""

    volume_id: Output[str]
    """As the provider calls it."""
    size_gb: Output[int]
    region: Output[str]
    usd_per_month: Output[float]

    def __init__(
        self,
        name: str,
        *,
        provisioner: str,
        owner: str,
        unique_name: Input[str],
        size_gb: int,
        asked_region: str,
        suggested_region: str,
        taken_on: bool = False,
        opts: ResourceOptions | None = None,
    ) -> None:
        """`asked_region` may be empty: then a new one is made in the suggested region, any other stays where it is.

        `taken_on`: it was there before this stack, and so were others of its name, whatever lies on them.
        """
        props: dict[str, Any] = {
            "provisioner": provisioner,
            "owner": owner,
            "unique_name": unique_name,
            "size_gb": size_gb,
            "asked_region": asked_region,
            "suggested_region": suggested_region,
            "taken_on": taken_on,
            "region": None,
            "volume_id": None,
            "usd_per_month": None,
        }
        super().__init__(VolumeProvider(), name, props, opts)


async def _seen(cache: Cache, volume_id: str) -> tuple[StoredVolume | None, list[StoredVolume]]:
    """The volume, and others of its name."""
    found = await cache.provisioner.find_volume(volume_id)
    return found, [] if found is None else await cache.twins(found)


async def _adjusted(cache: Cache, volume_id: str, wanted: Mapping[str, Any]) -> StoredVolume:
    """The volume as it is to be, and no twin of it."""
    volume = await cache.adjust(volume_id, wanted)
    for twin in await cache.twins(volume):
        if _is_spare(twin, volume, wanted):
            cache.say((await cache.delete_one(twin)).proof)
    return volume


def _is_spare(twin: StoredVolume, volume: StoredVolume, wanted: Mapping[str, Any]) -> bool:
    """Whether nothing can lie on it: the stack has made the name, for one request, and told of the other one alone.

    One that somebody has grown, or made elsewhere, is his.
    """
    return not wanted.get("taken_on") and twin.region == volume.region and twin.size_gb <= volume.size_gb


def _of_twin(twin: StoredVolume, volume: StoredVolume, *, spare: bool) -> str:
    what = f"RunPod has a second volume called {twin.name}: {twin.id}, {twin.size_gb} GB in {twin.region}"
    if spare:
        return f"{what}; nothing was ever brought onto it, so recipe stack up deletes it and keeps {volume.id}"
    return f"{what}; it bills, and nobody here knows what lies on it: recipe stack list says how it is ended"


def _stored(props: Mapping[str, Any]) -> StoredVolume:
    """The volume as the state has it."""
    return StoredVolume(
        id=str(props["volume_id"]),
        name=str(props["unique_name"]),
        size_gb=int(props["size_gb"]),
        region=str(props["region"]),
    )


def _outs(props: Mapping[str, Any], volume: StoredVolume, cache: Cache) -> dict[str, Any]:
    """What the state keeps: nothing of Pulumi's own."""
    return {
        **plain(props),
        "volume_id": volume.id,
        "size_gb": volume.size_gb,
        "region": volume.region,
        "usd_per_month": cache.provisioner.volume_usd_per_month(volume.size_gb),
    }

"""A cache's network volume as a dynamic resource: made once, grown, never made smaller, never replaced."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from pulumi import Input, Output, ResourceOptions
from pulumi.dynamic import (
    CheckResult,
    ConfigureRequest,
    CreateResult,
    DiffResult,
    ReadResult,
    Resource,
    ResourceProvider,
    UpdateResult,
)

from provisioners.contract import Site
from provisioners.masking import Mask
from provisioners.site import site_of
from provisioners.volumes import StoredVolume
from recipes.errors import RecipeError, UsageError
from stacks import report
from stacks.masks import mask_of
from stacks.model_cache.lifecycle import Cache
from stacks.unique import made_here

T = TypeVar("T")


class CacheFailed(Exception):
    """What went wrong, for people: Pulumi shows it as it is."""


class CacheProvider(ResourceProvider):
    """What the providers of a cache's resources have in common; nothing of it is kept in the state."""

    serialize_as_secret_always = False

    _site: Site
    _mask: Mask

    def __reduce__(self) -> tuple[type[CacheProvider], tuple[()]]:
        """The name of its class: nothing that was configured travels."""
        return type(self), ()

    def configure(self, req: ConfigureRequest) -> None:
        """Where things lie, and with which key: from the environment, in the process that needs it."""
        env = dict(os.environ)
        self._site, self._mask = site_of(env), mask_of(env)

    def _cache(self, props: Mapping[str, Any]) -> Cache:
        return Cache.of(self._site, str(props["provisioner"]), self._mask)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What fails within is reported, and handed to Pulumi in words that hold no secret."""
        try:
            yield
        except Exception as error:
            report.tell_failed(error)
            text = str(error) if isinstance(error, RecipeError) else f"{type(error).__name__}: {error}"
            advice = f"\n{error.advice}" if isinstance(error, RecipeError) and error.advice else ""
            raise CacheFailed(self._mask(text + advice)) from None


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
        """It grows, or is made anew where somebody has deleted it. Raises UsageError for one that is to move."""
        with self._told():
            asked, here = _news.get("asked_region"), _olds["region"]
            if asked and asked != here:
                raise UsageError(
                    f"the volume {_olds['volume_id']} lies in {here}, and no volume can be moved to {asked}",
                    advice=f"make a second one: recipe stack up model_cache/NAME --region {asked}; or recipe stack "
                    "destroy first, and all that it holds is lost",
                )
            found = _run(self._cache(_olds).provisioner.find_volume(str(_olds["volume_id"])))
            if found is None:
                report.say(f"volume {_olds['volume_id']} is not there any more: another one is made, and it is empty")
            return DiffResult(changes=found is None or int(_news["size_gb"]) > found.size_gb, replaces=[])

    def create(self, props: dict[str, Any]) -> CreateResult:
        with self._told():
            cache = self._cache(props)
            volume = _run(cache.make(props, fresh=made_here(str(props["unique_name"]))))
            return CreateResult(volume.name, _outs(props, volume, cache))

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        with self._told():
            cache, wanted = self._cache(_news), {**_news, "region": _olds["region"]}
            return UpdateResult(_outs(wanted, _run(cache.adjust(str(_olds["volume_id"]), wanted)), cache))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        with self._told():
            cache = self._cache(props)
            volume = _run(cache.provisioner.find_volume(str(props["volume_id"])))
            return ReadResult("", {}) if volume is None else ReadResult(id_, _outs(props, volume, cache))

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """With proof. Raises with name, price and command where there is none."""
        with self._told():
            cache = self._cache(_props)
            gone = _run(cache.delete(str(_props["volume_id"]), str(_props["unique_name"]), str(_props["owner"])))
            cache.say(gone.proof)


class VolumeNameProvider(CacheProvider):
    """Makes nothing; what bears the name is deleted with it, also where Pulumi's state knows of no such volume."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        name = str(props["unique_name"])
        return CreateResult(name, {key: value for key, value in props.items() if not key.startswith("__")})

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        replaces = ["unique_name"] if _olds["unique_name"] != _news.get("unique_name") else []
        return DiffResult(changes=bool(replaces), replaces=replaces)

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """An update that died may have made a volume without being able to say so."""
        with self._told():
            _run(self._cache(_props).delete_unnamed(str(_props["unique_name"]), str(_props["owner"])))


class VolumeName(Resource, module="recipe", name="VolumeName"):
    """The name of a volume, in the state before the volume is asked for."""

    unique_name: Output[str]

    def __init__(
        self,
        name: str,
        *,
        provisioner: str,
        owner: str,
        unique_name: Input[str],
        opts: ResourceOptions | None = None,
    ) -> None:
        props = {"provisioner": provisioner, "owner": owner, "unique_name": unique_name}
        super().__init__(VolumeNameProvider(), name, props, opts)


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
        opts: ResourceOptions | None = None,
    ) -> None:
        """`asked_region` may be empty: then a new one is made in the suggested region, any other stays where it is."""
        props: dict[str, Any] = {
            "provisioner": provisioner,
            "owner": owner,
            "unique_name": unique_name,
            "size_gb": size_gb,
            "asked_region": asked_region,
            "suggested_region": suggested_region,
            "region": None,
            "volume_id": None,
            "usd_per_month": None,
        }
        super().__init__(VolumeProvider(), name, props, opts)


def _outs(props: Mapping[str, Any], volume: StoredVolume, cache: Cache) -> dict[str, Any]:
    """What the state keeps: nothing of Pulumi's own."""
    return {
        **{key: value for key, value in props.items() if not key.startswith("__")},
        "volume_id": volume.id,
        "size_gb": volume.size_gb,
        "region": volume.region,
        "usd_per_month": cache.provisioner.volume_usd_per_month(volume.size_gb),
    }


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Pulumi's provider calls from threads of its own."""
    return asyncio.run(work)

"""A model on a cache's volume, as a dynamic resource: downloaded once, by a machine that is let go again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from pulumi import Input, Output, ResourceOptions
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource
from pulumi.output import Unknown

from provisioners.volumes import StoredVolume
from recipes.errors import NoMachine
from stacks.agreed import check_agreed
from stacks.model_cache.filling import Filling
from stacks.model_cache.values import Held
from stacks.model_cache.volume import CacheProvider

_IS = ("volume_id", "repo", "commit", "files", "place")
"""What makes it another model, or the same one elsewhere."""
_UNTOLD = ("order", "secrets", "gated", "max_price", "noted")


class DownloadProvider(CacheProvider):
    """Rents a machine where the model is not known to be there, and lets it go."""

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Another model, or another volume. A preview of an update of the volume does not know its id.

        It keeps it, unless somebody has deleted it: then it is made anew, and is empty.
        """
        replaces = [key for key in _IS if _olds.get(key) != _news.get(key) and not isinstance(_news.get(key), Unknown)]
        if isinstance(_news.get("volume_id"), Unknown):
            with self._told():
                found = asyncio.run(self._cache(_olds).provisioner.find_volume(str(_olds["volume_id"])))
            replaces += [] if found else ["volume_id"]
        return DiffResult(changes=bool(replaces), replaces=replaces, delete_before_replace=False)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """The model, whole, on the volume. One that a run has brought costs nothing."""
        with self._told():
            held = self._noted(props)
            if held is None:
                check_agreed("Model")
                held = asyncio.run(self._fill(props))
            told = {key: value for key, value in props.items() if key not in _UNTOLD and not key.startswith("__")}
            return CreateResult(f"{held.repo}@{held.commit}", {**told, "held": held.data()})

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Nobody can look onto a volume without a machine."""
        return ReadResult(id_, {key: value for key, value in props.items() if not key.startswith("__")})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """The files stay where they are; they end with the volume."""

    def _noted(self, props: Mapping[str, Any]) -> Held | None:
        noted = props.get("noted") or {}
        return Held.of(noted) if noted.get("volume_id") == props["volume_id"] else None

    async def _fill(self, props: Mapping[str, Any]) -> Held:
        cache = self._cache(props)
        volume: StoredVolume | None = await cache.provisioner.find_volume(str(props["volume_id"]))
        if volume is None:
            raise NoMachine(
                f"volume {props['volume_id']} is not there any more", advice="recipe stack up makes another"
            )
        return await Filling(cache=cache, volume=volume, props=props, env=dict(os.environ)).run()


class ModelDownload(Resource, module="recipe", name="Model"):
    """A model that lies on a volume."""

    held: Output[dict[str, Any]]
    """As `Held.data` gives it."""

    def __init__(self, name: str, *, volume_id: Input[str], opts: ResourceOptions | None = None, **props: Any) -> None:
        """`props`: provisioner, owner, repo, commit, files, bytes, place, file, order, secrets, gated, lasts_s,
        max_price, noted.

        `order` is one that was packed, without secrets; `secrets` are names of variables, which only the process that
        rents the machine reads. `max_price`, if any, is the most that it may cost, in USD per hour. `noted` says, if it
        can, who brought the model and onto which volume.
        """
        super().__init__(DownloadProvider(), name, {"volume_id": volume_id, **props, "held": None}, opts)

"""A pod as a dynamic resource. Its provider holds nothing: what it needs it reads from its process's environment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from pulumi import Input, Output, ResourceOptions
from pulumi.dynamic import (
    CreateResult,
    DiffResult,
    ReadResult,
    Resource,
    UpdateResult,
)

from provisioners.contract import Lease
from provisioners.naming import lease_name
from stacks import report
from stacks.agreed import check_agreed
from stacks.backend import where
from stacks.gpu_pod.lifecycle import Keeper, lease_in
from stacks.holding import Place, held, in_backend, minded, unminded
from stacks.orders import lease_data, unpack
from stacks.providing import Name, NameProvider, Provider, plain
from stacks.reference import StackRef
from stacks.unique import UniqueNameProvider, made_here

_REPLACES = ("run", "wanted", "provisioner")
_UPDATES = ("max_price", "release_s")
_KEPT = ("unique_name", "deadline", "made_at", "lease", "state")
_URL = "PULUMI_BACKEND_URL"
_UNTOLD = ("order",)
"""Of the inputs: it may hold secrets, and nobody asks for it again once the pod is there."""


class GpuPodProvider(Provider):
    """Creates, reads, replaces and deletes one pod. Also called twice, or after a crash, it has one at most."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        """The pod of this unique name: found, or else rented."""
        with self._told():
            check_agreed("GpuPod")
            request = unpack(props["order"])
            run_id, name = str(props["run"]), str(props["unique_name"])
            deadline = datetime.fromisoformat(props["deadline"]) if props.get("deadline") else None
            lease = replace(request.order.lease, run_id=run_id, name=name, deadline=deadline)
            lease = _kept(replace(lease, details={**lease.details, **(props.get("details") or {})}))
            if _URL in self._site.env:  # else it is whatever `pulumi login` says
                lease = in_backend(lease, where(self._site))
            is_new = not props.get("made_at") or made_here(run_id)
            made_at = None if is_new else datetime.fromisoformat(props["made_at"])
            request = request.with_lease(lease)
            retry_s = request.order.resources.retry
            keeper = self._keeper(props)
            standing = asyncio.run(keeper.create(request, made_at=made_at, retry_s=retry_s))
            outs = {**_shown(props), "lease": lease_data(unminded(standing)), "state": "starting"}
            return CreateResult(standing.id or standing.name, outs)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Another wish is another pod, and so is one that has ended by itself; what it may cost is only noted.

        Which offers there are now says nothing of a pod that runs.
        """
        replaces = [key for key in _REPLACES if _olds.get(key) != _news.get(key)]
        if not replaces and _olds.get("lease"):
            with self._told():
                if asyncio.run(self._keeper(_olds).is_over(lease_in(_olds))):
                    replaces.append("run")
        updates = [key for key in _UPDATES if _olds.get(key) != _news.get(key)]
        return DiffResult(changes=bool(replaces or updates), replaces=replaces, delete_before_replace=True)

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """As RunPod has it now; one that has ended is told as absent. What cannot be asked stays as it was."""
        with self._told():
            seen = asyncio.run(self._keeper(props).observe(lease_in(props)))
            if seen.state == "gone":
                return ReadResult("", {})
            state = props.get("state") if seen.state == "unknown" else seen.state
            return ReadResult(id_, {**_shown(props), "state": state})

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """The pod itself is as it was."""
        return UpdateResult({**_shown(_news), **{key: _olds[key] for key in _KEPT if key in _olds}})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Let it go, with proof. Raises with name, price and command where there is none."""
        with self._told():
            asyncio.run(self._keeper(_props).delete(lease_in(_props), patience_s=float(_props.get("release_s") or 60)))

    def _keeper(self, props: Mapping[str, Any]) -> Keeper:
        return Keeper.of(self._site, str(props["provisioner"]), self._mask)


class PodsTimeProvider(UniqueNameProvider):
    """A unique name's, whose time is a pod's: without a pod it is of no use to go on with what is left of it."""

    def is_free(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
        words, made_at = olds.get("words") or {}, str(olds.get("made_at") or "")
        if not words or not made_at or not olds.get("deadline"):
            return False
        run_id = f"{words['recipe']}-{olds['stamp']}-{olds['suffix']}"
        name = pod_name(words["owner"], run_id, olds["deadline"])
        with self._told():
            keeper = Keeper.of(self._site, str(news["provisioner"]), self._mask)
            lease = Lease(provider=str(news["provisioner"]), name=name, run_id=run_id)
            return not asyncio.run(keeper.is_borne(lease, datetime.fromisoformat(made_at)))


class PodNameProvider(NameProvider):
    """The pod's."""

    async def end(self, props: Mapping[str, Any]) -> None:
        provisioner, name = str(props["provisioner"]), str(props["unique_name"])
        lease = Lease(provider=provisioner, name=name, run_id=str(props["run"]))
        await Keeper.of(self._site, provisioner, self._mask).delete_unnamed(lease)


class PodName(Name, module="recipe", name="PodName"):
    """The name of a pod."""


class GpuPod(Resource, module="recipe", name="GpuPod"):
    """A rented machine that holds a recipe's engine and model."""

    lease: Output[dict[str, Any]]
    """As in the journal: id, name, run_id, price_usd_per_h, storage_usd_per_h, deadline, details."""
    state: Output[str]
    """As it was when it was looked at last."""

    def __init__(
        self,
        name: str,
        *,
        provisioner: str,
        unique_name: Input[str],
        run: Input[str],
        deadline: Input[str],
        order: Input[str],
        wanted: Mapping[str, Any],
        made_at: Input[str] | None = None,
        max_price: float | None = None,
        release_s: float | None = None,
        details: Mapping[str, Any] | None = None,
        opts: ResourceOptions | None = None,
    ) -> None:
        """`order` is one that was packed; it becomes a secret. If `wanted` changes, another pod is needed.

        `deadline` and `made_at` are ISO 8601: since when the unique name exists, None if it was made just now.
        """
        props: dict[str, Any] = {
            "provisioner": provisioner,
            "unique_name": unique_name,
            "run": run,
            "deadline": deadline,
            "made_at": made_at,
            "order": Output.secret(order),
            "wanted": dict(wanted),
            "max_price": max_price,
            "release_s": release_s,
            "details": dict(details or {}),
            "lease": None,
            "state": None,
        }
        super().__init__(GpuPodProvider(), name, props, opts)


def pod_name(owner: str, run_id: str, deadline: str) -> str:
    """What a pod is called; `deadline` is ISO 8601."""
    return lease_name(owner, run_id, datetime.fromisoformat(deadline))


def _kept(lease: Lease) -> Lease:
    """Minded by whoever hears this until its update has come to its end.

    By its stack, where nobody does: after a plain `pulumi up` nobody comes who could say that it is used.
    """
    place, client = Place.of(lease), report.client()
    if place.own:  # its run minds it
        return lease
    if report.VARIABLE not in os.environ:
        return held(lease, StackRef.of(place.project, place.name))
    return minded(lease, client) if client else lease


def _shown(props: dict[str, Any]) -> dict[str, Any]:
    """What the state keeps in clear: no secret, and nothing of Pulumi's own."""
    return {key: value for key, value in plain(props).items() if key not in _UNTOLD}

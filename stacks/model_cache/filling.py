"""Fills a volume with a model: a cheap machine mounts it, downloads, and is let go with proof whatever happens."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from provisioners.acquire import Acquisition, describe
from provisioners.contract import BootJob, Host, Lease, Offer, Order
from provisioners.naming import lease_name
from provisioners.preflight import clear
from provisioners.volumes import StoredVolume
from recipes.errors import HostCommandFailed, NoCapacity, NoMachine, UsageError
from recipes.spec import Resources, Volume
from recipes.units import rough_share
from stacks import report
from stacks.holding import minded
from stacks.model_cache.lifecycle import Cache, let_go, tag_of
from stacks.model_cache.values import Held, named
from stacks.orders import lease_data, unpack
from stacks.unique import STAMP

_MOST_OFFERS = 8
_TELL_EVERY_S, _TELL_WAIT_S = 5.0, 20.0


@dataclass(frozen=True, kw_only=True)
class Filling:
    """One model onto one volume."""

    cache: Cache
    volume: StoredVolume
    props: Mapping[str, Any]
    """What the resource was given."""
    env: Mapping[str, str] = field(repr=False)
    """Of this process: where the secrets of the download are."""

    async def run(self) -> Held:
        """The model, once it lies there whole.

        Raises UsageError without the token that it takes, NoMachine where no machine can be had, HostCommandFailed for
        a download that fails, MayStillBillError.
        """
        cache, props = self.cache, self.props
        missing = [name for name in props["secrets"] if not self.env.get(name)]
        if props.get("gated") and missing:
            raise UsageError(f"{props['repo']} is gated, and {missing[0]} is not set", advice=f"export {missing[0]}=…")
        await cache.end_fillers(tag_of(self.volume.name), str(props["owner"]))
        offers = await self._offers()
        order = self._order(offers[0])
        acquisition, limit = Acquisition(cache.provisioner, cache.journal), asyncio.timeout(float(props["lasts_s"]))
        try:
            async with limit:
                lease = await acquisition.get(offers, lambda offer: _with(order, offer), clear(()), note=cache.say)
                report.tell_created(lease.name, lease_data(lease))
                told = describe(acquisition.offer) if acquisition.offer else lease.name
                cache.say(f"{told} for ${lease.usd_per_h or 0:.2f}/h downloads {named(props)}")
                async with self._waiting("waits until the machine can be reached"):
                    host = await cache.provisioner.host(lease)
                await self._download(host, order)
                acquisition.reached()
        except TimeoutError as error:
            if not limit.expired():
                raise
            what = f"{named(props)} was not downloaded in {float(props['lasts_s']) / 60:.0f} minutes"
            raise HostCommandFailed(what, advice="run it again: what is there already stays") from error
        finally:
            await self._let_go(acquisition.lease)
        now = datetime.now(UTC)
        return Held(
            repo=str(props["repo"]),
            commit=str(props["commit"]),
            files=str(props["files"]),
            bytes=int(props["bytes"]),
            file=str(props.get("file") or ""),
            place=str(props["place"]),
            by=f"{lease.run_id} on {told}",
            at=now,
        )

    async def _offers(self) -> list[Offer]:
        """The cheapest machines, none above limits.max_price. Raises NoCapacity where there is none."""
        offers, most = await self.cache.provisioner.fillers(self.volume), self.props.get("max_price")
        found = [offer for offer in offers if most is None or (offer.price_usd_per_h or 0.0) <= most]
        if found:
            return found[:_MOST_OFFERS]
        otherwise = "name its recipe without --fill, and the first run fills it"
        if not offers:
            what = f"no machine can be had in {self.volume.region} that could fill the volume"
            raise NoCapacity(what, advice=f"try again later; or {otherwise}")
        price = offers[0].price_usd_per_h or 0.0
        raise NoCapacity(
            f"the cheapest machine in {self.volume.region} that could fill the volume takes ${price:.2f}/h, above "
            f"limits.max_price ${most:.2f}/h",
            advice=f"name the recipe with --set limits.max_price={price:g}; or {otherwise}",
        )

    def _order(self, offer: Offer) -> Order:
        """What is asked for with this offer, under a name by which it is recognised later."""
        props, now = self.props, datetime.now(UTC)
        packed = unpack(str(props["order"])).order
        run_id = f"{tag_of(self.volume.name)}-{now.strftime(STAMP)}-{secrets.token_hex(2)}"
        deadline = now + timedelta(seconds=float(props["lasts_s"]))
        provider, name = str(props["provisioner"]), lease_name(str(props["owner"]), run_id, deadline)
        (mounted,) = packed.resources.volumes
        resources = _changed(packed.resources, Volume(path=mounted.path, name=self.volume.id))
        found = {name: self.env[name] for name in props["secrets"] if name in self.env}
        return replace(
            packed,
            offer=offer,
            max_price_usd_per_h=props.get("max_price"),
            lease=minded(replace(packed.lease, provider=provider, name=name, run_id=run_id, deadline=deadline)),
            resources=resources,
            boot=replace(packed.boot, env={**packed.boot.env, **found}),
        )

    async def _download(self, host: Host, order: Order) -> None:
        """Join the download that the machine began at its start. Raises HostCommandFailed."""
        try:
            (mounted,) = order.resources.volumes
            if host.place(mounted.path) != mounted.path:
                raise NoMachine(
                    f"the machine has not mounted the volume at {mounted.path}: it would fill a disk that ends with it",
                    advice="try again",
                )
            (job,) = order.boot.jobs
            async with self._waiting("waits until the machine is ready"):
                await host.ready_for(order.boot)
            heard = _Heard(self.cache, named(self.props))
            argv = _placed(job, host)
            process = await host.start(job.name, argv, env=order.boot.env, on_output=heard.take)
            status = await process.wait()
            await process.catch_up()
            heard.raise_unless_done(status)
        finally:
            with suppress(Exception):
                await asyncio.wait_for(host.close(), 5)

    @asynccontextmanager
    async def _waiting(self, what: str) -> AsyncIterator[None]:
        """What is waited for is said at once, and that it goes on now and then."""

        async def goes_on() -> None:
            begun_s = time.monotonic()
            while True:
                await asyncio.sleep(_TELL_WAIT_S)
                self.cache.say(f"{what}, for {time.monotonic() - begun_s:.0f} s so far")

        self.cache.say(what)
        saying = asyncio.create_task(goes_on())
        try:
            yield
        finally:
            saying.cancel()

    async def _let_go(self, lease: Lease | None) -> None:
        """Always, and with proof. Raises MayStillBillError."""
        if lease is not None:
            gone = await let_go(self.cache.provisioner, self.cache.journal, lease)
            report.tell_released(lease.name, self.cache.mask(gone.proof))
            self.cache.say(f"{lease.name} is gone: {gone.proof}")


class _Heard:
    """What the download says, a JSON object a line."""

    def __init__(self, cache: Cache, what: str) -> None:
        self._cache, self._what, self._rest = cache, what, b""
        self._said: dict[str, Any] = {}
        self._last = ""
        self._told_at = time.monotonic()
        self._before = 0

    def take(self, block: bytes) -> None:
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            self._line(line.decode("utf-8", "replace"))

    def _line(self, line: str) -> None:
        self._last = line.strip() or self._last
        if not line.startswith("{"):
            return
        with suppress(ValueError):
            self._said |= json.loads(line)
        progress = self._said.pop("progress", None)
        passed_s = time.monotonic() - self._told_at
        if not progress or passed_s < _TELL_EVERY_S:
            return
        rate = (progress["bytes"] - self._before) / passed_s / 1e6
        self._told_at, self._before = time.monotonic(), progress["bytes"]
        share = rough_share(progress["bytes"], progress["total"])
        self._cache.say(f"{self._what}: {share} at {max(0.0, rate):,.1f} MB/s")

    def raise_unless_done(self, status: int) -> None:
        if "path" in self._said:
            return
        error = self._said.get("error") or {}
        message = error.get("message") or f"the download ended with exit status {status}: {self._last}"
        raise HostCommandFailed(self._cache.mask(message), advice=error.get("advice") or "run it again")


def _with(order: Order, offer: Offer) -> Order:
    price, storage = offer.price_usd_per_h, offer.storage_usd_per_h
    return replace(order, offer=offer, lease=replace(order.lease, price_usd_per_h=price, storage_usd_per_h=storage))


def _changed(resources: Resources, volume: Volume) -> Resources:
    return resources.model_copy(update={"volumes": (volume,)})


def _placed(job: BootJob, host: Host) -> list[str]:
    """The command as it reads there."""
    words = {"{python}": host.python, "{work}": str(host.work_dir), "{cache}": str(host.cache_dir)}
    argv = list(job.argv)
    for word, value in words.items():
        argv = [part.replace(word, value) for part in argv]
    return argv

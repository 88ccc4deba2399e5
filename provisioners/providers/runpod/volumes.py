"""RunPod's network volumes: made so that there is exactly one of a name, grown, and deleted with proof."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf

from provisioners.at_once import all_of
from provisioners.contract import MayStillBill, Offer, Release, Site
from provisioners.providers.runpod import offers
from provisioners.providers.runpod.answers import (
    ApiError,
    CapacityRefused,
    Forbidden,
    NotFound,
    Refusal,
    as_no_machine,
)
from provisioners.providers.runpod.cloud import Kind
from provisioners.providers.runpod.pace import Pace
from provisioners.providers.runpod.purchase import Attempt, buy, keep_one
from provisioners.providers.runpod.release import let_go
from provisioners.providers.runpod.rest import RestCloud
from provisioners.providers.runpod.settings import Settings
from provisioners.providers.runpod.values import DataCenter, NetworkVolume
from provisioners.storage_prices import storage_prices
from provisioners.volumes import Place, Stocked, StoredVolume
from recipes.errors import NoMachine
from recipes.spec import Resources

STORAGE_URL = "https://console.runpod.io/user/storage"
VOLUME = Kind("network volume", f"delete it by hand: {STORAGE_URL}")
_FIRST_GB = 1000
_IN_USE_S = 15.0
"""For so long a pod that ends may have its volume; whoever has it then goes on using it, and a delete gives up."""
_STOCK = ("high", "medium", "low", "none")


@dataclass(frozen=True)
class _Wish:
    """A network volume that is asked for."""

    name: str
    size_gb: int
    region: str


@dataclass(frozen=True)
class _Shown:
    """A network volume as something that is rented."""

    volume: NetworkVolume

    status = "there"
    terminated = False

    @property
    def id(self) -> str:
        return self.volume.id

    @property
    def name(self) -> str:
        return self.volume.name


@dataclass
class _Shelf:
    """The account's network volumes, got and let go of as pods are."""

    rest: RestCloud
    refusals: list[str] = field(default_factory=list)
    """What RunPod said of deletes that it refused."""
    refused_at: float | None = None
    """Since when."""

    async def create(self, wish: _Wish) -> _Shown:
        return _Shown(await self.rest.create_volume(wish.name, wish.size_gb, wish.region))

    async def pods(self, *, again_s: float | None = None) -> list[_Shown]:
        return [_Shown(volume) for volume in await self.rest.volumes(again_s=again_s)]

    async def pod(self, pod_id: str, *, again_s: float | None = None) -> _Shown:
        return _Shown(await self.rest.volume(pod_id, again_s=again_s))

    async def end(self, pod_id: str) -> None:
        try:
            await self.rest.end_volume(pod_id)
        except CapacityRefused as error:
            self.refusals.append(error.what)
            self.refused_at = self.refused_at or time.monotonic()
            if time.monotonic() - self.refused_at >= _IN_USE_S:
                raise Forbidden(error.what) from error
            raise

    async def of_name(self, name: str) -> list[_Shown]:
        return [shown for shown in await self.pods() if shown.name == name]

    async def find(self, name: str, look_s: float, every_s: float) -> list[_Shown]:
        """Those of this name, as soon as a list has any; a new one can be missing from lists for a while."""
        end = time.monotonic() + look_s
        while not (found := await self.of_name(name)) and time.monotonic() < end:
            await asyncio.sleep(every_s)
        return found


class VolumeKeeping:
    """Implements VolumeKeeper, over REST: the part of RunPod's provisioner that has to do with network volumes."""

    volumes_page = STORAGE_URL
    smallest_gb = 10
    largest_gb = 4096

    _site: Site
    _pace: Pace

    def volume_usd_per_month(self, size_gb: int) -> float | None:
        """At the prices of storage_prices.csv: assumed, since no catalogue tells them."""
        prices = storage_prices("runpod")
        first = min(size_gb, _FIRST_GB)
        above = (size_gb - first) * prices["network-above-1000-gb"].usd_per_gb_month
        return round(first * prices["network"].usd_per_gb_month + above, 2)

    async def places(self, wanted: Sequence[Resources]) -> list[Place]:
        async with self._rest() as rest:
            wishes = await all_of(_offers_everywhere(rest, one) for one in wanted)
            centers = await rest.data_centers()
        ranked = [_ranked(center, wishes) for center in centers if center.volume_types]
        return [place for _, place in sorted(ranked, key=lambda one: one[0])]

    async def volumes(self) -> list[StoredVolume]:
        async with self._rest() as rest:
            return [_stored(volume) for volume in await rest.volumes()]

    async def find_volume(self, volume_id: str) -> StoredVolume | None:
        async with self._rest() as rest:
            try:
                return _stored(await rest.volume(volume_id))
            except NotFound:
                return next((_stored(v) for v in await rest.volumes() if v.id == volume_id), None)

    async def make_volume(self, name: str, size_gb: int, region: str, *, fresh: bool = False) -> StoredVolume:
        attempt = Attempt(kind=VOLUME)
        async with self._rest() as rest:
            shelf = _Shelf(rest)
            found = await shelf.find(name, 0.0 if fresh else self._pace.unnamed_settle_s, self._pace.look_every_s)
            if not found:
                try:
                    found = [await buy(shelf, _Wish(name, size_gb, region), self._pace, attempt)]
                except CapacityRefused as error:
                    advice = "choose another one with --region; recipe offers lists where GPUs are"
                    raise NoMachine(f"RunPod makes no volume in {region}: {error.what}", advice=advice) from error
                except Refusal as error:
                    raise as_no_machine(error) from error
                await asyncio.sleep(self._pace.twins_s)
                found += await shelf.of_name(name)
            return _stored((await keep_one(shelf, found, self._pace, attempt)).volume)

    async def grow_volume(self, volume_id: str, size_gb: int) -> StoredVolume:
        async with self._rest() as rest:
            try:
                now = await rest.volume(volume_id)
                if (now.size_gb or 0) < size_gb:
                    await rest.grow_volume(volume_id, size_gb)
                    now = await rest.volume(volume_id)
            except NotFound as error:
                raise NoMachine(
                    f"RunPod has no network volume {volume_id}: somebody deleted it",
                    advice="recipe stack up makes another; what was on it is lost",
                ) from error
        if (now.size_gb or 0) < size_gb:
            raise NoMachine(
                f"RunPod accepted that volume {volume_id} grows to {size_gb} GB, and still has {now.size_gb} GB",
                advice=f"try again; see {STORAGE_URL}",
            )
        return _stored(now)

    async def delete_volume(self, volume_id: str | None, name: str, *, patience_s: float = 60.0) -> Release:
        return await self._delete([volume_id] if volume_id else [], name, patience_s)

    async def delete_one(self, volume: StoredVolume, *, patience_s: float = 60.0) -> Release:
        return await self._delete([volume.id], volume.name, patience_s, whole_name=False)

    async def _delete(self, ids: list[str], name: str, patience_s: float, *, whole_name: bool = True) -> Release:
        try:
            async with self._rest() as rest:
                shelf = _Shelf(rest)
                release = await let_go(
                    shelf, name, ids, self._pace, patience_s=patience_s, whole_name=whole_name, kind=VOLUME
                )
        except NoMachine as error:
            return MayStillBill(error.message, VOLUME.command)
        if isinstance(release, MayStillBill) and shelf.refusals:
            why = f"{release.reason}; RunPod said: {shelf.refusals[-1]}"
            return MayStillBill(why, f"recipe ps shows what still runs and may have it; then {VOLUME.command}")
        return release

    async def fillers(self, volume: StoredVolume) -> list[Offer]:
        async with self._rest() as rest:
            return offers.offers_with_one(await rest.gpus(count=1, cloud="secure"), volume.region, "runpod")

    @asynccontextmanager
    async def _rest(self) -> AsyncIterator[RestCloud]:
        """RunPod's REST API; what goes wrong within is NoMachine."""
        settings = Settings.of(self._site.env)
        async with RestCloud(settings.rest_url, settings.key, self._pace) as rest:
            try:
                yield rest
            except ApiError as error:
                raise as_no_machine(error) from error


@dataclass(frozen=True)
class _Asked:
    """A wish, and what there is of it everywhere."""

    entries: Sequence[offers.Entry]
    found: Sequence[Offer]

    def at(self, place: str) -> Stocked:
        """What this data centre has of it."""
        in_stock = [offer for offer in self.found if offer.region == place and offer.stock != "none"]
        if not in_stock:
            return Stocked(stock="none", excluded=not any(entry.allows(place) for entry in self.entries))
        usd_per_h = min((o.price_usd_per_h for o in in_stock if o.price_usd_per_h is not None), default=None)
        return Stocked(stock=min((_known(offer.stock) for offer in in_stock), key=_STOCK.index), usd_per_h=usd_per_h)

    def lists(self, place: str) -> bool:
        """Whether it has any there, in stock or not."""
        return any(offer.region == place for offer in self.found)


async def _offers_everywhere(rest: RestCloud, wanted: Resources) -> _Asked:
    """What there is of this hardware, for pods with a network volume, by data centre. None at all is no error here."""
    entries = offers.with_network_volume(offers.entries_of(wanted))
    asked = offers.questions_of(entries)
    found = await all_of(rest.gpus(count=q.count, cloud=q.cloud, spot=q.spot) for q in asked)
    return _Asked(entries, offers.offers_by_place(entries, dict(zip(asked, found, strict=True)), "runpod"))


def _ranked(center: DataCenter, wishes: Sequence[_Asked]) -> tuple[tuple[int, int, float, int, str], Place]:
    """A data centre with what sorts it: in how many wishes it fails, whether it is there at all, price, stock, id."""
    place = Place(region=center.id, wished=tuple(wish.at(center.id) for wish in wishes))
    missing = sum(one.stock == "none" for one in place.wished)
    unlisted = sum(not wish.lists(center.id) for wish in wishes)
    price = sum(one.usd_per_h or inf for one in place.wished if one.stock != "none")
    worst = max((_STOCK.index(one.stock) for one in place.wished), default=0)
    return (missing, unlisted, price, worst, center.id), place


def _known(stock: str | None) -> str:
    return stock if stock in _STOCK else "medium"


def _stored(volume: NetworkVolume) -> StoredVolume:
    return StoredVolume(id=volume.id, name=volume.name, size_gb=volume.size_gb or 0, region=volume.data_center)

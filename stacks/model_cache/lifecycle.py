"""What happens to a cache's volume, over the contract of those who keep volumes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from provisioners.contract import Gone, Lease, MayStillBill, Provisioner, Site
from provisioners.journal import Journal
from provisioners.named import provisioner_named
from provisioners.naming import owner_name, read_name
from provisioners.volumes import StoredVolume, VolumeKeeper
from recipes.errors import MayStillBillError, RecipeError, UsageError
from stacks import report
from stacks.agreed import check_agreed
from stacks.holding import is_minded

VOLUME = "network volume"
"""The kind of what is told to have been created."""


class Keeping(Provisioner, VolumeKeeper, Protocol):
    """A provisioner that keeps network volumes."""


@dataclass(frozen=True)
class Cache:
    """Those that a cache's resources deal with."""

    provisioner: Keeping
    journal: Journal
    here: str
    """The owner of what is rented from here."""
    mask: Callable[[str], str] = str

    @classmethod
    def of(cls, site: Site, provisioner: str, mask: Callable[[str], str]) -> Cache:
        """Raises UsageError if this provisioner keeps no volumes, or the journal cannot be written."""
        made = provisioner_named(site, provisioner)
        if not hasattr(made, "make_volume"):
            raise UsageError(f"provisioner {provisioner} has no network volumes", advice="runpod has")
        site.home.mkdir(parents=True, exist_ok=True)
        return cls(cast(Keeping, made), Journal(site.home / "ledger.db", mask), owner_name(site.env), mask)

    def say(self, text: str) -> None:
        report.say(self.mask(text))

    async def make(self, wanted: Mapping[str, Any], *, fresh: bool) -> StoredVolume:
        """The volume of this unique name: found, or else made, and at least as large as it is to be.

        `fresh`: this update has made the name, so nobody can have asked for the volume before.
        """
        name, size_gb = str(wanted["unique_name"]), int(wanted["size_gb"])
        if not fresh:
            self.say(f"looks whether an earlier update has made {name} already")
        volume = await self.provisioner.make_volume(name, size_gb, str(wanted["region"]), fresh=fresh)
        report.tell_created(name, {"id": volume.id, "name": name, "kind": VOLUME})
        if volume.region != wanted["region"]:
            self.say(f"volume {volume.id} was made in {volume.region} by an earlier update, and stays there")
        return volume if volume.size_gb >= size_gb else await self.provisioner.grow_volume(volume.id, size_gb)

    async def adjust(self, volume_id: str, wanted: Mapping[str, Any]) -> StoredVolume:
        """The same volume at its new size; another one, empty, if somebody has deleted it.

        Raises NoMachine where no preview has shown that one would be made.
        """
        volume = await self.provisioner.find_volume(volume_id)
        if volume is None:
            check_agreed("Volume")
            return await self.make(wanted, fresh=False)
        return await self.provisioner.grow_volume(volume_id, int(wanted["size_gb"]))

    async def twins(self, volume: StoredVolume) -> list[StoredVolume]:
        """Others of the same unique name: one request made several, and lists had them late."""
        return [one for one in await self.provisioner.volumes() if one.name == volume.name and one.id != volume.id]

    async def delete_one(self, volume: StoredVolume, owner: str = "") -> Gone:
        """This one alone, with the proof; before it what fills it, if it is said whose. Raises MayStillBillError."""
        if owner:
            await self.end_fillers(tag_of(volume.name), owner)
        release = await self.provisioner.delete_one(volume)
        if isinstance(release, MayStillBill):
            raise self._may_still_bill(volume, release)
        return release

    def _may_still_bill(self, volume: StoredVolume, release: MayStillBill) -> MayStillBillError:
        usd = self.provisioner.volume_usd_per_month(volume.size_gb)
        price = f" for ${usd:,.2f}/month" if usd is not None else ""
        what = f"{volume.name} ({volume.id}, {volume.size_gb} GB) may still bill{price}: {release.reason}"
        return MayStillBillError(what, advice=release.command)

    async def delete(self, volume: StoredVolume, owner: str, *, patience_s: float = 60.0) -> Gone:
        """Delete it, with the proof, and whatever fills it before. Raises MayStillBillError with name and price."""
        name = volume.name
        await self.end_fillers(tag_of(name), owner)
        release = await self.provisioner.delete_volume(volume.id, name, patience_s=patience_s)
        if isinstance(release, MayStillBill):
            raise self._may_still_bill(volume, release)
        report.tell_released(name, self.mask(release.proof))
        return release

    async def delete_unnamed(self, name: str, owner: str) -> None:
        """The same for a volume of this name that nobody may ever have heard of."""
        await self.end_fillers(tag_of(name), owner)
        release = await self.provisioner.delete_volume(None, name)
        if isinstance(release, MayStillBill):
            raise MayStillBillError(f"{name} may exist, and bill: {release.reason}", advice=release.command)
        self.say(release.proof)

    async def end_fillers(self, tag: str, owner: str) -> None:
        """Let go of machines that an interrupted update has left, or only asked for. Raises MayStillBillError."""
        listed = {lease.name: lease for who in {owner, self.here} for lease in await self.provisioner.owned(who)}
        known = {entry.lease.name: entry.lease for entry in self.journal.open_leases()}
        left = [lease for lease in {**listed, **known}.values() if _fills(lease, tag) and not is_minded(lease)]
        for lease in left:
            self.say(f"lets go of {lease.name}, which an interrupted update has left")
        await let_all_go(self.journal, [(self.provisioner, lease) for lease in left])


def _fills(lease: Lease, tag: str) -> bool:
    said = read_name(lease.name)
    return said is not None and said.run.startswith(f"{tag}-")


async def let_all_go(journal: Journal, leases: Iterable[tuple[Provisioner, Lease]]) -> list[Gone]:
    """End machines, all at once: one that stays keeps no other. Raises MayStillBillError that names all that stay."""
    ended = await asyncio.gather(*(let_go(who, journal, lease) for who, lease in leases), return_exceptions=True)
    stay = [one for one in ended if isinstance(one, MayStillBillError)]
    if stay:
        advice = "; ".join(dict.fromkeys(one.advice for one in stay))
        raise MayStillBillError("; ".join(one.message for one in stay), advice=advice)
    for one in ended:
        if isinstance(one, BaseException):
            raise one
    return [one for one in ended if isinstance(one, Gone)]


async def let_go(provisioner: Provisioner, journal: Journal, lease: Lease) -> Gone:
    """End a machine, and write it down. Raises MayStillBillError with name, price and command."""
    journal.releasing(lease)
    try:
        release = await provisioner.destroy(lease)
    except Exception as error:  # whatever it is, nobody has proven that the machine is gone
        why = error.message if isinstance(error, RecipeError) else f"{type(error).__name__}: {error}"
        release = MayStillBill(why, provisioner.command_to_end(lease))
    journal.released(lease, release)
    if isinstance(release, Gone):
        return release
    price = f" for ${lease.usd_per_h:.2f}/h" if lease.usd_per_h else ""
    what = f"{lease.name} ({lease.id}) may still bill{price}: {release.reason}"
    raise MayStillBillError(what, advice=release.command)


def tag_of(volume_name: str) -> str:
    """How the runs of machines that fill this volume begin."""
    return f"fill-{volume_name.rpartition('-')[2]}"

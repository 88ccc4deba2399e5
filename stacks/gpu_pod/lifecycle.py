"""What happens to a stack's pod, over the contract of provisioners: the journal is told before and after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from provisioners.acquire import Acquisition
from provisioners.contract import Gone, Lease, MayStillBill, Observed, Provisioner, Site
from provisioners.journal import Entry, Journal
from provisioners.named import provisioner_named
from provisioners.naming import read_name
from provisioners.unproven import LISTED_S, LOOK_EVERY_S, unproven
from recipes.errors import NoMachine
from stacks import report
from stacks.holding import ELSEWHERE, unminded
from stacks.orders import Request, lease_data, lease_of

_USABLE = ("starting", "running")
_ENDED = ("stopped", "failed", "gone")


@dataclass(frozen=True)
class Keeper:
    """One stack's pod, and those that it deals with."""

    provisioner: Provisioner
    journal: Journal
    mask: Callable[[str], str] = str
    say: Callable[[str], None] = report.say

    @classmethod
    def of(cls, site: Site, provisioner: str, mask: Callable[[str], str]) -> Keeper:
        """Raises UsageError if there is no such provisioner, or the journal cannot be written."""
        site.home.mkdir(parents=True, exist_ok=True)
        return cls(provisioner_named(site, provisioner), Journal(site.home / "ledger.db", mask), mask)

    async def create(self, request: Request, *, made_at: datetime | None, retry_s: float | None = None) -> Lease:
        """The pod of the request's unique name: the one that there is, else a new one.

        `made_at`: since when the name exists; None if nobody can have asked for the pod before.
        Raises what `Provisioner.create` raises.
        """
        standing = await self._standing(request, made_at)
        if standing is None:
            acquisition = Acquisition(self.provisioner, self.journal)
            wanted = (request.offers, request.order_for, request.clearance)
            standing = await acquisition.get(*wanted, retry_s=retry_s, note=lambda text: self.say(self.mask(text)))
        else:
            self.journal.created(standing)
            self.say(f"{standing.name}: found as {standing.id}, which an earlier update asked for; it is taken over")
        report.tell_created(standing.name, lease_data(unminded(standing)))
        return standing

    async def is_borne(self, lease: Lease, asked_at: datetime) -> bool:
        """Whether something that can be used bears this name, or may bear it: a new one is had under another name.

        `asked_at`: since when somebody may have asked for it. What cannot be known is so. Asks for nothing else.
        """
        entry = self._entry(lease)
        asked_at = max(asked_at, (entry and _last_asked(entry)) or asked_at)
        if datetime.now(UTC) < asked_at + timedelta(seconds=LISTED_S):
            return True
        if entry is not None and entry.open and entry.lease.id and await self._may_be_used(entry.lease):
            return True
        try:
            listed = await self._listed(lease)
        except NoMachine:
            return True
        return any([await self._may_be_used(one) for one in listed])

    async def _may_be_used(self, lease: Lease) -> bool:
        return (await self.provisioner.observe(lease)).state not in _ENDED

    async def _standing(self, request: Request, made_at: datetime | None) -> Lease | None:
        """The pod of this name that an earlier update asked for. One that cannot be used is let go."""
        lease = request.order.lease
        entry = self._entry(lease)
        ours = entry.lease if entry is not None and entry.open else None
        if ours is not None:  # whose update this is, and who minds it now
            ours = replace(ours, details={**unminded(ours).details, **lease.details})
        if ours is not None and ours.id:
            state = (await self.provisioner.observe(ours)).state
            if state in _USABLE:
                return ours
            if state in _ENDED:
                await self._let_go(ours)
                return None
        waits_until = self._listed_by(entry, made_at)
        told = False
        while True:
            found = await self._listed(lease)
            if found or (now := datetime.now(UTC)) >= waits_until:
                break
            if not told:
                left_s = (waits_until - now).total_seconds()
                self.say(f"{lease.name}: looking for {left_s:.0f} s whether an interrupted update has made it")
                told = True
            await asyncio.sleep(min(LOOK_EVERY_S, max(0.1, (waits_until - now).total_seconds())))
        if not found:
            return None
        standing = _completed(ours or _of_elsewhere(request), found[0])
        standing = standing if ours else request.within_budget(standing)
        if len(found) == 1 and await self._may_be_used(found[0]):
            return standing
        await self._let_go(standing)
        return None

    async def _let_go(self, lease: Lease) -> None:
        """Of what was known of it, such as its key, nothing holds for another pod of its name.

        Raises MayStillBillError without a proof.
        """
        release = await self.provisioner.destroy(lease)
        self.journal.released(lease, release)
        if isinstance(release, MayStillBill):
            raise unproven(lease, release)

    async def _listed(self, lease: Lease) -> list[Lease]:
        said = read_name(lease.name)
        return [] if said is None else [o for o in await self.provisioner.owned(said.owner) if o.name == lease.name]

    def _listed_by(self, entry: Entry | None, made_at: datetime | None) -> datetime:
        """Until when a pod may appear in the lists; a time that has gone if nobody can have asked for it."""
        now = datetime.now(UTC)
        if made_at is None or (entry is not None and not entry.open):
            return now
        return ((entry and _last_asked(entry)) or made_at) + timedelta(seconds=LISTED_S)

    async def observe(self, lease: Lease) -> Observed:
        """What the provider says of it now."""
        return await self.provisioner.observe(lease)

    async def is_over(self, lease: Lease) -> bool:
        """Whether it is sure that it does not run any more, and will not again."""
        return (await self.observe(lease)).state in _ENDED

    async def delete(self, lease: Lease, *, patience_s: float = 60.0) -> Gone:
        """Let it go, with the proof. Raises MayStillBillError with name, price and command."""
        entry = self._entry(lease)
        known = entry.lease if entry is not None and entry.open else lease
        known = known if known.id else replace(known, id=lease.id)
        self.journal.releasing(known)
        release = await self.provisioner.destroy(known, patience_s=patience_s)
        self.journal.released(known, release)
        if isinstance(release, MayStillBill):
            raise unproven(known, release)
        report.tell_released(known.name, self.mask(release.proof), release.at)
        return release

    async def delete_unnamed(self, lease: Lease) -> None:
        """The same for a pod of this name that no state may ever have heard of."""
        entry = self._entry(lease)
        if entry is None or entry.open or await self._listed(lease):
            await self.delete(lease)

    def _entry(self, lease: Lease) -> Entry | None:
        entry = self.journal.of_run(lease.run_id)
        return entry if entry is not None and entry.lease.name == lease.name else None


def lease_in(props: Mapping[str, Any]) -> Lease:
    """The lease in a resource's outputs. Raises NoMachine if there is none."""
    data = props.get("lease")
    if not data:
        raise NoMachine("this resource has no lease in its state", advice="recipe reap shows what there is")
    return lease_of(data)


def _last_asked(entry: Entry) -> datetime | None:
    """When it was asked for, the last time where that was tried again and again."""
    return entry.changed_at if entry.state == "intended" else entry.asked_at


def _of_elsewhere(request: Request) -> Lease:
    """Another computer's, as far as it is known before it is seen."""
    lease, storage = request.order.lease, request.order.offer.storage_usd_per_h
    details = {**lease.details, ELSEWHERE: True}
    return replace(lease, price_usd_per_h=None, storage_usd_per_h=storage, details=details)


def _completed(lease: Lease, found: Lease) -> Lease:
    """Ours, with what the provider lists of it."""
    return replace(
        lease,
        id=found.id,
        price_usd_per_h=found.price_usd_per_h if lease.price_usd_per_h is None else lease.price_usd_per_h,
        details={**found.details, **lease.details},
    )

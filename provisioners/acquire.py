"""From offers to a lease: each is intended in the journal and asked for in turn, until one is had."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from provisioners.contract import Clearance, Gone, Lease, Offer, Order, Provisioner
from provisioners.journal import Journal
from recipes.errors import NoCapacity, NoMachine

_ROUND_PAUSE_S = 15.0

Noted = Callable[[str], None]


class Acquisition:
    """Gets one lease. `lease` is what may exist, at every moment: None only while nothing was asked for."""

    def __init__(self, provisioner: Provisioner, journal: Journal, adopted: Lease | None = None) -> None:
        self._provisioner, self._journal = provisioner, journal
        self.lease = adopted
        self.offer: Offer | None = None

    async def get(
        self,
        offers: Sequence[Offer],
        order_for: Callable[[Offer], Order],
        clearance: Clearance,
        *,
        retry_s: float | None = None,
        note: Noted = lambda _: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> Lease:
        """The lease of the first offer that can be had.

        With `retry_s`, all are asked again until so much time has gone. Raises NoCapacity when none could be had, and
        NoMachine at once where no other offer would help.
        """
        end = time.monotonic() + (retry_s or 0.0)
        while True:
            refusals = []
            for offer in offers:
                try:
                    return await self._ask(order_for(offer), clearance)
                except NoCapacity as refusal:
                    refusals.append(refusal)
                    note(f"{describe(offer)}: {refusal.message}")
            if time.monotonic() + _ROUND_PAUSE_S > end:
                raise _none_of(refusals)
            await sleep(_ROUND_PAUSE_S)

    async def _ask(self, order: Order, clearance: Clearance) -> Lease:
        self.lease, self.offer = order.lease, order.offer
        self._journal.intend(order.lease)
        try:
            self.lease = await self._provisioner.create(order, clearance)
        except NoMachine as refusal:
            self._journal.released(order.lease, Gone(f"none was had, and none is left: {refusal.message}"))
            self.lease = None
            raise
        self._journal.created(self.lease)
        return self.lease

    def reached(self) -> None:
        """The machine was used: it is sure to have existed, which whoever lets it go later has to know."""
        assert self.lease is not None
        self.lease = replace(self.lease, details={**self.lease.details, "reached": True})
        self._journal.reached(self.lease)


def describe(offer: Offer) -> str:
    """An offer in a few words."""
    what = f"{offer.accelerator} ×{offer.count}" if offer.accelerator else offer.id
    return " ".join(filter(None, [what, offer.cloud, offer.region, "spot" if offer.spot else None]))


def _none_of(refusals: Sequence[NoCapacity]) -> NoCapacity:
    """One error for all; where each said the same, it is most likely the request and not the capacity."""
    last = refusals[-1]
    if len(refusals) == 1:
        return NoCapacity(last.message, advice=last.advice or _ADVICE)
    same = len({refusal.message for refusal in refusals}) == 1
    what = f"none of {len(refusals)} offers could be had; "
    return NoCapacity(what + ("each said: " if same else "the last said: ") + last.message, advice=_ADVICE)


_ADVICE = "wait for capacity with --set resources.retry=30m, or add fallbacks under resources.any_of"

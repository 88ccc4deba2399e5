"""SSH hosts as a provisioner. A machine is never powered off; nothing but the lease's own directory is touched."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from provisioners.contract import (
    Bill,
    Clearance,
    Gone,
    Host,
    Lease,
    Observed,
    Offer,
    Order,
    Release,
    Site,
)
from provisioners.phase_times import PhaseTimes
from provisioners.providers.ssh import intent as intents
from provisioners.providers.ssh.intent import Intent
from provisioners.providers.ssh.offers import Seen, judge, none_left, offers_of
from provisioners.providers.ssh.places import IDLE_S, Place, place_of_lease, places_of
from provisioners.shell.keys import LeaseKeys
from provisioners.shell.target import HostKeyChanged, Lost
from recipes.errors import NoMachine, RecipeError
from recipes.ranges import Range
from recipes.spec import Resources

_AGAIN_S = 1.0
_BEAT_S = 5.0
_NO_SWITCH = "its dead-man switch does not run: the machine was restarted, or somebody ended it"
_REAP = "recipe reap --yes"


class SshProvisioner:
    """Leases of machines that somebody has already; what they cost is what the recipe says. Implements Provisioner."""

    name = "ssh"
    billable = True
    secrets: tuple[str, ...] = ()
    at_once = True
    # Assumed, from a machine next door to one across an ocean that is busy.
    phase_times = PhaseTimes(
        provision_s=Range(1.0, 4.0, 20.0), collect_s=Range(0.2, 1.0, 10.0), release_s=Range(0.5, 2.0, 15.0)
    )

    def __init__(self, site: Site) -> None:
        self._home = site.home

    async def offers(self, resources: Resources) -> list[Offer]:
        """The recipe's hosts that answer and have what is asked for, those that are taken last.

        Raises NoMachine, which says of each host why; HostKeyChanged if any of them is not who it was.
        """
        answers = await asyncio.gather(*(self._look(place, resources) for place in places_of(self._home, resources)))
        for answer in answers:
            if isinstance(answer, HostKeyChanged):
                raise answer
        seen = {answer.address: answer for answer in answers if isinstance(answer, Seen)}
        if not seen:
            places = [place.written for place in places_of(self._home, resources)]
            refusals = [answer for answer in answers if isinstance(answer, NoMachine)]
            raise none_left(list(zip(places, refusals, strict=True)))
        return offers_of(list(seen.values()), self.name, resources.price_per_hour)

    async def catalogue(self, *, cloud: str | None = None, accelerator: str | None = None) -> list[Offer]:
        """Nothing: such machines are there or not, and cannot be chosen from."""
        return []

    def installed(self, environment: str) -> bool | None:
        return None

    def stored(self, repo: str, commit: str) -> bool | None:
        return None

    async def create(self, order: Order, clearance: Clearance) -> Lease:
        """Take the host of this offer, with the switch armed and the boot's jobs started."""
        from provisioners.providers.ssh import contact, taking  # SSH libraries take long to load

        for place in places_of(self._home, order.resources):
            if contact.full_address(place.target) == order.offer.id:
                return await taking.take(self._home, place, order)
        raise NoMachine(f"resources.hosts has no {order.offer.id}")

    async def observe(self, lease: Lease) -> Observed:
        """As the host itself says."""
        intent = self._intent(lease)
        if intent is None:
            return Observed(state="gone", message="it never began on any host")
        try:
            said = await self._find(intent.place, lease)
        except RecipeError as error:
            return Observed(state="unknown", message=error.message)
        price = lease.price_usd_per_h
        if not said["there"]:
            if said["now"] <= intent.until:
                return Observed(state="unknown", message="it is not there, or not yet")
            return Observed(state="gone", message=f"{intent.place.written} has nothing of it any more")
        if not said["switch"]:
            return Observed(state="failed", message=_NO_SWITCH, price_usd_per_h=price)
        ending = said["ending"]
        return Observed(state="running", message=f"it is ending: {ending}" if ending else "", price_usd_per_h=price)

    async def host(self, lease: Lease) -> Host:
        """The host, once it answers. A CancelledError has what was waited for as its argument."""
        intent = self._intent(lease)
        if intent is None:
            raise NoMachine(f"{lease.name} never began on any host", advice="begin anew: recipe up")
        reason = "it has not answered yet"
        try:
            while True:
                try:
                    return await self._connect(intent, lease)
                except Lost as error:
                    reason = error.message
                await asyncio.sleep(_AGAIN_S)
        except asyncio.CancelledError as cancelled:
            cancelled.args = (f"{intent.place.written}: {reason}",)
            raise

    async def _connect(self, intent: Intent, lease: Lease) -> Host:
        """Asks once. Raises Lost where that may help another time."""
        from provisioners.providers.ssh.contact import Contact
        from provisioners.shell.remote_host import RemoteHost

        contact = Contact.to(intent.place)
        try:
            said = await contact.find(lease.name)
            if not said["there"] and said["now"] > intent.until:
                raise _ended(intent.place, lease)
            key = LeaseKeys.load(self._home, lease.name).engine_key()
            beat_s = min(_BEAT_S, (said["idle_s"] or IDLE_S) / 4)
            return await RemoteHost.connect(contact.shell, said["state"], key=key, beat_s=beat_s)
        except BaseException:
            await contact.close()
            raise

    async def destroy(self, lease: Lease, *, patience_s: float = 60.0) -> Release:
        """End its processes, remove its directory, free the host, and look that all of it is so."""
        from provisioners.providers.ssh.release import let_go

        intent = self._intent(lease)
        if intent is None:
            intents.forget(self._home, lease.name)
            return Gone("no host was ever asked for it")
        release = await let_go(intent, lease, patience_s=patience_s)
        if isinstance(release, Gone):
            intents.forget(self._home, lease.name)
        return release

    async def owned(self, owner: str) -> list[Lease]:
        """Nothing that the journal does not know: only a recipe says which hosts there are."""
        return []

    async def bill(self, lease: Lease) -> Bill | None:
        return None

    def login(self, lease: Lease) -> Sequence[str] | None:
        intent = self._intent(lease)
        return intent.place.login() if intent else None

    def command_to_end(self, lease: Lease) -> str:
        intent = self._intent(lease)
        return intents.command_to_end(intent, lease) if intent else _REAP

    def _intent(self, lease: Lease) -> Intent | None:
        """Where the lease is, or may be. None if no host was ever asked for it, or it has gone."""
        written = intents.read(self._home, lease.name)
        place = place_of_lease(self._home, lease)
        return written or (Intent(place, 0.0) if place else None)

    async def _look(self, place: Place, resources: Resources) -> Seen | NoMachine:
        """One host as it is now, or why it will not do."""
        from provisioners.providers.ssh.contact import Contact, full_address

        contact = Contact.to(place)
        try:
            said = await contact.look()
            return judge(full_address(place.target), said, resources)
        except NoMachine as error:
            return error
        except RecipeError as error:
            return NoMachine(error.message, advice=error.advice)
        finally:
            await contact.close()

    async def _find(self, place: Place, lease: Lease) -> dict[str, Any]:
        from provisioners.providers.ssh.contact import Contact

        contact = Contact.to(place)
        try:
            return await contact.find(lease.name)
        finally:
            await contact.close()


def _ended(place: Place, lease: Lease) -> NoMachine:
    return NoMachine(
        f"{place.written} has nothing of {lease.name} any more: its own switch ended it, or somebody let it go",
        advice="begin anew: recipe up",
    )

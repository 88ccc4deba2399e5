"""Taking a host for a lease: by the time its answer comes it is locked, its switch armed, its boot's jobs under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from provisioners.contract import Boot, Gone, Lease, Order
from provisioners.providers.ssh import offers
from provisioners.providers.ssh.contact import Contact, first_contacts, seconds
from provisioners.providers.ssh.intent import Intent
from provisioners.providers.ssh.places import IDLE_S, Place
from provisioners.providers.ssh.release import let_go
from provisioners.shell.connection import HostKeyChanged, Lost
from provisioners.shell.keys import LeaseKeys
from recipes.errors import ExitCode, HostCommandFailed, NoCapacity, NoMachine, RecipeError

_LONGEST_S = 24 * 3600.0
_TAKE_S = 30.0
# A request to take the host is valid for so long after it was seen; one that came by then is asked about for longer.
_VALID_S = 15.0
_INSIST_S = 30.0
_AGAIN_S = 1.0
_LAST_WORD_S = 5.0
_UNDO_S = 45.0


class Unsettled(RecipeError):
    """Nobody knows whether the host was taken: its lease has to be let go like any other."""

    exit_code = ExitCode.NO_MACHINE


async def take(home: Path, place: Place, order: Order) -> Lease:
    """The lease on this host.

    Raises NoCapacity if it cannot be had, HostKeyChanged; Unsettled if something may have begun that cannot be undone.
    Where only the answer was lost, the lease is returned all the same: it may be there, and it is known where.
    """
    keys = LeaseKeys.create(home, order.lease.name)
    contact = Contact.to(place)
    try:
        try:
            seen_at = await _arrive(contact, order)
        except NoMachine:
            keys.remove()
            raise
        taking = _Taking(home, contact, order, keys, Intent(place, seen_at + _VALID_S))
        return await taking.run()
    finally:
        await contact.close()


async def _arrive(contact: Contact, order: Order) -> float:
    """What time it is there. Nothing has begun before this was answered."""
    try:
        return float((await contact.find(order.lease.name))["now"])
    except HostKeyChanged:
        raise
    except RecipeError as error:
        raise NoCapacity(f"{order.offer.id}: {error.message}", advice=error.advice) from error


@dataclass
class _Taking:
    home: Path
    contact: Contact
    order: Order
    keys: LeaseKeys
    intent: Intent

    async def run(self) -> Lease:
        self.intent.write(self.keys)
        try:
            answer = await _with_last_word(self._insist())
        except Lost as error:
            return self._lease([f"contact was lost while the host was taken ({error.message}); it is tried again"])
        except RecipeError as error:
            raise await self._undone(error) from error
        if answer.get("late"):
            late = NoMachine("the request to take it arrived too late")
            raise await self._undone(late)
        if "locked_by" in answer:
            self.keys.remove()
            raise NoCapacity(f"{self.order.offer.id} is taken by {offers.holder(answer['locked_by'])}")
        failed = answer["boot"].get("error")
        warnings = [f"its jobs could not be started ahead: {failed}"] if failed else []
        return self._lease(warnings, state=answer["state"])

    async def _insist(self) -> dict[str, Any]:
        """The host's answer. To ask again is harmless: it joins what has begun, and begins nothing too late."""
        end = time.monotonic() + _INSIST_S
        while True:
            try:
                answer = await self.contact.ask(
                    "take", self.order.lease.name, timeout_s=_TAKE_S, until=self.intent.until, **_request(self.order)
                )
            except Lost:
                if time.monotonic() + _AGAIN_S > end:
                    raise
            except HostCommandFailed:
                self._settle()
                raise
            else:
                self._settle()
                return answer
            await asyncio.sleep(_AGAIN_S)

    def _settle(self) -> None:
        """No request is on its way any more."""
        self.intent = replace(self.intent, until=0.0)
        self.intent.write(self.keys)

    async def _undone(self, error: RecipeError) -> RecipeError:
        """What to raise once all that may have begun is gone, or is not."""
        release = await let_go(self.intent, self.order.lease, patience_s=_UNDO_S)
        if isinstance(release, Gone):
            self.keys.remove()
            return NoCapacity(f"{self.order.offer.id}: {error.message}", advice=error.advice)
        return Unsettled(f"{self.order.offer.id}: {error.message}; and what may have begun is not gone", advice="")

    def _lease(self, warnings: list[str], state: str | None = None) -> Lease:
        details = {
            **self.intent.place.details(),
            "state": state,
            "offer": self.order.offer.id,
            "warnings": [*first_contacts(self.home, self.intent.place), *warnings],
        }
        return replace(self.order.lease, id=self.order.offer.id, details={**self.order.lease.details, **details})


def _request(order: Order) -> dict[str, Any]:
    """What the host is told. Times go as so many seconds from now: its clock may be wrong."""
    deadline, volumes = order.lease.deadline, order.resources.volumes
    lasts_s = (deadline - datetime.now(UTC)).total_seconds() if deadline else _LONGEST_S
    volume = volumes[0].path if volumes else None
    return {
        "lasts_s": seconds(lasts_s),
        "idle_s": seconds(order.idle_s or IDLE_S),
        "volume": volume,
        "boot": _boot(order.boot, volume),
    }


def _boot(boot: Boot, volume: str | None) -> dict[str, Any] | None:
    if not boot.jobs and not boot.files:
        return None
    jobs = [{"name": job.name, "argv": list(job.argv)} for job in boot.jobs]
    return {"files": dict(boot.files), "jobs": jobs, "env": dict(boot.env), "volume": volume}


async def _with_last_word(asking: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """The answer. Who is interrupted meanwhile waits a little longer for it: then nothing is on its way any more."""
    asked = asyncio.ensure_future(asking)
    try:
        return await asyncio.shield(asked)
    except asyncio.CancelledError:
        try:
            await asyncio.wait({asked}, timeout=_LAST_WORD_S)
        finally:
            asked.cancel()
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise

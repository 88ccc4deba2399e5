"""Letting a host go, and the proof: no process of the lease's, its ports free, its directory removed, the lock free."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from provisioners.contract import Gone, Lease, MayStillBill, Release
from provisioners.providers.ssh.contact import Contact
from provisioners.providers.ssh.intent import Intent, command_to_end
from provisioners.providers.ssh.offers import holder
from provisioners.shell.target import HostKeyChanged, NotAdmitted
from recipes.errors import RecipeError

GRACE_S = 10.0
_LEAVE_S = 60.0
_SHORTEST_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.3, 3.0


async def let_go(intent: Intent, lease: Lease, *, patience_s: float, grace_s: float = GRACE_S) -> Release:
    """Ask until it is proven, or for so long. Never raises for silence."""
    contact = Contact.to(intent.place)
    try:
        return await _Letting(contact, intent, lease, patience_s, grace_s).run()
    finally:
        await contact.close()


@dataclass
class _Letting:
    contact: Contact
    intent: Intent
    lease: Lease
    patience_s: float
    grace_s: float
    began: float = field(default_factory=time.monotonic)
    existed: bool = False
    """Whether there was something of it at any look."""
    empty_since: datetime | None = None
    """When the host was first seen without anything of it."""
    ports: list[int] = field(default_factory=list)
    """That were given out, as far as the host has said; its own list goes with the directory."""

    async def run(self) -> Release:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                said = await self._ask()
            except (NotAdmitted, HostKeyChanged) as error:
                return self._not_proven(error.message)
            except RecipeError as error:
                reason = error.message
            else:
                reason = self._what_is_left(said)
                self.empty_since = None if reason else self.empty_since or datetime.now(UTC)
                if not reason and said["now"] > self.intent.until:
                    return Gone(self._proof(said), self.empty_since)
                reason = reason or "a request to take the host, which was never answered, may still be on its way"
            if time.monotonic() - self.began + pause_s > self.patience_s:
                return self._not_proven(reason)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _ask(self) -> dict[str, Any]:
        left_s = max(_SHORTEST_S, self.patience_s - (time.monotonic() - self.began))
        said = await self.contact.ask(
            "leave",
            self.lease.name,
            timeout_s=min(_LEAVE_S, left_s),
            grace_s=min(self.grace_s, left_s / 3),
            ports=self.ports,
        )
        self.existed = self.existed or said["existed"]
        self.ports = said["ports"]
        return said

    def _what_is_left(self, said: dict[str, Any]) -> str:
        """What there is of it in words; nothing if there is nothing."""
        if said["left"]:
            return f"processes {' '.join(map(str, said['left']))} of it could not be ended"
        if not said["removed"]:
            return f"{said['state']} could not be removed"
        if said["ports_busy"]:
            return f"port {said['ports_busy'][0]} is still taken by another process"
        if said["taken"] and said["taken"].get("lease") == self.lease.name:
            return "it still holds the host's lock"
        return ""

    def _proof(self, said: dict[str, Any]) -> str:
        where = self.intent.place.written
        ports = "".join(f", port {port} is free" for port in self.ports)
        taken = f"the host is now taken by {holder(said['taken'])}" if said["taken"] else "the host's lock is free"
        proof = f"on {where} no process carries its mark{ports}, {said['state']} is not there, {taken}"
        if self.existed:
            return proof
        if self.lease.id is not None:
            return f"{proof}; its own switch had ended it, or somebody let it go before"
        return f"{proof}; it never began"

    def _not_proven(self, reason: str) -> MayStillBill:
        at = f"; its own switch ends it at {self.lease.deadline:%Y-%m-%d %H:%M} UTC" if self.lease.deadline else ""
        return MayStillBill(f"{self.intent.place.written}: {reason}{at}", command_to_end(self.intent, self.lease))

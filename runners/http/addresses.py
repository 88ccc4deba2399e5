"""Which addresses a server's name stands for."""

from __future__ import annotations

import asyncio
import socket
from time import monotonic
from typing import Any

from runners.http.target import Origin

_KEPT_S = 60.0

Address = tuple[int, Any]
"""A family of addresses, and one of them as the family writes it."""


class Addresses:
    """Asks once a minute, takes those of the preferred family in turn, and leaves out what could not be reached."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._known: list[Address] = []
        """In the system's order of preference (RFC 6724)."""
        self._asked_at = -_KEPT_S
        self._turn = 0
        self._asking = asyncio.Lock()

    async def candidates(self) -> list[Address]:
        """Where to try, in order. Raises OSError if the name is not known, and never was."""
        async with self._asking:
            if monotonic() - self._asked_at >= _KEPT_S:
                await self._ask()
        first = [address for address in self._known if address[0] == self._known[0][0]]
        self._turn = (self._turn + 1) % len(first)
        return [*first[self._turn :], *first[: self._turn], *(a for a in self._known if a not in first)]

    def unreachable(self, address: Address) -> None:
        """Leave it out until the name is asked for again, unless nothing else is left."""
        if len(self._known) > 1:
            self._known = [known for known in self._known if known != address]

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._origin.host, self._origin.port, type=socket.SOCK_STREAM)
        except OSError:
            if not self._known:
                raise
        else:
            self._known = list(dict.fromkeys((family, where) for family, _, _, _, where in found))
        self._asked_at = monotonic()

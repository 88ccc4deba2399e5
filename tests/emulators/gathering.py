"""A place at which coroutines meet, for tests that ask what goes on at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Gathering:
    """How many are at a place at the same time, and a wait until so many are."""

    def __init__(self, expected: int) -> None:
        self.expected, self.here, self.most = expected, 0, 0
        self._all = asyncio.Event()

    async def meet(self) -> None:
        """Returns once all that are expected have come."""
        self.here += 1
        self.most = max(self.most, self.here)
        if self.here >= self.expected:
            self._all.set()
        await self._all.wait()

    def meet_and(self, then: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def both() -> None:
            await self.meet()
            await then()

        return both

    async def pass_by(self) -> None:
        """Stays for a few turns of the loop."""
        self.here += 1
        self.most = max(self.most, self.here)
        for _ in range(20):
            await asyncio.sleep(0)
        self.here -= 1

"""One reader for every tab: it looks while somebody listens, and gives each the newest it has not had."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from recipes.errors import RecipeError

EVERY_S = 1.0


class Feed:
    """The document as text, time and again."""

    def __init__(self, look: Callable[[], dict[str, Any]]) -> None:
        """`look` gives the document of the moment; it may take its time, and raise RecipeError."""
        self._look = look
        self._number, self._text = 0, ""
        self._changed = asyncio.Condition()
        self._listeners = 0
        self._wanted = asyncio.Event()
        self._over = False

    async def run(self) -> None:
        """Look, as long as somebody listens; until it is cancelled."""
        while True:
            await self._wanted.wait()
            text = await self.now()
            async with self._changed:
                self._number, self._text = self._number + 1, text
                self._changed.notify_all()
            await asyncio.sleep(EVERY_S)

    async def now(self) -> str:
        """The document of this moment, or what keeps it from being read."""
        try:
            document = await asyncio.to_thread(self._look)
        except Exception as error:  # it may pass, and those who listen are told meanwhile
            message = error.message if isinstance(error, RecipeError) else f"{type(error).__name__}: {error}"
            document = {"error": message, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        return json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[AsyncIterator[str]]:
        """While entered, one who listens; the texts end when the feed does."""
        self._listeners += 1
        self._wanted.set()
        try:
            yield self._texts()
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._wanted.clear()

    async def _texts(self) -> AsyncIterator[str]:
        seen = self._number
        while True:
            async with self._changed:
                while self._number == seen and not self._over:
                    await self._changed.wait()
                seen, text = self._number, self._text
            if self._over:
                return
            yield text

    async def close(self) -> None:
        """Nobody is told anything any more."""
        async with self._changed:
            self._over = True
            self._changed.notify_all()


@asynccontextmanager
async def running(feed: Feed) -> AsyncIterator[None]:
    """While entered, the feed looks."""
    task = asyncio.create_task(feed.run())
    try:
        yield
    finally:
        await feed.close()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

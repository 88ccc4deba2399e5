"""Time as the emulator has it: its seconds pass `scale` times as fast as the real ones."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

FOR_EVER_S = 1e12


class Clock:
    """Instants are those of the real clock; durations are the emulator's."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def now(self) -> float:
        return time.time()

    def since(self, instant: float) -> float:
        """The emulator's seconds since an instant."""
        return (self.now() - instant) * self.scale

    def real(self, seconds: float) -> float:
        """Real seconds for the emulator's; a negative duration is for ever."""
        return FOR_EVER_S if seconds < 0 else seconds / self.scale

    async def sleep(self, seconds: float) -> None:
        if seconds < 0:
            await asyncio.Event().wait()
        elif seconds > 0:
            await asyncio.sleep(self.real(seconds))

    def lasts(self, seconds: float, instant: float) -> bool:
        """Whether a duration that began at an instant has not passed yet."""
        return seconds < 0 or self.since(instant) < seconds


def rfc3339(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

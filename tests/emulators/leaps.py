"""Time that is moved on, where a test would have to wait, and where a slow machine would wait for longer."""

from __future__ import annotations

import asyncio
import time
from types import ModuleType, SimpleNamespace

import pytest

from tests.emulators.provisioner import hang


class Leaps:
    """The timers of every loop follow it, and what these modules call time.monotonic()."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
        self._ahead_s = 0.0
        monkeypatch.setattr(asyncio.BaseEventLoop, "time", lambda _: self.now())
        for module in modules:
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=self.now))

    def now(self) -> float:
        return time.monotonic() + self._ahead_s

    def on(self, seconds: float) -> None:
        """By so much at once."""
        self._ahead_s += seconds

    async def on_and_hang(self, seconds: float) -> None:
        """A wait of so long, of which only a time limit is the end."""
        self.on(seconds)
        await hang()

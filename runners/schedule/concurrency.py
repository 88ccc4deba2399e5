"""How many requests are under way at once: as many as the engine runs, found from what it says of itself."""

from __future__ import annotations

from runners.engine import EngineSample

UNKNOWN_SLOTS = 20
"""Where a load begins if nobody knows how many requests the engine runs at once."""


class Concurrency:
    """The limit of what is under way: fixed, or following the engine."""

    def __init__(self, fixed: int | None = None, *, start: int | None = None) -> None:
        self.limit = fixed or start or UNKNOWN_SLOTS
        self._fixed = fixed is not None

    def sampled(self, sample: EngineSample, under_way: int) -> None:
        """The engine's state at a moment at which so many requests of ours were under way."""

    def answered(self, *, ttft_s: float | None, e2e_s: float, prompt_tokens: int) -> None:
        """One of our requests has ended so; all that is known of an engine that says nothing of itself."""

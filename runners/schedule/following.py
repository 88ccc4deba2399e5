"""How many requests an engine runs at once, from what it says of itself. Pure: time is passed in."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

MEMORY_S = 3.0
"""For so long the most that ran while others waited is taken for the engine's slots: between an answer and the next
request fewer run, and a prompt that is being read may keep others waiting."""
_RESERVE_SHARE = 0.08
_MOST_RESERVE_SHARE = 0.5
_STEP_SHARE = 0.06
_CALM_S = 30.0


class Following:
    """Sends what the engine runs, and a few more, so that a slot that becomes free never waits for the client.

    What waits in the engine goes in the order in which it came; what waits here, in the order that finishes documents
    early. So no more than a reserve is kept there: 8 % of the slots at first, more if the engine was seen with nothing
    waiting and a slot free. What is on the way is sent besides.
    """

    def __init__(self) -> None:
        self.slots: int | None = None
        """As many as ran when others waited; None as long as the engine took everything."""
        self._full: deque[tuple[float, int]] = deque()
        self._reserve_share = _RESERVE_SHARE
        self._on_the_way: deque[tuple[float, int]] = deque()
        """Requests under way that neither run nor wait: in a tunnel, or in the engine's own server before its queue."""
        self._calm_since: float | None = None

    def target(self, slots: int) -> int:
        """What should be under way on an engine of so many slots."""
        on_the_way = median(count for _, count in self._on_the_way) if self._on_the_way else 0
        return slots + max(1, math.ceil(self._reserve_share * slots)) + min(slots, math.ceil(on_the_way))

    def sampled(
        self, *, running: int, waiting: int, kv_usage: float | None, under_way: int, limit: int, held: bool, at_s: float
    ) -> int:
        """The limit that follows from a look at the engine while so many of our requests were under way.

        `held` tells that the limit lies lower than was asked for, so that free slots mean nothing.
        """
        self._on_the_way.append((at_s, max(0, under_way - running - waiting)))
        while self._on_the_way[0][0] < at_s - MEMORY_S:
            self._on_the_way.popleft()
        if waiting > 0:
            return self._queues(running, at_s)
        self._calm_since = None
        if under_way < limit:
            return limit  # for lack of work, or because the limit has just risen
        if held:
            return 2 * limit if self.slots is None else max(limit + 1, self.target(self.slots))
        if self.slots is None or running > self.slots:
            self.slots = None
            self._full.clear()
            return _grown(max(limit, running), kv_usage)
        if running < self.slots:
            self._reserve_share = min(_MOST_RESERVE_SHARE, self._reserve_share + _STEP_SHARE)
        return max(limit, self.target(self.slots))

    def _queues(self, running: int, at_s: float) -> int:
        self._full.append((at_s, running))
        while self._full[0][0] < at_s - MEMORY_S:
            self._full.popleft()
        self.slots = max(1, *(running for _, running in self._full), 1)
        if self._calm_since is None:
            self._calm_since = at_s
        elif at_s - self._calm_since >= _CALM_S:
            self._reserve_share = max(_RESERVE_SHARE, self._reserve_share - _STEP_SHARE / 2)
            self._calm_since = at_s
        return self.target(self.slots)


def _grown(limit: int, kv_usage: float | None) -> int:
    """Twice as many while there is memory for them; the fuller it is, the more carefully."""
    share = 1.0 if kv_usage is None or kv_usage < 0.5 else 0.5 if kv_usage < 0.8 else 0.1
    return limit + max(1, math.ceil(limit * share))

"""How many requests are under way at once: as many as the engine runs, found from what it says and does."""

from __future__ import annotations

import math
from typing import Any

from runners.engine import EngineSample
from runners.schedule.ceiling import Ceiling
from runners.schedule.following import Following
from runners.schedule.inferring import Inferring

UNKNOWN_SLOTS = 20
"""Where a load begins if nobody knows how many requests the engine runs at once."""
MOST = 1024
"""What is never exceeded, unless a recipe names a number: one client serves so many streams well."""
_SOON_S, _LATER_S = 0.05, 1.0
"""How soon the engine is looked at again while the limit is being found, and when it has been."""
_SETTLED_S = 1.0
_SILENT_S = 10.0
"""An engine that has said nothing for so long is judged by its answers again."""


class Concurrency:
    """The limit of what is under way: fixed, or following the engine.

    By its metrics (`sampled`) where it has such, else by its answers (`answered`). A preemption or a refusal puts a
    ceiling on the limit, which rises again. All moments are of one monotonic clock.
    """

    def __init__(self, fixed: int | None = None, *, start: int | None = None) -> None:
        self._following, self._inferring = Following(), Inferring()
        self._fixed = fixed
        self._ceiling = Ceiling()
        self._preemptions: float | None = None
        self._changed_s: float | None = None
        self._sampled_s = -math.inf
        self.limit = fixed or (self._following.target(start) if start else UNKNOWN_SLOTS)
        self._wanted = self._low = self._high = self.limit
        self._basis = "fixed" if fixed else "plan" if start else "assumed"

    @property
    def look_again_s(self) -> float:
        """How soon `sampled` should be called again."""
        if self._fixed or (self._changed_s is not None and self._sampled_s - self._changed_s >= _SETTLED_S):
            return _LATER_S
        return _SOON_S

    def sampled(self, sample: EngineSample, under_way: int, *, at_s: float) -> None:
        """The engine's state at a moment at which so many requests of ours were under way."""
        if self._fixed or sample.running is None:
            return
        if self._changed_s is None and under_way:
            self._changed_s = at_s  # the load has begun
        self._sampled_s = at_s
        running = math.ceil(sample.running)
        waiting = max(0, under_way - running) if sample.waiting is None else math.ceil(sample.waiting)
        if self._suffers(sample):
            self._ceiling.preempted(running, under_way, self.limit, at_s)
        limit = self._following.sampled(
            running=running,
            waiting=waiting,
            kv_usage=sample.kv_usage,
            under_way=under_way,
            limit=self.limit,
            held=self._ceiling.most is not None and self.limit >= self._ceiling.most,
            at_s=at_s,
        )
        self._set(limit, at_s, "metrics")

    def answered(self, *, ttft_s: float | None, e2e_s: float, prompt_tokens: int, under_way: int, at_s: float) -> None:
        """One of our requests has ended so, while so many were under way; judged where the engine says nothing itself.

        Answers that came in one piece tell nothing of waiting: then the limit is what it began with, if that is not
        refused.
        """
        self._ceiling.answered(at_s - e2e_s)
        if self._fixed or at_s - self._sampled_s < _SILENT_S:
            return
        limit = self.limit
        if ttft_s is not None:
            limit = self._inferring.answered(
                ttft_s=ttft_s,
                e2e_s=e2e_s,
                prompt_tokens=prompt_tokens,
                under_way=under_way,
                limit=limit,
                at_s=at_s,
            )
        held = self._wanted > self.limit  # more is wanted already than the ceiling allows
        self._set(self._wanted if limit == self.limit or (held and limit > self.limit) else limit, at_s, "answers")

    def refused(self, under_way: int, *, at_s: float) -> None:
        """The endpoint did not want a request now (429, or 503 when it is overloaded)."""
        if self._fixed:
            return
        self._ceiling.refused(under_way, self.limit, at_s)
        self._set(self._wanted, at_s, "refusals")

    def summary(self) -> dict[str, Any]:
        """For result.json: where the limit lay, and what it was found from at last."""
        return {
            "limit_low": self._low,
            "limit_high": self._high,
            "limit_at_end": self.limit,
            "engine_slots": self._following.slots,
            "found_from": self._basis,
        }

    def _suffers(self, sample: EngineSample) -> bool:
        """Whether it had to throw out, or keep elsewhere, what it had begun."""
        before, self._preemptions = self._preemptions, sample.preemptions_total
        preempted = before is not None and sample.preemptions_total is not None and sample.preemptions_total > before
        return preempted or bool(sample.swapped)

    def _set(self, limit: int, at_s: float, basis: str) -> None:
        self._wanted = limit
        limit = self._ceiling.allowed(limit, at_s)
        limit = min(max(1, limit), MOST)
        if limit == self.limit:
            return
        if abs(limit - self.limit) > max(1, self.limit // 20):
            self._changed_s = at_s
        if self._basis in ("plan", "assumed"):
            self._low = self._high = limit
        self.limit, self._basis = limit, basis
        self._low, self._high = min(self._low, limit), max(self._high, limit)

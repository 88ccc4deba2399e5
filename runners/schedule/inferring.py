"""How many requests an engine runs at once, from nothing but its answers. Pure: time is passed in."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import fmean

_LEAST_ANSWERS = 6
_RESERVE_SHARE = 0.12
_BUCKETS_PER_DOUBLING = 2
_RISES = (0.25, 0.5, 1.0)
"""By what share of itself the limit rises: the first time after requests waited, the second, and from then on."""
_POINTS = 16
_KEPT = 2.0
"""Answers are remembered for so many of the longest of them."""
_FELL_SHARE = 0.4
"""Of what the wait should fall by when the limit is lowered; if it falls by less, it was none."""
_ROSE_SHARE = 0.3
"""Of what it was: a wait that rises so much is a queue that grows, because the engine has become slower."""


@dataclass(frozen=True, slots=True)
class _Answer:
    sent_s: float
    begun_s: float
    """When the engine took it up, as far as its first token tells."""
    ended_s: float

    @property
    def wait_s(self) -> float:
        return self.begun_s - self.sent_s


@dataclass(frozen=True)
class _Lowered:
    """What the limit was lowered from, and the wait at that time."""

    limit: int
    wait_s: float
    should_fall_s: float


class Inferring:
    """Keeps as many requests under way as makes a few of them wait, as TCP Vegas does with packets (Brakmo, 1994).

    What a first token takes beyond the least that it took for a prompt of such a length is time in the engine's queue.
    So it is known of each answer from when to when the engine worked at it, and of a moment that lies back, at how many
    it worked. The limit rises while none waits, and falls to what ran and a reserve when more do. Where a lower limit
    does not shorten the wait, it was none, and the least is learnt anew: the limit cannot collapse.
    """

    def __init__(self) -> None:
        self._least_s: dict[int, float] = {}
        """The least time to the first token, by bucket of prompt lengths."""
        self._answers: deque[_Answer] = deque()
        self._rises = len(_RISES) - 1
        self._first_s = math.inf
        self._changed_s = -math.inf
        self._since = 0
        """Answers since the last look."""
        self._idle = False
        """Whether fewer than allowed were under way since then, for lack of work."""
        self._lowered: _Lowered | None = None

    def answered(
        self, *, ttft_s: float, e2e_s: float, prompt_tokens: int, under_way: int, limit: int, at_s: float
    ) -> int:
        """The limit that follows from one more answer; `at_s` is when it ended."""
        bucket = round(_BUCKETS_PER_DOUBLING * math.log2(max(1, prompt_tokens)))
        self._least_s[bucket] = min(ttft_s, self._least_s.get(bucket, ttft_s))
        # A longer prompt's first token cannot come sooner: what one took is a bound for all shorter ones.
        base_s = min(least for other, least in self._least_s.items() if other >= bucket)
        sent_s = at_s - e2e_s
        self._first_s = min(self._first_s, sent_s)
        self._answers.append(_Answer(sent_s, sent_s + ttft_s - base_s, at_s))
        self._since += 1
        self._idle |= under_way < limit - 1
        if self._since < max(_LEAST_ANSWERS, limit // 4):
            return limit
        found = self._looked(limit, at_s)
        self._since, self._idle = 0, False
        if found != limit:
            self._changed_s = at_s
        return found

    def _looked(self, limit: int, at_s: float) -> int:
        latest = list(self._answers)[-max(_LEAST_ANSWERS, limit // 4) :]
        wait_s, whole_s = fmean(a.wait_s for a in latest), fmean(a.ended_s - a.sent_s for a in latest)
        running = self._ran(at_s, latest)
        if running is None:
            running = limit
        reserve = max(1, math.ceil(_RESERVE_SHARE * running))
        queued = limit * wait_s / whole_s if whole_s > 0 else 0.0  # Little's law
        under_this_limit = all(a.sent_s >= self._changed_s - 1e-3 for a in latest)
        if queued > 2 * reserve + 1 and running + reserve < limit:
            return self._fall(limit, running + reserve, wait_s, whole_s, sure=under_this_limit)
        if under_this_limit:
            self._lowered = None
        if queued < reserve / 2 and not self._idle and under_this_limit:
            share = _RISES[self._rises]
            self._rises = min(self._rises + 1, len(_RISES) - 1)
            return limit + max(1, math.ceil(share * limit))
        return limit

    def _fall(self, limit: int, target: int, wait_s: float, whole_s: float, *, sure: bool) -> int:
        if self._lowered is not None:
            before, grows = self._lowered, wait_s > (1 + _ROSE_SHARE) * self._lowered.wait_s
            if not sure and not grows:
                return limit  # it has not had its effect
            self._lowered = None
            if not grows and before.wait_s - wait_s < _FELL_SHARE * before.should_fall_s:
                self._least_s = {bucket: least + wait_s for bucket, least in self._least_s.items()}
                self._answers.clear()
                self._first_s = math.inf
                return before.limit
        self._lowered = _Lowered(limit, wait_s, whole_s * (limit - target) / limit)
        self._rises = 0
        return target

    def _ran(self, at_s: float, latest: list[_Answer]) -> int | None:
        """The most at which the engine worked at once, in the latest stretch of which every answer is known by now.

        None if there is none yet: the first answers are the short ones.
        """
        service_s = max(a.ended_s - a.begun_s for a in self._answers)
        end_s = at_s - service_s
        begin_s = end_s - max(service_s, at_s - latest[0].ended_s)
        if begin_s < self._first_s:
            return None
        while self._answers[0].ended_s < begin_s - _KEPT * service_s:
            self._answers.popleft()
        points = [begin_s + (end_s - begin_s) * (i + 0.5) / _POINTS for i in range(_POINTS)]
        return max(1, *(sum(a.begun_s <= point < a.ended_s for a in self._answers) for point in points))

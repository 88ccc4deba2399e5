"""What the limit may not exceed since an engine preempted or an endpoint refused, and how that rises again.

Pure: time is passed in.
"""

from __future__ import annotations

import math

_PREEMPTED_SHARE = 0.95
_LEAST_CUT, _MOST_CUT = 0.15, 0.5
"""A refusal takes away the share that was refused lately, within these bounds."""
_LEAST_SHARE = 0.5
"""As long as nothing but refusals comes, it may be an outage: no less than so much of the limit is kept."""
_ROUND_S = 5.0
"""A cut has had its effect when an answer to what was sent after it has come; at the latest after so long."""
_QUIET_S, _MOST_QUIET_S = 1.0, 10.0
"""Without refusals for so long, it rises. The time doubles each time that a rise was refused at once."""
_PREEMPTED_QUIET_S, _PREEMPTED_STEP_SHARE = 5.0, 0.03
"""What was preempted is computed again: there it rises slowly."""
_GONE_S = 5.0
"""It is taken away when less than it was wanted, and nothing was refused for so long."""


class Ceiling:
    """A cut is multiplicative, and made once for each round of requests; then it rises by 1, 2, 4, … while it is quiet.

    A rise that is refused is taken back, so that a fixed number of connections is found and seldom tried again. Where
    everything is refused, the number under way is not why: most of it is kept, and the client's back-off is the brake.
    """

    def __init__(self) -> None:
        self.most: int | None = None
        """None as long as nothing speaks against any number."""
        self._before_rise = 0
        self._floor = 1
        self._preempted = False
        """Whether the last cut was made for a preemption."""
        self._cut_s = self._suffered_s = self._rose_s = -math.inf
        self._refusals = self._answers = 0
        """Since the last cut."""
        self._in_effect = False
        """Whether something that was sent after the last cut has been answered."""
        self._quiet_s, self._step = _QUIET_S, 1

    def preempted(self, running: int, under_way: int, limit: int, at_s: float) -> None:
        """The engine had to throw out something when so many ran."""
        self._suffered_s = at_s
        if self.most is None or under_way <= self.most:  # once, until it has had its effect
            self._preempted = True
            self._cut(max(1, int(_PREEMPTED_SHARE * running)), limit, at_s)

    def refused(self, under_way: int, limit: int, at_s: float) -> None:
        """The endpoint did not want one of so many."""
        self._suffered_s = at_s
        self._refusals += 1
        if self.most is not None and at_s - self._rose_s < _QUIET_S:
            self._quiet_s = min(_MOST_QUIET_S, 2 * self._quiet_s)
            self._cut(self._before_rise, limit, at_s)
            return
        known = self.most is None or self._in_effect
        if known:
            self._floor, self._quiet_s = max(1, int(_LEAST_SHARE * limit)), _QUIET_S
        if known or at_s - self._cut_s >= _ROUND_S:
            share = self._refusals / (self._refusals + self._answers) if self._in_effect else 0.0
            kept = 1 - min(_MOST_CUT, max(_LEAST_CUT, share))
            self._preempted = False
            self._cut(max(int(kept * min(limit, under_way)), self._floor), limit, at_s)

    def answered(self, sent_s: float) -> None:
        """What was sent at that moment has been answered."""
        self._answers += 1
        self._in_effect |= sent_s >= self._cut_s

    def allowed(self, wanted: int, at_s: float) -> int:
        """As many of those wanted as may be."""
        if self.most is None:
            return wanted
        quiet_s = at_s - max(self._cut_s, self._suffered_s, self._rose_s)
        if wanted < self.most and quiet_s >= _GONE_S:
            self.most = None
            return wanted
        if wanted > self.most and self._may_rise(quiet_s):
            self._before_rise, self._rose_s = self.most, at_s
            self.most += self._step
            self._step = max(1, math.ceil(_PREEMPTED_STEP_SHARE * self.most)) if self._preempted else 2 * self._step
        return min(wanted, self.most)

    def _may_rise(self, quiet_s: float) -> bool:
        if self._preempted:
            return quiet_s >= _PREEMPTED_QUIET_S
        first = self._rose_s < self._cut_s
        return self._in_effect and quiet_s >= (self._quiet_s if first else _QUIET_S)

    def _cut(self, most: int, limit: int, at_s: float) -> None:
        self.most, self._cut_s, self._rose_s = min(most, limit), at_s, -math.inf
        self._refusals, self._answers, self._in_effect, self._step = 0, 0, False, 1

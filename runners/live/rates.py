"""How fast the tokens went, second by second: from the engine's counters, else from the answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

KEPT_S = 300
"""So many of the newest seconds are kept."""
_DIGITS = 1


class Rates:
    """Tokens by the second in which they were counted, prompt and output.

    An engine's counters say more than the answers, whose tokens all come at their ends; where there are counters, the
    answers do not count.
    """

    def __init__(self) -> None:
        self._counted = _Seconds()
        self._answered = _Seconds()
        self._before: tuple[float, float, float] | None = None

    def counters(self, at: datetime, prompt: float, output: float) -> None:
        """What an engine had counted by then. One that was started anew counts from nothing."""
        end = at.timestamp()
        if self._before is not None and end > self._before[0]:
            begin, *counted = self._before
            self._counted.spread(begin, end, _grown(counted[0], prompt), _grown(counted[1], output))
        self._before = (end, prompt, output)

    def answer(self, at_s: float, prompt_tokens: int, output_tokens: int) -> None:
        """A request was answered then, in seconds since 1970."""
        self._answered.add(math.floor(at_s), prompt_tokens, output_tokens)

    def document(self, now: datetime) -> dict[str, Any] | None:
        """Tokens per second, the oldest first, up to `until`; None if nothing has been counted yet."""
        seconds, source = self._source()
        first = seconds.first
        if first is None:
            return None
        # The second that is going on is not over; what the counters have not said yet is not nothing.
        end = math.floor(now.timestamp())
        if source == "engine" and self._before is not None:
            end = min(end, math.floor(self._before[0]))
        begin = max(first, end - KEPT_S)
        return {
            "from": source,
            "until": datetime.fromtimestamp(end, UTC).isoformat(),
            "prompt_tokens_per_s": seconds.series(begin, end, 0),
            "output_tokens_per_s": seconds.series(begin, end, 1),
        }

    def _source(self) -> tuple[_Seconds, Literal["engine", "answers"]]:
        return (self._counted, "engine") if self._counted.first is not None else (self._answered, "answers")


class _Seconds:
    """Amounts by second; the old ones are forgotten."""

    def __init__(self) -> None:
        self._held: dict[int, list[float]] = {}
        self.first: int | None = None
        """The second of the first amount, forgotten or not."""

    def add(self, second: int, prompt: float, output: float) -> None:
        held = self._held.get(second)
        if held is None:
            self.first = second if self.first is None else min(self.first, second)
            held = self._held[second] = [0.0, 0.0]
            if len(self._held) > 2 * KEPT_S:
                self._held = {s: amounts for s, amounts in self._held.items() if s > second - KEPT_S}
        held[0] += prompt
        held[1] += output

    def spread(self, begin: float, end: float, prompt: float, output: float) -> None:
        """Evenly over the seconds in between."""
        begin = max(begin, end - KEPT_S)
        for second in range(math.floor(begin), math.floor(end) + 1):
            share = (min(end, second + 1) - max(begin, second)) / (end - begin)
            if share > 0:
                self.add(second, prompt * share, output * share)

    def series(self, begin: int, end: int, which: int) -> list[float]:
        nothing: Sequence[float] = (0.0, 0.0)
        return [round(self._held.get(second, nothing)[which], _DIGITS) for second in range(begin, end)]


def _grown(before: float, now: float) -> float:
    return now - before if now >= before else now

"""Counts of values below bounds, in plain lists: thousands of requests are counted, a page is read now and then."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence

TTFT_S = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300),
)
TPOT_S = (
    0.001,
    0.0025,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.04,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    0.75,
    1,
    2,
)
E2E_S = (
    *(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 7.5),
    *(10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200),
)
_MOST_SPANS = 10_000


class Histogram:
    """As Prometheus has them: each bucket holds what is not above its bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._names = (*(f"{float(bound)}" for bound in bounds), "+Inf")
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> Iterator[tuple[str, int]]:
        """Each bound (`le`) with the number of values up to it; the last has them all."""
        total = 0
        for name, count in zip(self._names, self._counts, strict=True):
            total += count
            yield name, total


class Busy:
    """Seconds during which at least one request was under way, of requests that are told in the order of their ends."""

    def __init__(self) -> None:
        self._spans: deque[tuple[float, float]] = deque(maxlen=_MOST_SPANS)
        """Without a common moment; the latest last. Nothing that ends now began before the oldest of so many."""
        self.seconds = 0.0

    def add(self, begin: float, end: float) -> None:
        while self._spans and self._spans[-1][1] >= begin:
            earlier = self._spans.pop()
            self.seconds -= earlier[1] - earlier[0]
            begin, end = min(begin, earlier[0]), max(end, earlier[1])
        self._spans.append((begin, end))
        self.seconds += end - begin

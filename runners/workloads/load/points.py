"""The points of a sweep, and when the requests of each are due."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import accumulate

from recipes.traffic import Traffic
from runners.workloads.load.chance import chance_of

USUAL_REQUESTS = 100
_PER_STREAM = 4
"""So many requests for each of a closed loop's, or its beginning and end would be most of it."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One setting of the load: a closed loop or an arrival rate, and how long it lasts."""

    number: int
    """From 0."""
    concurrency: int | None = None
    """Requests under way in a closed loop."""
    rate_per_s: float | None = None
    """Arrivals of an open loop."""
    requests: int | None = None
    """At most so many."""
    duration_s: float | None = None
    """None begins after it."""

    @property
    def name(self) -> str:
        """As the records have it."""
        return f"concurrency={self.concurrency}" if self.rate_per_s is None else f"rate={self.rate_per_s:g}"

    @property
    def arrivals(self) -> int | None:
        """Requests, as far as they are known before; a closed loop that ends with the time sends what it can."""
        if self.rate_per_s is None or self.duration_s is None:
            return self.requests
        within = max(1, round(self.rate_per_s * self.duration_s))
        return within if self.requests is None else min(within, self.requests)


def points_of(traffic: Traffic) -> tuple[Point, ...]:
    """The sweep, from the lightest load to the heaviest."""
    return tuple(
        Point(
            number=number,
            concurrency=None if traffic.rate else int(value),
            rate_per_s=float(value) if traffic.rate else None,
            requests=_requests(traffic, value),
            duration_s=traffic.duration,
        )
        for number, value in enumerate(traffic.rate or traffic.concurrency)
    )


def _requests(traffic: Traffic, value: float) -> int | None:
    if traffic.requests is not None or traffic.duration is not None:
        return traffic.requests
    return USUAL_REQUESTS if traffic.rate else max(USUAL_REQUESTS, _PER_STREAM * int(value))


def due_times_s(traffic: Traffic, point: Point) -> array[float]:
    """When each request of an open loop is due, in seconds from the point's beginning.

    Gaps are gamma distributed with the shape `burstiness`, as in `vllm bench serve`; a shape of 1 is the exponential
    distribution of a Poisson process. As there, they are scaled so that n requests take n / rate: given their number,
    the arrivals of a Poisson process are distributed just so, and the rate is the one that was asked for. The same seed
    gives the same arrivals.
    """
    rate, requests = point.rate_per_s, point.arrivals
    assert rate is not None
    assert requests is not None
    if traffic.arrivals == "constant":
        return array("d", (number / rate for number in range(requests)))
    chance, shape = chance_of("arrivals", traffic.seed, point.number), traffic.burstiness
    times = array("d", accumulate(chance.gammavariate(shape, 1 / shape) for _ in range(requests + 1)))
    scale = requests / rate / times.pop()
    return array("d", (time * scale for time in times))

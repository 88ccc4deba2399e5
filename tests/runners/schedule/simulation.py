"""What an order of requests makes of a load, without waiting: a discrete-event simulation of an engine's slots."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Literal

from runners.schedule.order import Order, Place, shortest_first

Policy = Literal["schedule", "barriers", "one by one"]
REFERENCE_CONNECTIONS = 20


@dataclass(frozen=True)
class Document:
    """Service times by level and request, and which requests of the level below each needs."""

    seconds: tuple[tuple[float, ...], ...]
    needs: tuple[tuple[range, ...], ...]

    @property
    def levels(self) -> int:
        return len(self.seconds)

    @property
    def requests(self) -> int:
        return sum(map(len, self.seconds))

    @property
    def work_s(self) -> float:
        return sum(map(sum, self.seconds))

    @property
    def critical_path_s(self) -> float:
        """The longest chain of requests that must follow one another."""
        ends: list[float] = []
        for level, times in enumerate(self.seconds):
            begins = [max((ends[i] for i in self.needs[level][n]), default=0.0) for n in range(len(times))]
            ends = [begin + time for begin, time in zip(begins, times, strict=True)]
        return max(ends)


@dataclass(frozen=True)
class Ended:
    """Of one simulated load: when each document was finished, and what no order could beat."""

    seconds: tuple[float, ...]
    bound_s: float

    @property
    def makespan(self) -> float:
        """Over the lower bound: all work evenly on all slots, or the longest chain."""
        return max(self.seconds) / self.bound_s

    @property
    def mean_s(self) -> float:
        return fmean(self.seconds)


def document(chunks: int, *, joins: int = 7, spread: float = 0.3, chance: random.Random) -> Document:
    """So many chunks, of whose summaries `joins` make a request of the next level; times of 1 ± spread."""
    sizes = [chunks]
    while sizes[-1] > 1:
        sizes.append(math.ceil(sizes[-1] / joins))
    times = tuple(tuple(1 + spread * (2 * chance.random() - 1) for _ in range(size)) for size in sizes)
    needs: list[tuple[range, ...]] = [tuple(range(0) for _ in range(chunks))]
    for below, size in pairwise(sizes):
        needs.append(tuple(range(n * below // size, (n + 1) * below // size) for n in range(size)))
    return Document(times, tuple(needs))


def simulate(documents: Sequence[Document], slots: int, policy: Policy = "schedule") -> Ended:
    """The load on an engine of so many slots, which takes what is over them in the order of arrival."""
    return _Simulation(documents, slots, policy).run()


class _Simulation:
    def __init__(self, documents: Sequence[Document], slots: int, policy: Policy) -> None:
        self._documents, self._slots, self._policy = documents, slots, policy
        self._ranks = shortest_first([d.requests for d in documents])
        self._order: Order[tuple[int, int, int]] = Order()
        self._missing = [[list(map(len, needs)) for needs in d.needs] for d in documents]
        self._left = [[len(times) for times in d.seconds] for d in documents]
        self._ended = [0.0] * len(documents)
        self._held: list[tuple[int, int, int]] = []
        """Ready, but not to be asked for yet."""

    def run(self) -> Ended:
        documents, slots = self._documents, self._slots
        if self._policy == "schedule":
            for number, d in enumerate(documents):
                heights = {d.levels - level: float(len(times)) for level, times in enumerate(d.seconds)}
                self._order.expect(heights, self._ranks[number])
        for number, d in enumerate(documents):
            for index in range(len(d.seconds[0])):
                self._ready(number, 0, index)
        most = REFERENCE_CONNECTIONS if self._policy == "one by one" else slots
        free = [0.0] * slots
        under_way: list[tuple[float, int, int, int]] = []
        now = 0.0
        while True:
            while len(under_way) < most and (request := self._order.pop(slots)) is not None:
                begin = max(now, heapq.heappop(free))
                number, level, index = request
                end = begin + documents[number].seconds[level][index]
                heapq.heappush(free, end)
                heapq.heappush(under_way, (end, *request))
            if not under_way:
                break
            now, number, level, index = heapq.heappop(under_way)
            self._end(now, number, level, index)
        bound = max(sum(d.work_s for d in documents) / slots, max(d.critical_path_s for d in documents))
        return Ended(tuple(self._ended), bound)

    def _end(self, now: float, number: int, level: int, index: int) -> None:
        d = self._documents[number]
        self._ended[number] = now
        self._left[number][level] -= 1
        if level + 1 < d.levels:
            for above, needs in enumerate(d.needs[level + 1]):
                if index in needs:
                    self._missing[number][level + 1][above] -= 1
                    if not self._missing[number][level + 1][above]:
                        self._ready(number, level + 1, above)
        held, self._held = self._held, []
        for request in held:
            self._ready(*request)

    def _ready(self, number: int, level: int, index: int) -> None:
        """To the queue; or kept back, where the policy has barriers."""
        if self._is_held(number, level):
            self._held.append((number, level, index))
            return
        d = self._documents[number]
        rank = self._ranks[number] if self._policy == "schedule" else 0
        place = Place(rank, d.levels - level, index)
        if self._policy == "schedule":
            self._order.asked(place)
        else:
            place = Place(number, 1, index)
        self._order.add(place, (number, level, index))

    def _is_held(self, number: int, level: int) -> bool:
        if self._policy == "schedule":
            return False
        if self._policy == "barriers":
            return any(any(left[:level]) for left in self._left)
        return any(self._left[number][:level]) or any(any(left) for left in self._left[:number])

"""Which of the waiting requests goes next. Pure: knows neither time nor tasks, so that a simulation can drive it."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

TAIL_SHARE = 0.06
"""So much of a load's time may be lost to idle slots at its end, for the sake of documents that are finished early."""
DELAY_SHARE = 0.12
"""By so much of it the mean document may be late, for the sake of slots that are not idle."""
LOSS_WEIGHS = 4.0
"""Where both cannot be had: a second of the whole load, which is paid for, against one of the mean document."""


@dataclass(frozen=True, order=True)
class Place:
    """Where a request stands; a lower one goes first where nothing else decides."""

    document: int
    """The document's rank. The first are finished first: give the shortest the lowest (`shortest_first`)."""
    height: int
    """How many requests must follow one another from this one to the document's end, this one included."""
    index: int
    """Its number within its level."""


@dataclass(eq=False)
class Waiting(Generic[T]):
    """A request that waits for its turn."""

    place: Place
    item: T
    over: bool = False


@dataclass
class _Left:
    """What a document still asks for, by height."""

    foreseen: dict[int, float] = field(default_factory=dict)
    """Not asked for yet."""
    waiting: dict[int, int] = field(default_factory=dict)

    def by_height(self) -> dict[int, float]:
        found = {height: max(0.0, number) for height, number in self.foreseen.items()}
        for height, number in self.waiting.items():
            found[height] = found.get(height, 0.0) + number
        return found

    @property
    def empty(self) -> bool:
        return not self.waiting and all(number <= 0 for number in self.foreseen.values())


def shortest_first(requests: list[int]) -> list[int]:
    """Each document's rank by its number of requests, ties as they come: least mean time to a finished document.

    On one machine the order of the shortest processing time is the best there is (Smith, 1956), and with slots that
    documents share it is near to it. The longest comes last, and begins early enough all the same (`Order.tail_from`).
    """
    ranks = [0] * len(requests)
    for rank, number in enumerate(sorted(range(len(requests)), key=lambda n: requests[n])):
        ranks[number] = rank
    return ranks


class Order(Generic[T]):
    """The queue. Documents go one after the other, and in each what is nearest to its end goes first.

    That finishes documents early, and ends badly: the last document's upper levels run alone, while most slots have
    nothing to do. So the last documents, as many as it takes (`tail_from`), are done level by level instead, highest
    height first (Hu, 1961): their upper levels then fill each other's gaps.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self._count = 0
        self._by_document: list[tuple[Place, int, Waiting[T]]] = []
        self._by_height: list[tuple[int, Place, int, Waiting[T]]] = []
        self._left: dict[int, _Left] = {}
        self._ranks: list[int] = []
        """Of documents with something left, sorted; what has nothing left any more falls out only at the end."""
        self._all = 0.0
        """Requests, from the load's beginning to its end, as far as they can be foreseen."""
        self._unattributed = 0.0
        self._documents = 0
        self._tail, self._tail_of, self._tail_age = 0, 0, 0

    def expect(self, requests: Mapping[int, float], document: int | None) -> None:
        """So many more requests than thought are to come, by height; fewer if negative. See `Schedule.expect`."""
        self._all += sum(requests.values())
        if document is None:
            self._unattributed += sum(requests.values())
            return
        left = self._of(document)
        for height, number in requests.items():
            left.foreseen[height] = left.foreseen.get(height, 0.0) + number
        self._settle(document, left)
        self._tail_age = 0

    def foreseen(self, document: int) -> float:
        """Requests of a document that have not asked for their turn yet."""
        left = self._left.get(document)
        return sum(max(0.0, number) for number in left.foreseen.values()) if left else 0.0

    def asked(self, place: Place) -> None:
        """A request asks for its turn: it is foreseen no longer."""
        left = self._left.get(place.document)
        if left is not None and left.foreseen.get(place.height, 0.0) > 0:
            left.foreseen[place.height] -= 1
            self._settle(place.document, left)
        elif self._unattributed > 0:
            self._unattributed -= 1
        else:
            self._all += 1

    def add(self, place: Place, item: T) -> Waiting[T]:
        """A request that has asked waits."""
        entry = Waiting(place, item)
        self._count += 1
        self.waiting += 1
        heapq.heappush(self._by_document, (place, self._count, entry))
        heapq.heappush(self._by_height, (-place.height, place, self._count, entry))
        waiting = self._of(place.document).waiting
        waiting[place.height] = waiting.get(place.height, 0) + 1
        return entry

    def remove(self, entry: Waiting[T]) -> None:
        """It waits no longer, if it still does."""
        if entry.over:
            return
        entry.over = True
        self.waiting -= 1
        place = entry.place
        left = self._left[place.document]
        left.waiting[place.height] -= 1
        if not left.waiting[place.height]:
            del left.waiting[place.height]
        self._settle(place.document, left)

    def pop(self, slots: int) -> T | None:
        """The request that goes next on an engine of so many slots; None if none waits."""
        first = self._first()
        if first is None:
            return None
        if first.place.document >= self.tail_from(slots):
            while self._by_height[0][-1].over:
                heapq.heappop(self._by_height)
            first = self._by_height[0][-1]
        self.remove(first)
        self._tail_age -= 1
        return first.item

    def in_tail(self, document: int, slots: int) -> bool:
        """Whether a document is one of the last, and nothing of the others waits: it must begin to take its part."""
        tail = self.tail_from(slots)
        first = self._first()
        return document >= tail and (first is None or first.place.document >= tail)

    def tail_from(self, slots: int) -> int:
        """The rank of the first document of the tail; reckoned anew now and then, for it changes slowly."""
        if self._tail_age <= 0 or slots != self._tail_of:
            self._tail, self._tail_of = self._reckon_tail(slots), slots
            self._tail_age = max(8, slots // 4)
        return self._tail

    def _reckon_tail(self, slots: int) -> int:
        """The fewest last documents whose level-by-level order leaves few enough slots idle.

        In units of a request's mean time: k − 1 rounds follow once the last request of height k has begun, and only
        requests below k can fill them; what they do not fill is lost. If no number of documents loses little enough,
        the one with the least weighted sum of what is lost and of what the mean document waits for it.
        """
        while self._ranks and self._ranks[-1] not in self._left:
            self._ranks.pop()
        whole = self._all / slots
        group: dict[int, float] = {}
        cost = within = 0.0
        chosen, least = None, float("inf")
        behind: int | None = None
        for rank in reversed(self._ranks):
            left = self._left.get(rank)
            if left is None:
                continue
            own = left.by_height()
            if behind is None:
                behind = rank + 1  # a tail of no documents
                loss = float(max((h for h, n in own.items() if n > 0), default=1) - 1)
                chosen, least = behind, LOSS_WEIGHS * loss
                if loss <= TAIL_SHARE * whole:
                    break
            cost += within / slots / self._documents  # this one waits for those after it
            for height, requests in own.items():
                group[height] = group.get(height, 0.0) + requests
            within += sum(own.values())
            loss = _loss(group, slots)
            if cost > DELAY_SHARE * whole:
                break
            if LOSS_WEIGHS * loss + cost < least:
                chosen, least = rank, LOSS_WEIGHS * loss + cost
            if loss <= TAIL_SHARE * whole:
                return rank
        return 0 if chosen is None else chosen

    def _first(self) -> Waiting[T] | None:
        while self._by_document and self._by_document[0][-1].over:
            heapq.heappop(self._by_document)
        return self._by_document[0][-1] if self._by_document else None

    def _of(self, document: int) -> _Left:
        left = self._left.get(document)
        if left is None:
            left = self._left[document] = _Left()
            if not self._ranks or document > self._ranks[-1]:
                self._ranks.append(document)
                self._documents += 1
            elif (at := bisect_left(self._ranks, document)) == len(self._ranks) or self._ranks[at] != document:
                self._ranks.insert(at, document)
                self._documents += 1
        return left

    def _settle(self, document: int, left: _Left) -> None:
        if left.empty:
            self._left.pop(document, None)


def _loss(group: Mapping[int, float], slots: int) -> float:
    """Requests' times that the slots are not full at the end of a group that goes the highest height first."""
    loss, below = 0.0, 0.0
    for height in sorted(group):
        if group[height] > 0:
            loss = max(loss, height - 1 - below / slots)
        below += group[height]
    return loss

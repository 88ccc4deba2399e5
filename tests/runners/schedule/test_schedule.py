"""Turns, and room for documents: who is let through, and that nothing is lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from runners.engine import EngineSample
from runners.schedule.concurrency import Concurrency
from runners.schedule.schedule import Place, Schedule

Test = Callable[[], Awaitable[None]]


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 30))


async def settle() -> None:
    """Let everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Requests:
    """Requests that take their turns, and end when they are told to."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.begun: list[Place] = []
        self.tasks: dict[Place, asyncio.Task[None]] = {}
        self._ends: dict[Place, asyncio.Event] = {}

    def ask(self, *places: Place) -> None:
        for place in places:
            self._ends[place] = asyncio.Event()
            self.tasks[place] = asyncio.create_task(self._one(place))

    def end(self, *places: Place) -> None:
        for place in places:
            self._ends[place].set()

    async def _one(self, place: Place) -> None:
        async with self.schedule.turn(place):
            self.begun.append(place)
            await self._ends[place].wait()


def places(document: int, height: int, number: int) -> list[Place]:
    return [Place(document, height, index) for index in range(number)]


def test_no_more_are_under_way_than_the_limit_and_the_next_goes_when_one_ends() -> None:
    async def main() -> None:
        requests = Requests(schedule := Schedule(Concurrency(2)))
        later, early = places(1, 1, 2), places(0, 1, 3)
        requests.ask(*later, *early)
        await settle()
        assert (schedule.under_way, schedule.waiting) == (2, 3)
        requests.end(requests.begun[0])
        await settle()
        assert requests.begun[2] == early[0]
        requests.end(*later, *early)
        await settle()
        assert (schedule.under_way, schedule.waiting) == (0, 0)
        assert len(requests.begun) == 5

    run(main)


def test_a_raised_limit_hands_out_and_a_lowered_one_waits_until_it_fits() -> None:
    async def main() -> None:
        requests = Requests(schedule := Schedule(Concurrency(4)))
        asked = places(0, 1, 12)
        requests.ask(*asked)
        await settle()
        schedule.concurrency.limit = 6
        schedule.changed()
        await settle()
        assert schedule.under_way == 6
        schedule.concurrency.limit = 2
        schedule.changed()
        requests.end(*asked[:4])
        await settle()
        assert (schedule.under_way, len(requests.begun)) == (2, 6)
        requests.end(asked[4])
        await settle()
        assert (schedule.under_way, len(requests.begun)) == (2, 7)
        requests.end(*asked)
        await settle()
        assert schedule.under_way == 0

    run(main)


def test_a_request_that_is_cancelled_while_it_waits_leaves_the_queue() -> None:
    async def main() -> None:
        requests = Requests(schedule := Schedule(Concurrency(1)))
        asked = places(0, 1, 3)
        requests.ask(*asked)
        await settle()
        requests.tasks[asked[1]].cancel()
        await settle()
        assert (schedule.under_way, schedule.waiting) == (1, 1)
        requests.end(*asked)
        await settle()
        assert requests.begun == [asked[0], asked[2]]
        assert schedule.under_way == 0

    run(main)


def test_a_turn_that_was_given_to_a_cancelled_request_goes_to_the_next() -> None:
    async def main() -> None:
        requests = Requests(schedule := Schedule(Concurrency(1)))
        asked = places(0, 1, 3)
        requests.ask(*asked)
        await settle()
        requests.end(asked[0])
        while schedule.waiting == 2:  # the first is over, and the second has not noticed yet that its turn has come
            await asyncio.sleep(0)
        assert asked[1] not in requests.begun
        requests.tasks[asked[1]].cancel()
        await settle()
        assert requests.begun == [asked[0], asked[2]]
        requests.end(asked[2])
        await settle()
        assert (schedule.under_way, schedule.waiting) == (0, 0)

    run(main)


def test_a_request_that_fails_gives_its_slot_back() -> None:
    async def main() -> None:
        schedule = Schedule(Concurrency(1))
        for _ in range(3):
            with pytest.raises(ValueError, match="broken"):
                async with schedule.turn(Place(0, 1, 0)):
                    raise ValueError("broken")
        assert schedule.under_way == 0

    run(main)


def test_documents_begin_as_the_slots_need_them() -> None:
    async def main() -> None:
        requests = Requests(schedule := Schedule(Concurrency(4)))
        for rank in range(100):
            schedule.expect({2: 5, 1: 1}, document=rank)
        begun: list[int] = []

        async def begin_all() -> None:
            for rank in range(100):
                await schedule.room(rank)
                begun.append(rank)
                await settle()  # its text is being read
                requests.ask(*places(rank, 2, 5))

        task = asyncio.create_task(begin_all())
        await settle()
        await settle()
        await settle()
        first = len(begun)
        assert 2 <= first <= 5  # four under way, and some for when they end
        for _ in range(5):
            requests.end(*requests.begun)
            for _ in range(10):
                await settle()
        assert first < len(begun) <= first + 8
        task.cancel()

    run(main)


def test_documents_of_which_nothing_is_asked_do_not_keep_the_others_from_beginning() -> None:
    async def main() -> None:
        schedule = Schedule(Concurrency(2))
        for rank in range(1000):
            schedule.expect({2: 50, 1: 1}, document=rank)
        for rank in range(1000):
            await schedule.room(rank)
            schedule.expect({2: -50, 1: -1}, document=rank)  # its answers are on disk
        schedule.expect({1: 50}, document=1000)
        schedule.expect({1: 50}, document=1001)
        await schedule.room(1000)
        with suppress(TimeoutError):
            await asyncio.wait_for(schedule.room(1001), 0.01)
            raise AssertionError("one that has begun and has not asked yet counts")

    run(main)


def test_all_documents_of_the_tail_begin_when_nothing_else_waits() -> None:
    async def main() -> None:
        requests = Requests(schedule := Schedule(Concurrency(16)))
        for rank in range(6):
            schedule.expect({3: 40, 2: 8, 1: 1}, document=rank)
        waiting: list[int] = []

        async def begin_all() -> None:
            for rank in range(6):
                await schedule.room(rank)
                waiting.append(schedule.waiting)
                requests.ask(*places(rank, 3, 40))

        task = asyncio.create_task(begin_all())
        while len(waiting) < 6:
            requests.end(*requests.begun)
            await settle()
        assert max(waiting[:5]) <= 12  # those before begin when the slots need them
        assert waiting[5] >= 24  # the last of the tail, although many of the one before wait: it takes turns with it
        task.cancel()
        for other in requests.tasks.values():
            other.cancel()

    run(main)


def test_what_the_engine_says_moves_the_limit_and_hands_out() -> None:
    async def main() -> None:
        requests = Requests(schedule := Schedule(Concurrency(start=2)))
        requests.ask(*places(0, 1, 20))
        await settle()
        before = schedule.under_way
        schedule.looked(EngineSample(running=before, waiting=0))
        await settle()
        assert schedule.under_way == schedule.concurrency.limit == 2 * before
        schedule.refused()
        assert schedule.concurrency.limit < 2 * before
        assert schedule.summary() is not None
        for task in requests.tasks.values():
            task.cancel()

    run(main)


def test_nothing_is_told_of_a_limit_that_nobody_needed() -> None:
    assert Schedule(Concurrency()).summary() is None

"""Which request goes next: by itself, and in what it makes of whole loads."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from runners.schedule.order import Order, Place, shortest_first
from tests.runners.schedule.simulation import Policy, document, simulate


def popped(order: Order[str], slots: int = 4) -> list[str]:
    found = []
    while (item := order.pop(slots)) is not None:
        found.append(item)
    return found


def ask(order: Order[str], *places: tuple[int, int, int]) -> None:
    for place in places:
        order.asked(Place(*place))
        order.add(Place(*place), "/".join(map(str, place)))


def test_documents_go_one_after_the_other_and_what_is_nearest_to_the_end_first() -> None:
    order: Order[str] = Order()
    ask(order, (1, 1, 0), (0, 2, 1), (0, 2, 0), (0, 1, 0), (1, 1, 1))
    assert popped(order) == ["0/1/0", "0/2/0", "0/2/1", "1/1/0", "1/1/1"]


def test_neighbours_in_a_document_follow_each_other() -> None:
    order: Order[str] = Order()
    ask(order, *((0, 2, index) for index in (3, 1, 2, 0)))
    assert popped(order) == ["0/2/0", "0/2/1", "0/2/2", "0/2/3"]


def test_the_last_documents_go_level_by_level() -> None:
    order: Order[str] = Order()
    for number in range(4):
        order.expect({2: 8, 1: 1}, number)
    assert 0 < order.tail_from(8) < 4
    tail = order.tail_from(8)
    for number in range(4):
        ask(order, *((number, 2, index) for index in range(8)))
    ask(order, *((number, 1, 0) for number in range(4)))
    found = popped(order, 8)
    of_tail = [item for item in found if int(item[0]) >= tail]
    assert [item[2] for item in of_tail] == ["2"] * 8 * (4 - tail) + ["1"] * (4 - tail)
    assert found[: 9 * tail] == sorted(found[: 9 * tail], key=lambda item: Place(*map(int, item.split("/"))))


def test_there_is_no_tail_where_it_gains_nothing() -> None:
    single: Order[str] = Order()
    for number in range(50):
        single.expect({1: 1}, number)
    assert single.tail_from(16) == 50
    long: Order[str] = Order()
    for number in range(10):
        long.expect({2: 300, 1: 1}, number)
    assert long.tail_from(4) == 10


def test_a_removed_request_is_not_handed_out() -> None:
    order: Order[str] = Order()
    first = order.add(Place(0, 1, 0), "first")
    order.add(Place(0, 1, 1), "second")
    order.remove(first)
    order.remove(first)
    assert order.waiting == 1
    assert popped(order) == ["second"]


def test_what_was_foreseen_can_be_taken_back() -> None:
    order: Order[str] = Order()
    order.expect({2: 5, 1: 1}, 3)
    order.expect({2: -2}, 3)
    assert order.foreseen(3) == 4
    order.expect({2: -3, 1: -1}, 3)
    assert order.foreseen(3) == 0
    assert order.tail_from(4) == 0


def test_the_shortest_document_is_first_and_ties_stay_as_they_come() -> None:
    assert shortest_first([9, 1, 5, 1]) == [3, 0, 2, 1]


EQUAL = [84] * 10
MIXED = [12, 47, 84, 30, 160, 47, 7, 95, 20, 61]


def means(sizes: list[int], slots: int, policy: Policy) -> tuple[float, float]:
    """Makespan over the lower bound, and the mean time to a finished document."""
    ended = [
        simulate([document(n, chance=random.Random(f"{seed}/{i}")) for i, n in enumerate(sizes)], slots, policy)
        for seed in range(5)
    ]
    return fmean(e.makespan for e in ended), fmean(e.mean_s for e in ended)


@pytest.mark.parametrize(
    ("sizes", "slots"),
    [(EQUAL, 16), (MIXED, 16), ([300] * 10, 64), ([5] * 40 + [300], 16), ([60 + 20 * i for i in range(10)], 64)],
    ids=["equal", "mixed", "large on 64", "many small and one huge", "of 60 to 240 on 64"],
)
def test_ten_documents_end_soon_and_each_early(sizes: list[int], slots: int) -> None:
    makespan, mean = means(sizes, slots, "schedule")
    _, with_barriers = means(sizes, slots, "barriers")
    assert makespan <= 1.10
    assert mean <= 0.60 * with_barriers


def test_both_beat_one_document_after_the_other() -> None:
    makespan, mean = means([20] * 10, 16, "schedule")
    makespan_of_reference, mean_of_reference = means([20] * 10, 16, "one by one")
    assert makespan < 0.7 * makespan_of_reference
    assert mean < mean_of_reference


def test_ten_thousand_documents_are_ordered_quickly() -> None:
    """Each request costs some microseconds, however many documents there are: a second here would be quadratic work."""
    import time

    order: Order[str] = Order()
    for number in range(10_000):
        order.expect({2: 3, 1: 1}, number)
    began = time.process_time()
    for number in range(10_000):
        ask(order, *((number, 2, index) for index in range(3)))
        for _ in range(3):
            assert order.pop(64) is not None
        ask(order, (number, 1, 0))
        assert order.pop(64) is not None
    assert time.process_time() - began < 5.0

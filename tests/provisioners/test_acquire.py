"""From offers to a lease: one after the other, each intended before it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from provisioners.acquire import Acquisition
from provisioners.contract import Clearance, Lease, Offer, Order
from provisioners.journal import Journal
from recipes.errors import NoCapacity, NoMachine
from recipes.spec import Resources
from tests.emulators.provisioner import ProvisionerDouble

OFFERS = [Offer(provider="double", id=name) for name in ("one", "two", "three")]


def order_for(offer: Offer) -> Order:
    lease = Lease(provider="double", name=f"recipe-{offer.id}", run_id="r")
    return Order(offer=offer, lease=lease, resources=Resources())


class Scarce(ProvisionerDouble):
    """Refuses with these errors, in turn, before it grants."""

    def __init__(self, journal: Journal, refusals: Sequence[NoMachine]) -> None:
        super().__init__()
        self.journal, self.refusals = journal, list(refusals)
        self.states: list[str | None] = []

    async def create(self, order: Order, clearance: Clearance) -> Lease:
        self.states.append(self.journal.state(order.lease.name))
        if self.refusals:
            self.orders.append(order)
            raise self.refusals.pop(0)
        return await super().create(order, clearance)


def acquire(
    tmp_path: Path, *refusals: NoMachine, retry_s: float | None = None
) -> tuple[Scarce, Acquisition, list[float]]:
    journal = Journal(tmp_path / "ledger.db")
    double, slept = Scarce(journal, refusals), []
    acquisition = Acquisition(double, journal)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    try:
        asyncio.run(acquisition.get(OFFERS, order_for, Clearance(()), retry_s=retry_s, sleep=sleep))
    except NoMachine as error:
        double.refusals.append(error)
    return double, acquisition, slept


def test_the_first_offer_that_can_be_had_is_taken(tmp_path: Path) -> None:
    double, acquisition, _ = acquire(tmp_path, NoCapacity("sold out"), NoCapacity("sold out"))
    assert [order.offer.id for order in double.orders] == ["one", "two", "three"]
    assert double.states == ["intended"] * 3
    assert acquisition.offer == OFFERS[2]
    assert acquisition.lease is not None
    assert acquisition.lease.id == "id-1"
    states = [double.journal.state(f"recipe-{offer.id}") for offer in OFFERS]
    assert states == ["gone", "gone", "created"]


def test_what_no_other_offer_would_mend_ends_the_search(tmp_path: Path) -> None:
    double, acquisition, _ = acquire(tmp_path, NoMachine("the key was refused", advice="check RUNPOD_API_KEY"))
    assert [order.offer.id for order in double.orders] == ["one"]
    assert acquisition.lease is None
    assert double.refusals[0].message == "the key was refused"


def test_nothing_to_be_had_names_the_last_reason_and_the_way_out(tmp_path: Path) -> None:
    double, _, slept = acquire(tmp_path, *(NoCapacity(f"no {n}") for n in ("a", "b", "c")))
    (error,) = double.refusals
    assert isinstance(error, NoCapacity)
    assert (error.message, slept) == ("none of 3 offers could be had; the last said: no c", [])
    assert "resources.retry" in error.advice


def test_the_same_answer_of_all_is_told_as_such(tmp_path: Path) -> None:
    double, _, _ = acquire(tmp_path, *(NoCapacity("bad image") for _ in OFFERS))
    assert double.refusals[0].message == "none of 3 offers could be had; each said: bad image"


def test_with_patience_all_are_asked_again(tmp_path: Path) -> None:
    double, acquisition, slept = acquire(tmp_path, *(NoCapacity("later") for _ in range(4)), retry_s=600)
    assert [order.offer.id for order in double.orders] == ["one", "two", "three", "one", "two"]
    assert (len(slept), acquisition.offer) == (1, OFFERS[1])


@pytest.mark.parametrize("error", [ConnectionError("lost"), asyncio.CancelledError()])
def test_after_anything_else_the_lease_stays_what_may_exist(tmp_path: Path, error: BaseException) -> None:
    journal = Journal(tmp_path / "ledger.db")
    double = ProvisionerDouble(trouble={"create": error})
    acquisition = Acquisition(double, journal)

    async def main() -> None:
        with pytest.raises(type(error)):
            await acquisition.get(OFFERS, order_for, Clearance(()))

    asyncio.run(main())
    assert acquisition.lease is not None
    assert (acquisition.lease.name, acquisition.lease.id) == ("recipe-one", None)
    assert journal.state("recipe-one") == "intended"

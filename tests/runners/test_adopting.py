"""An earlier run whose client died: its machine is looked for before it is given up, and let go to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Clearance, Gone, Lease, Observed, Offer, Order, Release
from provisioners.journal import Entry, Journal
from recipes.errors import NoMachine
from recipes.spec import Resources
from runners import registry
from runners.cli import adopting
from runners.ledger import Ledger
from runners.run_folder import RunFolder
from tests.emulators.provisioner import ProvisionerDouble

NAME = "recipe-me-test-20260102-030405-abcd-60m"
RUN = "test-20260102-030405-abcd"


@dataclass
class Answering(ProvisionerDouble):
    """Says of a machine and of its lists what is next in turn; the last for ever."""

    states: list[str] = field(default_factory=list)
    lists: list[list[str] | NoMachine] = field(default_factory=list)

    async def observe(self, lease: Lease) -> Observed:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return Observed(state=state)  # type: ignore[arg-type]

    async def owned(self, owner: str) -> list[Lease]:
        found = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(found, NoMachine):
            raise found
        return [Lease(provider=self.name, name=name, run_id=RUN) for name in found]


def entry(asked_ago_s: float) -> Entry:
    at = datetime.now(UTC) - timedelta(seconds=asked_ago_s)
    lease = Lease(provider="double", name=NAME, run_id=RUN)
    return Entry(lease=lease, state="created", intended_at=at, created_at=at, changed_at=at, proof=None)


@pytest.fixture
def is_there(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """It looks often; `listed_s`: for so long a machine may be missing from the lists."""
    monkeypatch.setattr(adopting, "LOOK_EVERY_S", 0.001)

    def ask(
        *states: str, lists: list[list[str] | NoMachine], asked_ago_s: float = 3600, listed_s: float = 1800
    ) -> bool:
        monkeypatch.setattr(adopting, "_LISTED", timedelta(seconds=listed_s))
        double = Answering(states=list(states), lists=lists)
        monkeypatch.setattr(registry, "provisioner", lambda name: double)
        return asyncio.run(adopting._is_there(entry(asked_ago_s), lambda _: None))

    return ask


SILENCE = NoMachine("RunPod cannot be reached")


def test_a_machine_that_nobody_has_is_not_there(is_there: Callable[..., bool]) -> None:
    assert is_there("running", lists=[[]])
    assert not is_there("gone", lists=[[]])
    assert not is_there("unknown", lists=[["another"]])
    assert is_there("unknown", "starting", lists=[[]], asked_ago_s=0)
    assert is_there("unknown", lists=[[], [NAME]], asked_ago_s=0)


def test_a_moment_without_an_answer_costs_no_machine(is_there: Callable[..., bool]) -> None:
    assert is_there("unknown", "running", lists=[SILENCE])
    assert is_there("unknown", lists=[SILENCE, [NAME]])


def test_where_nobody_can_be_asked_it_is_not_called_gone(is_there: Callable[..., bool]) -> None:
    with pytest.raises(NoMachine, match="cannot be reached"):
        is_there("unknown", lists=[SILENCE], listed_s=0.1)


def test_letting_it_go_is_not_cut_short_by_a_second_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path)
    began, ended = asyncio.Event(), asyncio.Event()

    @dataclass
    class Slow(ProvisionerDouble):
        async def create(self, order: Order, clearance: Clearance) -> Lease:
            began.set()
            await asyncio.Event().wait()
            raise AssertionError

        async def destroy(self, lease: Lease, *, patience_s: float = 60.0) -> Release:
            began.set()
            await ended.wait()
            return Gone("absent twice")

    double: Any = Slow()
    double.mask = str
    monkeypatch.setattr(registry, "provisioner", lambda name: double)
    monkeypatch.setattr(adopting, "order_of", lambda *_: order)
    monkeypatch.setattr(adopting, "clear", lambda findings: Clearance(()))
    left = replace(entry(10), lease=replace(entry(10).lease, id="id-1"))
    order = Order(offer=Offer(provider="double", id="one"), lease=left.lease, resources=Resources())
    Journal(ledger.path).created(left.lease)
    plan: Any = type("Planned", (), {"provisioner": double, "offer": None, "findings": (), "mask": staticmethod(str)})()
    folder = RunFolder(tmp_path / "runs" / RUN)
    standing = adopting.Standing(folder, left, None)  # type: ignore[arg-type]

    async def life() -> None:
        task = asyncio.create_task(standing.taken_over(plan, lambda _: None))
        for _ in range(2):  # asked for, then being let go
            began.clear()
            await began.wait()
            task.cancel()
        task.cancel()
        await asyncio.sleep(0)
        ended.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(life())
    assert Journal(ledger.path).state(NAME) == "gone"

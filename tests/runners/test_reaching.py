"""Which run's engine can be spoken to, and what people are told of one that can't."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Gone, Lease
from provisioners.journal import Journal
from recipes.errors import NoMachine, UsageError
from runners.engine import EngineSample
from runners.keeping import Idleness
from runners.ledger import Ledger
from runners.plan_document import document_of
from runners.reaching import reachable, reached
from runners.run_folder import RunFolder
from tests.emulators.drives import plan_over


class Bench:
    """A run as its folder, its ledger and its journal tell of it."""

    def __init__(self, base: Path, *, began: str = "2026-01-01T00:00:00+00:00", **sections: Any) -> None:
        self.ledger = Ledger(base / "home")
        self.journal = Journal(self.ledger.path)
        self.folder = RunFolder.create(base / "home", "test")
        plan = plan_over(base / "texts", {"a": "Text."}, **sections)
        self.folder.write_text("recipe.yaml", "name: test\n")
        self.folder.write_json("resolved.json", plan.recipe.resolved())
        self.folder.write_json("plan.json", document_of(plan))
        self.ledger.begin(self.folder.run_id, "test", "digest", began, os.getpid())
        self.lease = Lease(provider="local", name="lease-1", run_id=self.folder.run_id, id=str(os.getpid()))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, engine={"name": "llamacpp"}, model={"builtin": "lead"})


def test_a_run_without_a_machine_yet(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"engine": {"name": "llamacpp"}, "model": {"builtin": "lead"}}
    going = Bench(tmp_path / "going", began=datetime.now(UTC).isoformat(), **sections)
    with pytest.raises(NoMachine, match="has no machine yet"):
        reachable(going.folder, going.ledger)
    lost = Bench(tmp_path / "lost", **sections)
    with pytest.raises(UsageError, match=r"has ended \(lost\)"):
        reachable(lost.folder, lost.ledger)


def test_a_machine_without_an_engine_yet(bench: Bench) -> None:
    bench.journal.reached(bench.lease)
    with pytest.raises(NoMachine, match="has not started its engine yet"):
        reachable(bench.folder, bench.ledger)


def test_an_engine_is_reached_at_the_port_that_was_written_down(bench: Bench) -> None:
    bench.journal.reached(bench.lease)
    bench.folder.write_json("engine.json", {"port": 4711})
    found = reachable(bench.folder, bench.ledger)
    assert (found.port, found.entry and found.entry.lease.name) == (4711, "lease-1")


def test_a_machine_that_has_gone_takes_its_engine_along(bench: Bench) -> None:
    bench.journal.reached(bench.lease)
    bench.folder.write_json("engine.json", {"port": 4711})
    bench.journal.released(bench.lease, Gone("it is empty"))
    with pytest.raises(UsageError, match="has ended") as caught:
        reachable(bench.folder, bench.ledger)
    assert caught.value.advice == "recipe up test --keep holds the machine after the work"


def test_a_local_lease_without_its_guard_is_no_machine(bench: Bench) -> None:
    """The key is known to the guard alone, so that a process of the same number is not taken for it."""
    bench.journal.reached(bench.lease)
    bench.folder.write_json("engine.json", {"port": 4711})

    async def main() -> None:
        async with reached(reachable(bench.folder, bench.ledger), {}):
            raise AssertionError("nobody is there")

    with pytest.raises(NoMachine, match="its guard has gone"):
        asyncio.run(main())


def test_an_endpoint_that_runs_by_itself_is_reached_at_any_time(tmp_path: Path) -> None:
    engine = {"name": "openai", "url": "http://127.0.0.1:9/v1", "api_key_env": "THE_KEY"}
    bench = Bench(tmp_path, secrets=["THE_KEY"], engine=engine)

    async def main() -> tuple[str, str | None]:
        async with reached(reachable(bench.folder, bench.ledger), {"THE_KEY": "secret"}) as endpoint:
            return endpoint.api_url, endpoint.key

    assert asyncio.run(main()) == ("http://127.0.0.1:9/v1", "secret")


def test_idle_is_an_engine_that_neither_runs_nor_has_run_anything_meanwhile() -> None:
    idle = Idleness(0.0)
    assert idle.seconds(EngineSample(prompt_tokens_total=5, output_tokens_total=5, running=0), 10.0) == 0
    assert idle.seconds(EngineSample(prompt_tokens_total=5, output_tokens_total=5, running=0), 20.0) == 10
    assert idle.seconds(EngineSample(prompt_tokens_total=5, output_tokens_total=5, running=1), 30.0) == 0
    assert idle.seconds(EngineSample(prompt_tokens_total=9, output_tokens_total=9, running=0), 40.0) == 0
    assert idle.seconds(EngineSample(prompt_tokens_total=9, output_tokens_total=9, running=0), 41.5) == 1.5

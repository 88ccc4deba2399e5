"""A run whose client died goes on with another: the same machine, the same engine, its price and its deadline."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Forward, Gone, Host, Lease, MayStillBill, Observed, Offer, Output, Process
from provisioners.journal import Entry, Journal
from recipes import catalogue
from recipes.errors import NoMachine, UsageError, WorkloadFailed
from recipes.load import LoadedRecipe, load, load_resolved
from runners import registry
from runners.cli.commands import attach
from runners.clock import Clock
from runners.engine import Installation
from runners.engines.llamacpp import LlamaCpp
from runners.events import Driven, Event
from runners.launch import ENGINE
from runners.ledger import Ledger
from runners.plan import Plan
from runners.run_folder import RunFolder
from runners.session import Session
from tests.emulators.drives import plan_over, prose
from tests.emulators.engine import EngineDouble, Refuse
from tests.emulators.provisioner import COMMAND, HostDouble, ProvisionerDouble, hang

TEXTS = {"a": prose("Geneva", 12)}
NAME = "recipe-me-test-20260102-030405-abcd-60m"
AGO_S = 100.0
NOBODY = 2**22 - 1
"""A process that there never was."""


class Installed(LlamaCpp):
    """Launched, and there already."""

    def installation(self, version: str, *, accelerated: bool) -> Installation | None:  # type: ignore[override]
        return None


@dataclass
class Started:
    """A process of the host double; it runs until the test ends."""

    pid: int = 1

    async def wait(self) -> int:
        await hang()
        raise AssertionError

    async def catch_up(self) -> None:
        pass


@dataclass
class Machine(ProvisionerDouble):
    """A provisioner whose hosts start commands, and lead to the engine double."""

    engine_address: str = ""
    started: list[tuple[str, str]] = field(default_factory=list)
    forwarded: list[int] = field(default_factory=list)
    ports_given: int = 0

    async def host(self, lease: Lease) -> Host:
        await self.asked("host")
        return MachineHost(self)


@dataclass
class MachineHost(HostDouble):
    provisioner: Machine

    async def start(self, name: str, argv: Sequence[str], *, env: Mapping[str, str], on_output: Output) -> Process:
        self.provisioner.started.append((name, " ".join(argv)))
        on_output(b"listening\n")
        return Started()

    async def free_port(self) -> int:
        self.provisioner.ports_given += 1
        return 40_000 + self.provisioner.ports_given

    async def forward(self, port: int) -> Forward:
        self.provisioner.forwarded.append(port)
        return Forward(self.provisioner.engine_address, "ssh -L")


class Bench:
    """A run's folder and journal; sessions of it, each with a provisioner and an engine of its own."""

    def __init__(self, base: Path) -> None:
        self.base, self.home = base, base / "home"
        self.ledger = Ledger(self.home)
        self.journal = Journal(self.ledger.path)
        self.folder = RunFolder.create(self.home, "test")
        self.machine = Machine()
        self.limits: dict[str, Any] = {}

    def plan(self, *, price: float | None = 36.0) -> Plan:
        sections = {"engine": {"name": "llamacpp"}, "model": {"builtin": "lead", "served_name": "double"}}
        folder, limits = self.base / "texts", self.limits
        plan = plan_over(folder, TEXTS, provisioner=self.machine, price=price, limits=limits, **sections)
        return replace(plan, engine=Installed())

    def dies(self, *, after: int = 3) -> Entry:
        """A client leases a machine, gets so many answers, and dies; its lease as the journal has it, some time ago."""
        self.machine.release = MayStillBill("the client is dead", COMMAND)
        result = self.run(until=after)
        assert result["requests"]["ok"] == after
        (self.folder.path / "result.json").unlink()
        self.forsaken()
        lease = Lease(
            provider="double",
            name=result["lease"]["name"],
            run_id=self.folder.run_id,
            id="id-1",
            price_usd_per_h=36.0,
            deadline=datetime.now(UTC) + timedelta(minutes=30),
        )
        self.journal.reached(lease)
        entry = self.journal.of_run(self.folder.run_id)
        assert entry is not None
        self.machine = Machine()
        return replace(entry, created_at=datetime.now(UTC) - timedelta(seconds=AGO_S))

    def forsaken(self) -> None:
        """In the ledger the run goes on, with a client that lives no more."""
        with closing(sqlite3.connect(self.ledger.path)) as db, db:
            db.execute("UPDATE experiments SET status = 'running', result = NULL, pid = ?", (NOBODY,))

    def run(
        self, *, adopted: Entry | None = None, price: float | None = 36.0, until: int = 1000, **engine: Any
    ) -> dict[str, Any]:
        """One client's session; it is interrupted after so many answers."""

        def watch(event: Event) -> None:
            if isinstance(event, Driven) and event.done == until:
                session.interrupt("SIGTERM")

        async def run() -> dict[str, Any]:
            nonlocal session
            double = EngineDouble(key=HostDouble(self.machine).key, **engine)
            async with asyncio.timeout(60), double:
                self.machine.engine_address = double.url.removeprefix("http://")
                plan = self.plan(price=price)
                session = Session(plan, self.folder, Clock(), self.ledger, {}, watch, adopted=adopted)
                return await session.run()

        session: Session
        return asyncio.run(run())

    @property
    def answered(self) -> int:
        return len((self.folder.path / "answers.jsonl").read_text().splitlines())

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder.path / "events.jsonl").read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_nothing_is_created_and_the_machine_is_let_go_at_the_end(bench: Bench) -> None:
    entry = bench.dies()
    result = bench.run(adopted=entry)
    assert (result["outcome"]["status"], result["exit_code"]) == ("completed", 0)
    assert bench.machine.calls == ["host", "ready_for", "fetch", "destroy"]
    assert bench.machine.orders == []
    assert bench.journal.state(entry.lease.name) == "gone"
    assert result["release"] == {"name": entry.lease.name, "state": "gone", "proof": "it is not listed any more"}


def test_the_work_goes_on_from_the_answers_on_disk(bench: Bench) -> None:
    entry = bench.dies(after=3)
    result = bench.run(adopted=entry)
    assert result["requests"]["resumed"] == 3
    assert result["documents"] == {"done": 1, "total": 1}
    assert bench.answered == result["requests"]["resumed"] + result["requests"]["ok"]
    ids = [json.loads(line)["id"] for line in (bench.folder.path / "answers.jsonl").read_text().splitlines()]
    assert len(ids) == len(set(ids))


def test_what_a_token_cost_counts_the_tokens_of_both_clients(bench: Bench) -> None:
    """The machine of both was one."""
    result = bench.run(adopted=bench.dies())
    rows = [json.loads(line) for line in (bench.folder.path / "requests.jsonl").read_text().splitlines()]
    tokens = sum(row["prompt_tokens"] for row in rows)
    assert tokens > result["throughput"]["prompt_tokens"], "a speed is what this client saw"
    cost = result["cost"]
    assert cost["usd_per_million_prompt_tokens"] == pytest.approx(cost["total_usd"] / tokens * 1e6, rel=1e-3)
    assert 0 < cost["useful_fraction"] < 0.1


def test_a_run_that_nobody_left_has_resumed_nothing(bench: Bench) -> None:
    result = bench.run()
    assert (result["requests"]["resumed"], result["lease"]["adopted"]) == (0, False)


def test_the_lease_keeps_its_name_its_price_and_its_deadline(bench: Bench) -> None:
    bench.limits = {"max_duration": "5h", "max_cost": 1000}
    entry = bench.dies()
    result = bench.run(adopted=entry, price=99.0)
    assert entry.lease.deadline is not None
    assert result["lease"] == {
        "name": entry.lease.name,
        "id": "id-1",
        "price_usd_per_h": 36.0,
        "deadline": entry.lease.deadline.isoformat(timespec="seconds"),
        "adopted": True,
    }
    assert result["cost"]["price_usd_per_h"] == 36.0
    (started,) = [event for event in bench.events() if event["event"] == "run-started"][-1:]
    assert started["deadline"] == entry.lease.deadline.isoformat(timespec="seconds")


def test_it_is_billed_from_its_creation_on(bench: Bench) -> None:
    """Also for the time in which nobody minded it."""
    result = bench.run(adopted=bench.dies())
    before = result["phases"][0]
    assert before["name"] == "before"
    assert before["seconds"] == pytest.approx(AGO_S, abs=5)
    assert before["usd"] == pytest.approx(AGO_S * 36 / 3600, abs=0.05)
    assert result["cost"]["billed_seconds"] >= AGO_S
    assert result["cost"]["total_usd"] == pytest.approx(result["cost"]["billed_seconds"] * 0.01, rel=0.01)
    assert [phase["name"] for phase in result["phases"][1:]] == [
        *("provision", "prepare", "launch", "drive", "collect", "release")
    ]


def test_a_machine_of_which_no_id_was_known_is_billed_from_its_intention_on(bench: Bench) -> None:
    entry = bench.dies()
    intended = datetime.now(UTC) - timedelta(seconds=AGO_S)
    entry = replace(entry, lease=replace(entry.lease, id=None), created_at=None, intended_at=intended)
    result = bench.run(adopted=entry)
    assert result["cost"]["billed_seconds"] >= AGO_S


def test_the_engine_is_looked_for_where_it_listens(bench: Bench) -> None:
    entry = bench.dies()
    port = json.loads((bench.folder.path / "engine.json").read_text())["port"]
    bench.run(adopted=entry)
    ((name, command),) = bench.machine.started
    assert name == ENGINE
    assert f"--port {port}" in command
    assert bench.machine.forwarded == [port]
    assert bench.machine.ports_given == 0


def test_a_client_that_died_before_the_launch_has_left_no_port(bench: Bench) -> None:
    entry = bench.dies()
    (bench.folder.path / "engine.json").unlink()
    assert bench.run(adopted=entry)["exit_code"] == 0
    assert bench.machine.ports_given == 1


def test_the_engines_log_of_before_is_kept(bench: Bench) -> None:
    entry = bench.dies()
    (bench.folder.path / "engine.log").write_text("what the first client heard\n")
    bench.run(adopted=entry)
    assert (bench.folder.path / "engine.log.1").read_text() == "what the first client heard\n"
    assert (bench.folder.path / "engine.log").read_text() == "listening\n"


def test_further_clients_keep_every_log(bench: Bench) -> None:
    entry = bench.dies()
    for text in ("first", "second"):
        bench.forsaken()
        (bench.folder.path / "engine.log").write_text(text)
        bench.run(adopted=entry)
    kept = [(bench.folder.path / f"engine.log{end}").read_text() for end in (".1", ".2", "")]
    assert kept == ["first", "second", "listening\n"]


def test_the_ledger_tells_of_both_clients(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = bench.dies()
    begun = bench.ledger.run(bench.folder.run_id)
    assert begun is not None
    statuses: list[str] = []

    def on_call(_: str) -> None:
        row = bench.ledger.run(bench.folder.run_id)
        assert row is not None
        assert row["pid"] == os.getpid()
        statuses.append(row["status"])

    bench.machine.on_call = on_call
    bench.run(adopted=entry)
    assert set(statuses) == {"running"}
    (row,) = bench.ledger.runs()
    assert (row["run_id"], row["status"], row["started_at"]) == (entry.lease.run_id, "completed", begun["started_at"])


def test_what_the_run_was_is_not_written_anew(bench: Bench) -> None:
    entry = bench.dies()
    names = ("recipe.yaml", "resolved.json", "plan.json")
    for name in names:
        (bench.folder.path / name).write_text(f"{name} of the first client")
    bench.run(adopted=entry)
    assert [(bench.folder.path / name).read_text() for name in names] == [
        f"{name} of the first client" for name in names
    ]


def test_a_deadline_that_has_passed_lets_go_at_once(bench: Bench) -> None:
    entry = bench.dies()
    entry = replace(entry, lease=replace(entry.lease, deadline=datetime.now(UTC) - timedelta(seconds=1)))
    bench.machine.trouble["host"] = hang
    result = bench.run(adopted=entry)
    assert (result["outcome"]["phase"], result["exit_code"]) == ("provision", NoMachine.exit_code)
    assert "the lease's deadline" in result["outcome"]["error"]
    assert bench.machine.calls[-1] == "destroy"


@pytest.mark.parametrize("place", ["host", "ready_for"])
def test_a_machine_that_cannot_be_had_back_is_let_go(bench: Bench, place: str) -> None:
    entry = bench.dies()
    bench.machine.trouble[place] = NoMachine("it does not let us in", advice="mend it")
    result = bench.run(adopted=entry)
    assert (result["outcome"]["error"], result["exit_code"]) == ("it does not let us in", NoMachine.exit_code)
    assert result["cost"]["billed_seconds"] >= AGO_S, "it has been there, and has been billed"
    assert (bench.machine.calls.count("destroy"), bench.journal.state(entry.lease.name)) == (1, "gone")


def test_what_may_still_bill_after_an_adoption_is_what_matters(bench: Bench) -> None:
    entry = bench.dies()
    bench.machine.release = MayStillBill("it is still listed", COMMAND)
    result = bench.run(adopted=entry)
    assert (result["exit_code"], bench.journal.state(entry.lease.name)) == (9, "may-still-bill")


def test_work_that_fails_again_lets_go_and_keeps_its_answers(bench: Bench) -> None:
    entry = bench.dies(after=2)
    result = bench.run(adopted=entry, faults={n: Refuse(500) for n in range(4, 100)})
    assert result["exit_code"] == WorkloadFailed.exit_code
    assert (result["requests"]["resumed"], bench.answered) == (2, 4)
    assert bench.machine.calls[-1] == "destroy"


def test_of_two_clients_that_adopt_at_once_the_second_is_told_and_touches_nothing(bench: Bench) -> None:
    entry = bench.dies()
    bench.ledger.adopt(bench.folder.run_id, os.getpid())
    with pytest.raises(UsageError, match=f"by process {os.getpid()}"):
        bench.run(adopted=entry)
    assert bench.machine.calls == []
    assert bench.journal.state(entry.lease.name) == "reached"


def resolved_again(loaded: LoadedRecipe, *, commit: str | None = None) -> LoadedRecipe:
    """As the folder of a run gives it back."""
    written = {
        "resolved.json": loaded.recipe.resolved(),
        "plan.json": {
            "recipe_digest": loaded.digest,
            "command": loaded.command,
            "source": str(loaded.source),
            "variant": loaded.variant,
            "model": {"commit": commit},
        },
    }
    read = json.loads(json.dumps(written))
    return load_resolved(read["resolved.json"], loaded.text, read["plan.json"])


@pytest.mark.parametrize("name", catalogue.names())
def test_a_recipe_comes_back_from_its_resolved_form_as_it_was(name: str, tmp_path: Path) -> None:
    for loaded in load(name, plugins=registry.installed(), cwd=tmp_path):
        assert resolved_again(loaded) == loaded


ODD = """
name: odd
resources: {provisioner: local, cpus: 1+, memory: 1GB+, disk_size: 20GB, retry: 30m, price_per_hour: 0.5}
env: {A: "1", B: ""}
secrets: [HF_TOKEN]
model: {builtin: lead}
engine: {name: llamacpp, expose: true, args: {ctx_size: 4096, flag: true, off: null, some: [1, a]}}
workload: {name: summarize, inputs: [a.txt], chunk_size: 448, chunk_overlap: 32, max_tokens: 96, seed: 3}
limits: {max_cost: 1.5, max_price: 2, max_duration: 90m, idle_duration: 5m, deadlines: {launch: 1h, release: 2m}}
collect: [nohup.out, "logs/**"]
matrix: {workload.concurrency: [1, 2]}
"""


def test_every_kind_of_value_comes_back_from_its_resolved_form(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Some text.")
    (tmp_path / "odd.yaml").write_text(ODD)
    variants = load("odd.yaml", plugins=registry.installed(), cwd=tmp_path)
    assert len(variants) == 2
    for loaded in variants:
        again = resolved_again(loaded)
        assert again.recipe.resolved() == loaded.recipe.resolved()
        assert (again.recipe.name, again.variant, again.digest) == (loaded.recipe.name, loaded.variant, loaded.digest)


def test_a_model_of_the_hub_stays_at_the_commit_that_was_planned(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Some text.")
    (tmp_path / "odd.yaml").write_text(ODD.replace("{builtin: lead}", "{repo: owner/model, revision: main}"))
    loaded = load("odd.yaml", plugins=registry.installed(), cwd=tmp_path)[0]
    assert resolved_again(loaded, commit="c0ffee").recipe.model.revision == "c0ffee"


def offer_of(bench: Bench, entry: Entry) -> Offer:
    return attach._offer(bench.folder, entry)


def entry_of(**details: Any) -> Entry:
    now = datetime.now(UTC)
    lease = Lease(provider="double", name=NAME, run_id="r", id="id-1", price_usd_per_h=3.5, details=details)
    return Entry(lease=lease, state="reached", intended_at=now, created_at=now, changed_at=now, proof=None)


def test_the_offer_of_an_adopted_lease_is_the_plans_at_the_price_of_the_lease(bench: Bench) -> None:
    offers = (
        Offer(provider="double", id="first", accelerator="A40", count=2, memory_gib=48.0, price_usd_per_h=1.0),
        Offer(
            provider="double", id="second", accelerator="A100", count=1, price_usd_per_h=2.0, spot=True, cloud="secure"
        ),
    )
    bench.folder.write_json("plan.json", replace(bench.plan(), offers=offers).document())
    assert offer_of(bench, entry_of()) == replace(offers[0], price_usd_per_h=3.5)
    assert offer_of(bench, entry_of(offer="second")) == replace(offers[1], price_usd_per_h=3.5)
    assert offer_of(bench, entry_of(offer="unheard of")) == replace(offers[0], price_usd_per_h=3.5)


def test_without_a_plan_the_offer_is_what_the_lease_tells(bench: Bench) -> None:
    assert offer_of(bench, entry_of()) == Offer(provider="double", id="id-1", price_usd_per_h=3.5)


def refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> UsageError:
    monkeypatch.setenv("RECIPE_HOME", str(bench.home))
    with pytest.raises(UsageError) as caught:
        attach.run(argparse.Namespace(run=bench.folder.run_id, json=False))
    return caught.value


def begin(bench: Bench, pid: int) -> None:
    bench.ledger.begin(bench.folder.run_id, "test", "d", datetime.now(UTC).isoformat(), pid)


def test_a_run_with_a_living_client_is_left_to_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(bench, os.getpid())
    error = refused(bench, monkeypatch)
    assert f"process {os.getpid()}" in error.message
    assert "recipe logs -f" in error.advice


def test_a_run_without_a_lease_says_how_to_begin_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(bench, NOBODY)
    error = refused(bench, monkeypatch)
    assert "no machine to go on with" in error.message
    assert "recipe up test" in error.advice


def test_a_lease_that_is_gone_says_why(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(bench, NOBODY)
    bench.journal.released(replace(entry_of().lease, run_id=bench.folder.run_id), Gone("deleted, absent twice"))
    assert "deleted, absent twice" in refused(bench, monkeypatch).message


def test_a_run_that_was_cut_off_before_its_plan_can_only_be_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(bench, NOBODY)
    bench.journal.created(replace(entry_of().lease, run_id=bench.folder.run_id))
    monkeypatch.setattr(registry, "provisioner", lambda _: Machine())
    error = refused(bench, monkeypatch)
    assert "before its plan was written" in error.message
    assert error.advice == f"recipe down {bench.folder.run_id}"


def test_a_run_that_has_ended_is_not_run_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result stands, also if its machine may still bill."""
    bench.machine.release = MayStillBill("it is still listed", COMMAND)
    result = bench.run()
    error = refused(bench, monkeypatch)
    assert "reap" in error.advice
    assert json.loads((bench.folder.path / "result.json").read_text()) == result


@pytest.mark.parametrize("state", ["gone", "stopped", "failed"])
def test_a_machine_that_the_provider_has_no_more_is_not_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, state: Any
) -> None:
    bench.dies()
    bench.machine.observed = Observed(state=state, message="the pod was taken away")
    monkeypatch.setattr(registry, "provisioner", lambda _: bench.machine)
    monkeypatch.setenv("RECIPE_HOME", str(bench.home))
    with pytest.raises((UsageError, NoMachine), match="taken away"):
        attach.run(argparse.Namespace(run=bench.folder.run_id, json=False))
    assert bench.machine.calls == ["observe"]

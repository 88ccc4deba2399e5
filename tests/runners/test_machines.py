"""What may be billing, from the journal and from the providers, whether somebody minds it, and how it is ended."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Gone, Lease, MayStillBill, Observed, Site
from provisioners.journal import Journal
from provisioners.processes import this_one
from provisioners.site import site_of
from recipes.errors import NoCredentials, NoMachine, Refused, UsageError
from recipes.references import Plugins
from runners import machines, registry
from runners.ledger import Ledger
from runners.machine import Machine
from runners.machines import end, end_all, everywhere, journalled, of_stack
from runners.terminal.machines_view import held_lines, machine_lines
from stacks.holding import UPDATED_BY, held, in_backend, in_stack, minded
from stacks.kept import Outputs, keep
from stacks.orders import lease_data
from stacks.reference import StackRef
from tests.emulators.provisioner import COMMAND, ProvisionerDouble

NOBODY = 2**22 + 3
"""A process that there never was: no system numbers them so far."""
NOW = datetime.now(UTC)


@dataclass
class Listing(ProvisionerDouble):
    """A provisioner that lists leases of an owner, or cannot be asked."""

    listed: list[Lease] = field(default_factory=list)
    silence: Exception | None = None
    owners: list[str] = field(default_factory=list)

    async def owned(self, owner: str) -> list[Lease]:
        self.owners.append(owner)
        if self.silence is not None:
            raise self.silence
        return self.listed


class Bench:
    """A ledger with a journal, and two providers."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RECIPE_HOME", str(home))
        self.ledger = Ledger(home)
        self.journal = Journal(self.ledger.path)
        self.providers = {name: Listing(name=name) for name in ("one", "two")}
        monkeypatch.setattr(registry, "installed", lambda: Plugins(tuple(self.providers), (), (), lambda _: False))
        monkeypatch.setattr(registry, "provisioner", self._provisioner)

    def _provisioner(self, name: str) -> Listing:
        if name not in self.providers:
            raise Refused(f"resources.provisioner {name} is not in this version of recipe")
        return self.providers[name]

    def lease(self, run: str, provider: str = "one", *, pid: int | None = NOBODY, **fields: Any) -> Lease:
        """A lease that the journal knows, of a run whose client has this number; without one, of no run of ours."""
        lease = lease_of(run, provider, **fields)
        if pid is not None:
            self.ledger.begin(run, "test", "d", datetime.now(UTC).isoformat(), pid)
        (self.journal.created if lease.id else self.journal.intend)(lease)
        return lease

    def everywhere(self, owner: str = "me") -> tuple[list[Machine], dict[str, NoMachine]]:
        return asyncio.run(everywhere(self.ledger, owner))

    def end_all(self, *found: Machine) -> list[dict[str, Any]]:
        return asyncio.run(end_all(found or journalled(self.ledger), self.ledger))


def lease_of(run: str, provider: str = "one", **fields: Any) -> Lease:
    given = {"id": f"id-of-{run}", "price_usd_per_h": 3.6, **fields}
    return Lease(provider=provider, name=f"recipe-me-{run}", run_id=run, **given)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path / "home", monkeypatch)


@pytest.fixture
def zombie() -> Iterator[int]:
    """A process that has ended, and of which nobody has taken notice."""
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield process.pid
    process.wait()


def test_a_lease_is_minded_by_its_living_client_only(bench: Bench) -> None:
    bench.lease("alive", pid=os.getpid())
    bench.lease("dead", pid=NOBODY)
    bench.lease("stranger", pid=None)
    found = {machine.lease.run_id: machine.client for machine in journalled(bench.ledger)}
    assert found == {"alive": "running", "dead": "gone", "stranger": "gone"}


def test_a_client_that_is_a_zombie_is_gone(bench: Bench, zombie: int) -> None:
    bench.lease("dead", pid=zombie)
    (machine,) = journalled(bench.ledger)
    assert machine.client == "gone"


def test_what_a_process_minds_is_minded_while_it_lives_whatever_its_clock_does(bench: Bench, zombie: int) -> None:
    pid, since = this_one()
    minds = {"me": (pid, since), "stepped": (pid, since - 1.5), "later": (pid, since - 60), "zombie": (zombie, since)}
    for name, process in minds.items():
        bench.journal.created(minded(lease_of(name), process))
    bench.journal.created(held(minded(lease_of("held"), (pid, since)), StackRef("gpu_pod")))
    bench.journal.created(lease_of("spoilt", details={"minded_by": "me"}))
    found = {machine.lease.run_id for machine in journalled(bench.ledger) if machine.client == "running"}
    assert found == {"me", "stepped"}


def test_a_later_process_of_the_same_number_is_another(bench: Bench) -> None:
    """A number that was the client's yesterday may be anybody's today."""
    run = "yesterday"
    bench.ledger.begin(run, "test", "d", (NOW - timedelta(days=1)).isoformat(), os.getpid())
    bench.journal.created(lease_of(run))
    (machine,) = journalled(bench.ledger)
    assert machine.client == "gone"


def test_a_client_that_took_over_minds_the_lease(bench: Bench) -> None:
    run = "yesterday"
    bench.ledger.begin(run, "test", "d", (NOW - timedelta(days=1)).isoformat(), NOBODY)
    bench.journal.created(lease_of(run))
    bench.ledger.adopt(run, os.getpid())
    (machine,) = journalled(bench.ledger)
    assert machine.client == "running"


def test_a_run_that_has_ended_minds_nothing(bench: Bench) -> None:
    lease = bench.lease("ended", pid=os.getpid())
    bench.journal.released(lease, MayStillBill("still listed", COMMAND))
    outcome = {"status": "completed", "phase": None}
    bench.ledger.end({"run_id": "ended", "ended_at": "", "outcome": outcome, "cost": {"total_usd": 1}})
    (machine,) = journalled(bench.ledger)
    assert (machine.client, machine.state) == ("gone", "may-still-bill")


def test_what_is_gone_is_not_among_them(bench: Bench) -> None:
    lease = bench.lease("done")
    bench.journal.released(lease, Gone("absent"))
    assert journalled(bench.ledger) == []


def test_what_it_has_cost_is_counted_from_its_creation(bench: Bench) -> None:
    machine = Machine(lease=lease_of("r"), client="gone", state="created", since=NOW - timedelta(hours=2))
    assert machine.usd(NOW) == pytest.approx(7.2)
    assert replace(machine, lease=lease_of("r", price_usd_per_h=None)).usd(NOW) is None
    assert replace(machine, since=None).usd(NOW) is None


def test_a_row_is_plain_data_whatever_is_not_known(bench: Bench) -> None:
    bare = Machine(lease=lease_of("r", id=None, price_usd_per_h=None), client="elsewhere", state="listed").row()
    assert (bare["id"], bare["price_usd_per_h"], bare["since"], bare["usd"], bare["deadline"]) == (None,) * 5
    full = Machine(lease=lease_of("r", deadline=NOW), client="gone", state="created", since=NOW).row()
    assert full["deadline"] == full["since"] == NOW.isoformat(timespec="seconds")


def test_the_providers_tell_of_what_other_machines_began(bench: Bench) -> None:
    bench.providers["two"].listed = [lease_of("elsewhere", "two")]
    found, silent = bench.everywhere("me")
    assert [(m.lease.run_id, m.client, m.state) for m in found] == [("elsewhere", "elsewhere", "listed")]
    assert silent == {}
    assert bench.providers["one"].owners == bench.providers["two"].owners == ["me"]


def test_what_both_tell_of_is_one_machine_as_the_journal_knows_it(bench: Bench) -> None:
    lease = bench.lease("mine", pid=os.getpid())
    bench.providers["one"].listed = [replace(lease, price_usd_per_h=9.9)]
    ((machine,), _) = bench.everywhere()
    assert (machine.lease, machine.client) == (lease, "running")


def test_the_id_that_was_lost_comes_from_the_provider(bench: Bench) -> None:
    """The client died between its question and the answer."""
    bench.lease("lost", id=None)
    bench.providers["one"].listed = [lease_of("lost", id="id-9")]
    ((machine,), _) = bench.everywhere()
    assert (machine.lease.id, machine.client, machine.state) == ("id-9", "gone", "intended")
    assert machine.since is not None


def test_the_same_name_at_two_providers_is_two_machines(bench: Bench) -> None:
    for name, provider in bench.providers.items():
        provider.listed = [lease_of("twin", name)]
    found, _ = bench.everywhere()
    assert sorted(machine.lease.provider for machine in found) == ["one", "two"]


def test_a_machine_is_one_where_a_provisioner_stands_upon_the_one_that_lists_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.providers["two"], "underlying", "one", raising=False)
    bench.journal.intend(lease_of("shared", "two", id=None, details={"kept": True}))
    bench.providers["one"].listed = [lease_of("shared", "one", id="id-9", details={"listed": True})]
    ((machine,), _) = bench.everywhere()
    assert (machine.lease.provider, machine.lease.id) == ("two", "id-9")
    assert machine.lease.details == {"kept": True, "listed": True}


def test_the_provider_that_another_stands_upon_is_missed_without_its_key(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.providers["two"], "underlying", "one", raising=False)
    bench.journal.intend(lease_of("shared", "two", id=None))
    bench.providers["one"].listed = NoCredentials("no key")
    _, silent = bench.everywhere()
    assert list(silent) == ["one"]


def test_what_a_stack_holds_is_told_with_its_stack(bench: Bench) -> None:
    bench.journal.created(held(lease_of("pod"), StackRef("gpu_pod", "team")))
    ((machine,), _) = bench.everywhere()
    assert (machine.held_by, machine.row()["held_by"]) == ("gpu_pod/team", "gpu_pod/team")


def test_what_a_stack_has_begun_to_let_go_it_does_not_hold(bench: Bench) -> None:
    pod = held(lease_of("pod"), StackRef("gpu_pod"))
    for step in (bench.journal.releasing, lambda lease: bench.journal.released(lease, MayStillBill("on", COMMAND))):
        step(pod)
        ((machine,), _) = bench.everywhere()
        assert machine.held_by is None


def test_what_a_stack_held_and_somebody_else_has_ended_is_written_down_with_the_proof(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.providers["two"], "underlying", "one", raising=False)
    pod = held(lease_of("pod", "two"), StackRef("gpu_pod"))
    bench.journal.reached(pod)
    bench.providers["one"].observed = Observed(state="running")
    assert [machine.held_by for machine in bench.everywhere()[0]] == ["gpu_pod"]
    bench.providers["one"].observed = Observed(state="gone")
    assert bench.everywhere() == ([], {})
    assert bench.journal.state(pod.name) == "gone"
    assert bench.providers["two"].calls == []  # its stack may hold another one by now


def test_another_machine_of_the_same_name_is_one_that_nobody_minds(bench: Bench) -> None:
    lease = bench.lease("mine", pid=os.getpid())
    twin = replace(lease, id="id-2")
    bench.providers["one"].listed = [twin, lease]
    found, _ = bench.everywhere()
    assert [(machine.lease.id, machine.client) for machine in found] == [("id-of-mine", "running"), ("id-2", "gone")]
    bench.providers["one"].release = MayStillBill("still listed", COMMAND)
    bench.end_all(found[1])
    assert bench.journal.state(lease.name) == "created"  # the first one is as it was
    again, _ = bench.everywhere()
    told = [(machine.lease.id, machine.state) for machine in again]
    assert told == [("id-of-mine", "created"), ("id-2", "may-still-bill")]


def test_whoever_still_asks_for_his_machine_deals_with_two_of_its_name(bench: Bench) -> None:
    lease = bench.lease("mine", id=None, pid=os.getpid())
    bench.providers["one"].listed = [replace(lease, id="id-1"), replace(lease, id="id-2")]
    found, _ = bench.everywhere()
    assert [(machine.lease.id, machine.client) for machine in found] == [("id-1", "running"), ("id-2", "running")]


def test_a_stacks_pod_is_the_one_of_this_backend(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for run, url in (("ours", "file:///ours"), ("another", "s3://another")):
        lease = lease_of(run, details=in_stack("recipe-gpu-pod", "main"))
        bench.journal.created(held(in_backend(lease, url), StackRef("gpu_pod")))
    for url, run in (("file:///ours", "ours"), ("s3://another", "another")):
        monkeypatch.setenv("PULUMI_BACKEND_URL", url)
        entry = of_stack(bench.ledger, "gpu_pod")
        assert entry is not None
        assert entry.lease.run_id == run
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://another/")
    assert of_stack(bench.ledger, "gpu_pod") is not None, "the same place, spelled otherwise"
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://a-third")
    with pytest.raises(
        UsageError, match="that was rented from here is of a stack whose state lies in s3://another"
    ) as no:
        of_stack(bench.ledger, "gpu_pod")
    assert no.value.advice == "recipe down another ends it"
    assert of_stack(bench.ledger, "ours") is not None
    with pytest.raises(UsageError, match="was rented from here") as no:
        of_stack(bench.ledger, "gpu_pod/team")
    assert "recipe stack destroy gpu_pod/team" in no.value.advice


def test_what_a_stack_of_another_backend_holds_is_ended_by_its_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = lease_of("theirs", details=in_stack("recipe-gpu-pod", "main"))
    bench.journal.created(held(in_backend(lease, "s3://theirs"), StackRef("gpu_pod")))

    def told() -> tuple[str, str]:
        rows = [machine.row() for machine in journalled(bench.ledger)]
        return " ".join(held_lines(rows)), " ".join(map(str, machine_lines(rows, none="")[1:]))

    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://theirs")
    assert "recipe stack destroy gpu_pod ends it" in told()[0]
    assert told()[1] == ""
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://ours")
    assert "its state lies in s3://theirs; recipe down theirs ends it" in told()[0]
    assert "stack gpu_pod has its state in s3://theirs; recipe down theirs ends its pod from here" in told()[1]


OURS, THEIRS = (2**22 + 1, 1795337377.125), [2**22 + 2, 1795337377.5]


@pytest.mark.parametrize(("by", "held_by"), [(THEIRS, "gpu_pod"), (list(OURS), None), (None, None)], ids=str)
def test_what_another_update_has_gone_on_with_is_held(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, by: Any, held_by: str | None
) -> None:
    unnamed = lease_of("mine", id=None, details=in_stack("recipe-gpu-pod", "main"))
    lease = bench.lease("mine", id=None, pid=None, details=minded(unnamed, OURS).details)

    async def outputs_of(site: Site, ref: StackRef) -> Outputs:
        assert ref == StackRef("gpu_pod")
        return Outputs(values={"lease": lease_data(replace(lease, id="id-1")), UPDATED_BY: by}, at=NOW, source="pulumi")

    monkeypatch.setattr(machines, "outputs_of", outputs_of)
    ((machine,), _) = bench.everywhere()
    assert machine.held_by == held_by


def test_what_somebody_has_begun_to_let_go_is_held_by_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    details = minded(lease_of("mine", details=in_stack("recipe-gpu-pod", "main")), OURS).details
    lease = bench.lease("mine", pid=None, details=details)
    bench.journal.released(lease, MayStillBill("it is still listed", COMMAND))

    async def outputs_of(site: Site, ref: StackRef) -> Outputs:
        return Outputs(values={"lease": lease_data(lease), UPDATED_BY: THEIRS}, at=NOW, source="pulumi")

    monkeypatch.setattr(machines, "outputs_of", outputs_of)
    ((machine,), _) = bench.everywhere()
    assert (machine.state, machine.held_by) == ("may-still-bill", None)


@pytest.mark.parametrize(("seen", "left", "held_by"), [("mine", 1, "gpu_pod/ana"), ("mine", -1, None), ("no", 1, None)])
def test_what_was_not_begun_here_is_held_by_the_stack_that_was_seen_with_it(
    bench: Bench, seen: str, left: int, held_by: str | None
) -> None:
    listed = lease_of("mine", deadline=NOW + timedelta(hours=left))
    bench.providers["one"].listed = [listed]
    outputs = {"lease": lease_data(replace(listed, name=f"recipe-me-{seen}"))}
    keep(site_of(os.environ), StackRef("gpu_pod", "ana"), outputs)
    ((machine,), _) = bench.everywhere()
    assert (machine.client, machine.held_by) == ("elsewhere", held_by)


@pytest.mark.parametrize(("left", "state"), [(-1, "running"), (1, "running"), (1, "gone")])
def test_what_another_computer_has_gone_on_with_is_held_until_its_deadline_while_it_is_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, left: int, state: Any
) -> None:
    details = minded(lease_of("mine", details=in_stack("recipe-gpu-pod", "main")), OURS).details
    lease = bench.lease("mine", pid=None, details=details, deadline=NOW + timedelta(hours=left))

    async def outputs_of(site: Site, ref: StackRef) -> Outputs:
        return Outputs(values={"lease": lease_data(lease), UPDATED_BY: THEIRS}, at=NOW, source="kept")

    monkeypatch.setattr(machines, "outputs_of", outputs_of)
    bench.providers["one"].observed = Observed(state=state)
    held_by = [machine.held_by for machine in bench.everywhere()[0]]
    assert held_by == {(-1, "running"): [None], (1, "running"): ["gpu_pod"], (1, "gone"): []}[left, state]
    assert bench.journal.state(lease.name) == ("gone" if state == "gone" else "created")


@pytest.mark.parametrize("seen", ["gone", "unknown", "running"])
def test_what_another_process_has_proven_gone_stays_so_unless_it_is_seen_after_that(bench: Bench, seen: Any) -> None:
    lease, one = bench.lease("mine"), bench.providers["one"]
    one.release, one.observed = MayStillBill("not proven", COMMAND), Observed(state=seen)
    one.on_call = lambda name: bench.journal.released(lease, Gone("absent twice")) if name == "destroy" else None
    (machine,) = journalled(bench.ledger)
    is_there = seen == "running"
    assert asyncio.run(end(machine, bench.ledger)) == (one.release if is_there else Gone("absent twice"))
    assert bench.journal.state(lease.name) == ("may-still-bill" if is_there else "gone")


def test_what_another_process_has_proven_gone_may_bill_if_nobody_can_look(bench: Bench) -> None:
    lease, one = bench.lease("mine"), bench.providers["one"]
    one.release = MayStillBill("not proven", COMMAND)
    one.on_call = lambda name: bench.journal.released(lease, Gone("absent twice")) if name == "destroy" else None
    one.trouble["observe"] = NoMachine("no network")
    (machine,) = journalled(bench.ledger)
    assert asyncio.run(end(machine, bench.ledger)) == one.release
    assert bench.journal.state(lease.name) == "may-still-bill"


def test_what_the_journal_calls_gone_and_a_provider_still_lists_is_told(bench: Bench) -> None:
    lease = bench.lease("zombie")
    bench.journal.released(lease, Gone("absent twice"))
    bench.providers["one"].listed = [lease]
    ((machine,), _) = bench.everywhere()
    assert machine.state == "listed"


@pytest.mark.parametrize("silence", [NoMachine("no network"), ZeroDivisionError("a slip"), TimeoutError()], ids=repr)
def test_a_provider_that_cannot_be_asked_hides_no_other(bench: Bench, silence: Exception) -> None:
    bench.providers["one"].silence = silence
    bench.providers["two"].listed = [lease_of("elsewhere", "two")]
    found, silent = bench.everywhere()
    assert [machine.lease.provider for machine in found] == ["two"]
    assert list(silent) == ["one"]
    assert silent["one"].message


def test_a_provider_without_a_key_is_missed_only_if_the_journal_knows_a_lease_of_it(bench: Bench) -> None:
    bench.providers["one"].silence = NoCredentials("no key is set")
    assert bench.everywhere() == ([], {})
    bench.lease("mine")
    found, silent = bench.everywhere()
    assert ([machine.lease.run_id for machine in found], list(silent)) == (["mine"], ["one"])


def test_each_step_of_an_end_is_in_the_journal(bench: Bench) -> None:
    lease = bench.lease("mine")
    states: list[str | None] = []
    bench.providers["one"].on_call = lambda _: states.append(bench.journal.state(lease.name))
    (row,) = bench.end_all()
    assert states == ["releasing"]
    assert bench.journal.state(lease.name) == "gone"
    assert row["release"] == {"state": "gone", "proof": "it is not listed any more"}
    assert journalled(bench.ledger) == []


def test_a_machine_that_began_elsewhere_is_in_the_journal_once_it_is_ended_here(bench: Bench) -> None:
    bench.providers["one"].release = MayStillBill("still listed", COMMAND)
    elsewhere = Machine(lease=lease_of("elsewhere"), client="elsewhere", state="listed")
    bench.end_all(elsewhere)
    (machine,) = journalled(bench.ledger)
    assert (machine.lease.run_id, machine.state, machine.client) == ("elsewhere", "may-still-bill", "gone")


@pytest.mark.parametrize(
    "error", [ConnectionError("no route"), NoMachine("no key"), ZeroDivisionError("a slip")], ids=repr
)
def test_an_end_that_raises_may_still_bill(bench: Bench, error: Exception) -> None:
    lease = bench.lease("mine")
    bench.providers["one"].trouble["destroy"] = error
    (row,) = bench.end_all()
    assert (row["release"]["state"], row["release"]["command"]) == ("may-still-bill", COMMAND)
    assert str(error) in row["release"]["reason"]
    assert bench.journal.state(lease.name) == "may-still-bill"


def test_all_are_ended_at_the_same_time_and_told_in_their_order(bench: Bench) -> None:
    """Each waits for all others, so that one after the other would never end."""
    for run in ("a", "b", "c"):
        bench.lease(run)
    arrived = 0

    async def until_all_are_here() -> None:
        nonlocal arrived
        arrived += 1
        while arrived < 3:
            await asyncio.sleep(0)

    bench.providers["one"].trouble["destroy"] = until_all_are_here
    assert [row["run_id"] for row in bench.end_all()] == ["a", "b", "c"]


def test_a_lease_of_a_plugin_that_is_not_installed_any_more_keeps_no_other_from_its_end(bench: Bench) -> None:
    bench.lease("strange", "vanished")
    bench.lease("mine")
    rows = {row["run_id"]: row["release"] for row in bench.end_all()}
    assert rows["mine"]["state"] == "gone"
    assert rows["strange"]["state"] == "may-still-bill"
    assert "vanished" in rows["strange"]["reason"]


@pytest.mark.parametrize("step", ["releasing", "released"])
def test_a_journal_that_cannot_be_written_keeps_no_machine_from_its_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    bench.lease("mine")

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Journal, step, full)
    (row,) = bench.end_all()
    assert bench.providers["one"].calls == ["destroy"]
    assert row["release"]["state"] == "gone"


def test_the_patience_is_passed_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.lease("mine")
    given: list[float] = []

    async def destroy(_: Lease, *, patience_s: float) -> Gone:
        given.append(patience_s)
        return Gone("absent")

    monkeypatch.setattr(bench.providers["one"], "destroy", destroy)
    (machine,) = journalled(bench.ledger)
    assert asyncio.run(end(machine, bench.ledger, patience_s=7)) == Gone("absent")
    assert given == [7]


def test_every_provisioner_that_is_installed_can_be_asked_without_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("RUNPOD_API_KEY", "RECIPE_RUNPOD_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("RECIPE_HOME", str(tmp_path))
    assert asyncio.run(machines.everywhere(Ledger(tmp_path), "nobody")) == ([], {})

"""A pod's stack in people's words: what bills, what has ended by itself, and why another pod is to be made."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from provisioners.contract import Gone, Lease
from provisioners.journal import Journal
from recipes.errors import MayStillBillError, NoMachine
from runners import registry
from runners.ledger import Ledger
from runners.machines import journalled
from runners.stacking import gpu_pod
from runners.stacking.pod_journal import proof_of
from stacks.holding import in_backend, in_stack, minded
from stacks.orders import lease_data
from stacks.reference import StackRef
from stacks.values import Changes, Step, Unusable
from tests.emulators.provisioner import ProvisionerDouble

NOW = datetime.now(UTC)
WANTED: dict[str, Any] = {
    "accelerators": "A40:1",
    "recipe": "podlet",
    "makes ready": "one",
    "ports": [8000],
    "limits": {"max_duration": 10800.0, "max_cost": 3.0},
}


def outputs(until: datetime) -> dict[str, Any]:
    lease = Lease(
        provider="pulumi", name="recipe-ana-podlet", run_id="podlet-1", id="x1", price_usd_per_h=0.44, deadline=until
    )
    return {"lease": lease_data(lease)}


def replaced(now: dict[str, Any], *, op: str = "replace", until: datetime = NOW + timedelta(hours=2)) -> Any:
    changes = Changes((Step(op=op, type="GpuPod", name="pod", changed=("run", "wanted")),))
    return gpu_pod.replaced(changes, {"wanted": WANTED}, {"wanted": now}, outputs(until))


@pytest.mark.parametrize(
    ("now", "because"),
    [
        ({**WANTED, "accelerators": "L40S:1"}, "resources.accelerators A40:1 → L40S:1"),
        ({**WANTED, "cloud": "secure"}, "resources.cloud nothing → secure"),
        ({**WANTED, "recipe": "other"}, "name podlet → other"),
        ({**WANTED, "limits": {"max_duration": 3600.0, "max_cost": 3.0}}, "limits.max_duration 3h → 1h"),
        ({**WANTED, "limits": {"max_duration": 10800.0}}, "limits.max_cost $3.00 → nothing"),
        ({**WANTED, "ports": [8000, 22]}, "ports 8000 → 8000, 22"),
        ({**WANTED, "makes ready": "two"}, "its engine, its model or how they are made ready"),
    ],
)
def test_why_another_pod_is_made_is_said_in_the_recipes_words(now: dict[str, Any], because: str) -> None:
    found = replaced(now)
    assert found.because == (because,)
    assert found.ends.startswith("pod x1 (recipe-ana-podlet) at $0.44/h until ")
    assert found.ends.endswith(" first, with what is loaded on it")


def test_nothing_is_said_of_a_pod_that_stays() -> None:
    assert replaced(WANTED, op="same") is None
    assert replaced(WANTED, op="update") is None


def test_a_pod_whose_deadline_has_passed_has_ended_by_itself() -> None:
    found = replaced(WANTED, until=datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    told = "pod x1 (recipe-ana-podlet) at $0.44/h, which was to end by itself at 2026-01-02 03:04 UTC"
    assert (found.because, found.ends) == ((), told)
    bill = gpu_pod.billing(outputs(datetime(2026, 1, 2, 3, 4, tzinfo=UTC)))
    assert bill is not None
    assert bill.over
    assert bill.data() == {
        "what": told,
        "id": "x1",
        "usd_per_h": 0.44,
        "usd_per_month": None,
        "until": "2026-01-02T03:04:00+00:00",
    }


def test_a_pod_that_runs_is_ended_without_pulumi_as_well() -> None:
    bill = gpu_pod.billing(outputs(NOW + timedelta(hours=1)))
    assert bill is not None
    assert not bill.over
    assert bill.way_out == "recipe down podlet-1 ends it without Pulumi"
    assert gpu_pod.billing({}) is None


def test_only_the_computer_whose_key_opens_it_is_told_the_shell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RECIPE_HOME", str(tmp_path))
    told = dict(gpu_pod.told(outputs(NOW + timedelta(hours=1))))
    assert told["shell"] == "it was rented from another computer, whose key alone opens it"


@dataclass
class Reaching(ProvisionerDouble):
    """Looks, while a machine is waited for, at what the journal says of it then."""

    home: Path = Path()
    seen: list[str] = field(default_factory=list)
    closed: int = 0
    listed: list[Lease] = field(default_factory=list)
    cannot_be_reached: bool = False

    async def host(self, lease: Lease) -> Any:
        if self.cannot_be_reached:
            raise NoMachine("stuck")
        self.seen += [machine.client for machine in journalled(Ledger(self.home))]
        return SimpleNamespace(notes=("a note",), close=self.close)

    async def close(self) -> None:
        self.closed += 1

    async def owned(self, owner: str) -> list[Lease]:
        return self.listed


@pytest.fixture
def rented(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Reaching:
    monkeypatch.setenv("RECIPE_HOME", str(tmp_path))
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    double = Reaching(home=tmp_path)
    monkeypatch.setattr(registry, "provisioner", lambda name: double)
    return double


def pod(home: Path, run: str, url: str | None = None) -> Lease:
    """One that was made, and whose update has not come to its end."""
    name, details = f"recipe-ana-{run}", in_stack("recipe-gpu-pod", "main")
    lease = Lease(provider="pulumi", name=name, run_id=run, id=f"id-of-{run}", price_usd_per_h=0.44, details=details)
    lease = in_backend(lease, url) if url else lease
    Journal(Ledger(home).path).created(lease)
    return lease


def test_a_pod_is_minded_while_it_is_waited_for_and_then_held(rented: Reaching) -> None:
    lease = pod(rented.home, "one")
    put_out = {"lease": lease_data(lease)}
    asyncio.run(gpu_pod.after_up(StackRef("gpu_pod"), {}, put_out, {}, lambda _: None))
    assert rented.seen == ["running"]
    (machine,) = journalled(Ledger(rented.home))
    assert (machine.client, machine.state, machine.held_by) == ("gone", "reached", "gpu_pod")
    assert rented.closed == 1


def test_a_host_is_closed_though_whoever_hears_of_it_fails(rented: Reaching) -> None:
    put_out = {"lease": lease_data(pod(rented.home, "one"))}

    def fails(line: str) -> None:
        if line == "a note":
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        asyncio.run(gpu_pod.after_up(StackRef("gpu_pod"), {}, put_out, {}, fails))
    assert rented.closed == 1


def test_pods_that_another_backend_has_are_told_of(rented: Reaching) -> None:
    ref, ours = StackRef("gpu_pod"), pod(rented.home, "ours")
    pod(rented.home, "theirs", "s3://theirs")
    rented.listed = [ours, Lease(provider="runpod", name="recipe-ana-strange", run_id="strange", id="x9")]

    def warned(ref: StackRef, put_out: dict[str, Any]) -> list[str]:
        return asyncio.run(gpu_pod.warnings(ref, {}, put_out, {"RECIPE_OWNER": "ana"}))

    theirs, strange = warned(ref, {})
    assert theirs.startswith("pod id-of-theirs (recipe-ana-theirs) at $0.44/h until ")
    assert theirs.endswith("is of a stack gpu_pod too, whose state lies in s3://theirs: recipe down theirs ends it")
    assert strange.startswith("pod x9 (recipe-ana-strange)")
    assert strange.endswith("was not rented from here: recipe reap shows it")
    assert warned(ref, {"lease": lease_data(ours)}) == [theirs]
    assert warned(StackRef("gpu_pod", "team"), {"lease": lease_data(ours)}) == []


def test_what_is_ended_alone_leaves_what_else_the_stack_has(rented: Reaching) -> None:
    ref, ours = StackRef("gpu_pod"), pod(rented.home, "ours")
    pod(rented.home, "theirs")
    proofs = asyncio.run(gpu_pod.after_destroy(ref, {"lease": lease_data(ours)}, {}, alone=True))
    assert proofs == ["it is not listed any more"]
    assert [machine.lease.name for machine in journalled(Ledger(rented.home))] == ["recipe-ana-theirs"]


def test_what_another_update_is_making_by_now_is_not_ended_with_what_the_stack_held(rented: Reaching) -> None:
    ref, ours, theirs = StackRef("gpu_pod"), pod(rented.home, "ours"), pod(rented.home, "theirs")
    parent = psutil.Process(os.getppid())
    for lease in (ours, theirs):
        Journal(Ledger(rented.home).path).created(minded(lease, (parent.pid, parent.create_time())))
    with pytest.raises(MayStillBillError, match="another recipe stack up of stack gpu_pod is making pod id-of-theirs"):
        asyncio.run(gpu_pod.after_destroy(ref, {"lease": lease_data(ours)}, {}))
    assert [machine.lease.name for machine in journalled(Ledger(rented.home))] == ["recipe-ana-theirs"]


def test_the_journals_proof_is_of_this_very_pod(rented: Reaching) -> None:
    lease, journal = pod(rented.home, "one"), Journal(Ledger(rented.home).path)
    journal.released(lease, Gone("absent from the lists"))
    bill = gpu_pod.billing({"lease": lease_data(lease)})
    assert bill is not None
    assert (bill.gone, bill.over) == ("absent from the lists", True)
    another = replace(lease, id="another")
    journal.created(another)
    journal.released(another, Gone("nothing was created"))
    bill = gpu_pod.billing({"lease": lease_data(lease)})
    assert bill is not None
    assert bill.gone == "", "of another one of its name"
    unnamed = replace(lease, id=None)
    assert proof_of(unnamed) == "nothing was created"
    assert proof_of(replace(unnamed, name="recipe-ana-retry")) == "", "of another lease of its run"


def test_what_ends_a_pod_without_pulumi_is_what_works_on_this_machine(rented: Reaching) -> None:
    elsewhere = Lease(provider="pulumi", name="recipe-ana-smoke-20261122-032318-483f-167m", run_id="smoke-1", id="x1")
    bill = gpu_pod.billing({"lease": lease_data(elsewhere)})
    assert bill is not None
    assert bill.way_out.startswith("recipe reap --owner ana lists it, and with --yes ends it without Pulumi")


@pytest.mark.parametrize("another", [False, True])
def test_what_another_update_waits_for_is_not_for_this_one_to_give_up(rented: Reaching, another: bool) -> None:
    lease = pod(rented.home, "one")
    if another:
        parent = psutil.Process(os.getppid())
        Journal(Ledger(rented.home).path).created(minded(lease, (parent.pid, parent.create_time())))
    rented.cannot_be_reached = True
    with pytest.raises(NoMachine, match="cannot be reached: stuck") as raised:
        asyncio.run(gpu_pod.after_up(StackRef("gpu_pod"), {}, {"lease": lease_data(lease)}, {}, lambda _: None))
    assert isinstance(raised.value, Unusable) is not another

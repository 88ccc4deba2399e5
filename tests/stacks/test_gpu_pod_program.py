"""The programs of a pod's stack under Pulumi's mocks: what they ask for, and what they put out. Nothing is made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pulumi
import pytest

from provisioners.contract import Boot, Clearance, Lease, Offer, Order
from provisioners.naming import read_name
from recipes.errors import UsageError
from recipes.spec import Resources
from stacks.gpu_pod import program
from stacks.orders import Request, lease_data, pack, unpack

STAMP, SUFFIX, DEADLINE = "20261121-120000", "9f3a", "2026-11-21T15:00:00+00:00"
TOKEN = "hf_that-nobody-may-see-4d5e6f"
OFFER = Offer(provider="runpod", id="NVIDIA A40", accelerator="A40", count=1, price_usd_per_h=0.4)


class Mocks(pulumi.runtime.Mocks):
    """Names as a clock gives them, and pods as RunPod would."""

    def __init__(self) -> None:
        self.made: dict[str, Mapping[str, Any]] = {}
        self.kept: dict[str, Any] = {}
        """What the state has of the name from before."""

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        kind = args.typ.rpartition(":")[2]
        self.made[kind] = args.inputs
        if kind == "UniqueName":
            made = {"stamp": STAMP, "suffix": SUFFIX, "deadline": DEADLINE, "made_at": "2026-11-21T12:00:00+00:00"}
            return "name", {**args.inputs, **made, **self.kept}
        name, run = args.inputs["unique_name"], args.inputs["run"]
        until = datetime.fromisoformat(DEADLINE)
        lease = Lease(provider="pulumi", name=name, run_id=run, id="pod1", price_usd_per_h=0.4, deadline=until)
        return "pod1", {**args.inputs, "lease": lease_data(lease), "state": "starting"}

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        return {}, []


@pytest.fixture
def mocks() -> Iterator[Mocks]:
    """In an event loop of its own: Pulumi takes the thread's, which another test may have closed."""
    mocks, loop = Mocks(), asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    pulumi.runtime.set_mocks(mocks, project="recipe-gpu-pod", stack="main")
    yield mocks
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {}
    monkeypatch.setattr(pulumi, "export", found.__setitem__)
    return found


def request() -> Request:
    order = Order(
        offer=OFFER,
        lease=Lease(provider="pulumi", name="", run_id=""),
        resources=Resources(provisioner="runpod"),
        boot=Boot(env={"PLAIN": "text"}),
    )
    return Request.of(order, Clearance(()), [OFFER])


def inputs(**changes: Any) -> dict[str, Any]:
    usual = {
        "recipe": "pod",
        "owner": "ana",
        "provisioner": "runpod",
        "order": pack(request()),
        "secrets": ["HF_TOKEN"],
        "wanted": {"accelerators": "A40:1"},
        "lasts_s": 10800,
        "max_price": 1.0,
        "release_s": 60.0,
    }
    return json.loads(json.dumps({**usual, **changes}))


def test_the_pod_bears_the_name_that_was_made_for_it(
    mocks: Mocks, exported: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    pulumi.runtime.test(lambda: program.run(inputs()))()
    pod, name = mocks.made["GpuPod"], mocks.made["UniqueName"]
    said = read_name(pod["unique_name"])
    assert said is not None
    assert (said.owner, said.run) == ("ana", f"pod-{STAMP}-{SUFFIX}")
    assert said.deadline == datetime(2026, 11, 21, 15, tzinfo=UTC)
    assert mocks.made["PodName"]["unique_name"] == pod["unique_name"]  # so that it ends with the stack
    assert name["keepers"] == pod["wanted"] == {"accelerators": "A40:1"}
    assert pod["details"] == {"stack": {"project": "recipe-gpu-pod", "name": "main"}}
    assert set(exported) == {"lease", "id", "name", "run", "price_usd_per_h", "deadline", "ssh", "updated_by"}


def test_a_colleague_goes_on_under_the_same_name(
    mocks: Mocks, exported: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    mocks.kept = {"words": {"owner": "ana", "recipe": "pod"}}
    pulumi.runtime.test(lambda: program.run(inputs(owner="bob", recipe="pod2")))()
    said = read_name(mocks.made["GpuPod"]["unique_name"])
    assert said is not None
    assert (said.owner, said.run) == ("ana", f"pod-{STAMP}-{SUFFIX}")


def test_secrets_come_from_the_environment_and_travel_as_secrets(
    mocks: Mocks, exported: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    pulumi.runtime.test(lambda: program.run(inputs()))()
    order = mocks.made["GpuPod"]["order"]
    assert isinstance(order, dict)  # Pulumi's envelope of a secret
    assert unpack(order["value"]).order.boot.env == {"PLAIN": "text", "HF_TOKEN": TOKEN}
    assert TOKEN not in json.dumps(inputs())


def test_a_secret_that_is_not_there_is_missed_before_anything_is_asked_for(
    mocks: Mocks, exported: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UsageError, match="HF_TOKEN is not in the environment"):
        pulumi.runtime.test(lambda: program.run(inputs()))()
    assert "GpuPod" not in mocks.made


def test_a_runs_own_stack_holds_its_pod_alone(mocks: Mocks, exported: dict[str, Any]) -> None:
    lease = Lease(provider="pulumi", name="recipe-ana-pod-20261121-120000-9f3a-60m", run_id="pod-20261121-120000-9f3a")
    pulumi.runtime.test(lambda: program.run_request(request().with_lease(lease), provisioner="runpod", first=True))()
    assert list(mocks.made) == ["GpuPod"]
    pod = mocks.made["GpuPod"]
    assert (pod["unique_name"], pod["run"]) == (lease.name, lease.run_id)
    assert "made_at" not in pod

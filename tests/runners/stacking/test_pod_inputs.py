"""What a pod's stack is run with where nobody names a recipe: the last wish, at the prices of now; and what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from provisioners.contract import Clearance, Lease, Offer, Order
from recipes.errors import NoMachine
from recipes.spec import Limits, Resources
from runners import registry
from runners.stacking import gpu_pod
from runners.stacking.program import StackOptions
from stacks.orders import Request, pack, unpack
from stacks.reference import StackRef
from stacks.values import Changes, Step
from tests.emulators.provisioner import ProvisionerDouble

CHEAP = Offer(provider="one", id="A40", accelerator="A40", count=1, cloud="secure", price_usd_per_h=0.4)
DEAR = Offer(provider="one", id="H100", accelerator="H100", count=1, cloud="secure", price_usd_per_h=2.0)
NEW = Offer(provider="one", id="L4", accelerator="L4", count=1, cloud="secure", price_usd_per_h=0.1)
LIMITS = Limits.model_validate({"max_duration": "2h", "max_cost": 1}).model_dump(mode="json", exclude_unset=True)


@dataclass
class Offering(ProvisionerDouble):
    found: Sequence[Offer] | NoMachine = field(default_factory=tuple)

    async def offers(self, resources: Resources) -> list[Offer]:
        if isinstance(self.found, NoMachine):
            raise self.found
        return list(self.found)


def before(**changes: Any) -> dict[str, Any]:
    order = Order(
        offer=CHEAP,
        lease=Lease(provider="pulumi", name="", run_id=""),
        resources=Resources(provisioner="runpod"),
        idle_s=7200.0,
    )
    usual = {
        "recipe": "pod",
        "provisioner": "one",
        "order": pack(Request.of(order, Clearance(()), [CHEAP, DEAR], max_cost_usd=1.0)),
        "wanted": {"accelerators": "A40:1", "limits": LIMITS},
        "lasts_s": 7200,
        "max_price": None,
        "usd_per_h": 0.4,
    }
    return {**usual, **changes}


def again(found: Sequence[Offer] | NoMachine, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> dict[str, Any]:
    monkeypatch.setattr(registry, "provisioner", lambda name: Offering(name=name, found=found))
    return asyncio.run(gpu_pod.inputs([], StackRef("gpu_pod"), StackOptions(), {}, before(**changes)))


def costs(inputs: dict[str, Any], *others: Step) -> list[str]:
    return gpu_pod.costs(inputs, Changes((Step(op="create", type="GpuPod", name="pod"), *others)), {})


def test_what_it_costs_now_is_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = again([replace(CHEAP, price_usd_per_h=0.8), NEW], monkeypatch)
    request = unpack(inputs["order"])
    assert [(offer.id, offer.price_usd_per_h) for offer in request.offers] == [("A40", 0.8)], "what was judged, no more"
    assert (inputs["usd_per_h"], inputs["lasts_s"], request.order.idle_s) == (0.8, 4500, 4500.0)
    assert inputs["wanted"] == before()["wanted"], "a pod that runs stays"
    said = "$0.80/h (it was $0.40/h when it was planned) until it is destroyed; it lets itself go after 1h15m"
    assert costs(inputs) == [f"{said}: $1.00 at most"]


def test_what_may_not_be_had_for_the_price_is_not_asked_for_first(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = again([replace(CHEAP, price_usd_per_h=3.0), DEAR], monkeypatch, max_price=2.5)
    assert [offer.id for offer in unpack(inputs["order"]).offers] == ["H100", "A40"]
    assert inputs["usd_per_h"] == 2.0


@pytest.mark.parametrize("found", [[], [NEW], NoMachine("no network")], ids=["nothing", "other things", "silence"])
def test_a_pod_that_runs_needs_no_offer(found: Sequence[Offer] | NoMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert again(found, monkeypatch, was_usd_per_h=9.0) == before()


def test_the_same_price_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = again([CHEAP, DEAR], monkeypatch, was_usd_per_h=0.3)
    assert "was_usd_per_h" not in inputs
    assert costs(inputs) == [
        "$0.40/h until it is destroyed; it lets itself go after 2h: $1.00 at most",
        "if that cannot be had, up to $2.00/h",
    ]


def test_without_max_cost_the_dearest_that_may_be_had_is_the_most() -> None:
    order = pack(replace(unpack(before()["order"]), max_cost_usd=None))
    assert costs(before(order=order))[0].endswith("lets itself go after 2h: $4.00 at most")
    assert costs(before(order=order, max_price=1.0)) == [
        "$0.40/h until it is destroyed; it lets itself go after 2h: $0.80 at most"
    ]


def test_a_name_that_is_gone_on_with_brings_its_pods_price_and_end() -> None:
    name = Step(op="same", type="UniqueName", name="name")
    assert costs(before(), name)[-1] == (
        "a pod that an earlier update asked for is taken over, with the price and the end that it has"
    )
    assert costs(before(), replace(name, op="create")) == costs(before())

"""A stack's pod: its provider as Pulumi's process calls it, over the emulated RunPod, whose ledger judges."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dill
import pytest
from pulumi.dynamic import Config, ConfigureRequest
from pulumi.dynamic.dynamic import serialize_provider

from provisioners.contract import Boot, Clearance, Lease, Order
from provisioners.journal import Journal
from provisioners.naming import lease_name
from provisioners.providers.runpod.provider import RunPodProvisioner
from provisioners.site import site_of
from recipes.spec import Resources
from stacks import report
from stacks.gpu_pod.pod import GpuPodProvider, PodsTimeProvider, pod_name
from stacks.holding import holder_of, in_stack, is_minded
from stacks.orders import Request, lease_of, pack, unpack
from stacks.providing import ProviderFailed
from tests.emulators.runpod import RunPod, emulated

pytestmark = pytest.mark.real
TOKEN = "hf_that-nobody-may-see-1a2b3c"


@dataclass
class Pulumi:
    """What the dynamic provider's process does for one resource, and what its state then holds."""

    runpod: RunPod
    home: Path
    told: Path
    props: dict[str, Any] = field(default_factory=dict)

    def provider(self) -> GpuPodProvider:
        """In a process that knows nothing but its environment."""
        provider: GpuPodProvider = dill.loads(base64.b64decode(serialize_provider(GpuPodProvider())))
        provider.configure(ConfigureRequest(Config({}, "test")))
        return provider

    def create(self, **changes: Any) -> dict[str, Any]:
        outs = self.provider().create({**self.inputs(), **changes}).outs
        assert outs is not None
        return outs

    def inputs(self) -> dict[str, Any]:
        if not self.props:
            self.props = asyncio.run(_asked())
        return dict(self.props)

    @property
    def journal(self) -> Journal:
        return Journal(self.home / "ledger.db")

    def notes(self) -> list[dict[str, Any]]:
        if not self.told.exists():
            return []
        return [json.loads(line) for line in self.told.read_text().splitlines()]

    def report(self) -> report.Report:
        read = report.Report(self.told)
        read.hear()
        return read


async def _asked() -> dict[str, Any]:
    resources = Resources.model_validate({"provisioner": "runpod", "accelerators": "A100-80GB:1", "cloud": "secure"})
    offers = await RunPodProvisioner(site_of(os.environ)).offers(resources)
    now = datetime.now(UTC)
    run, deadline = f"pod-{now:%Y%m%d-%H%M%S}-9f3a", now + timedelta(minutes=30)
    order = Order(
        offer=offers[0],
        lease=Lease(provider="pulumi", name="", run_id=""),
        resources=resources,
        boot=Boot(env={"HF_TOKEN": TOKEN}),
        max_price_usd_per_h=5.0,
    )
    return {
        "provisioner": "runpod",
        "unique_name": lease_name("ana", run, deadline),
        "run": run,
        "deadline": deadline.isoformat(),
        "order": pack(Request.of(order, Clearance(()), offers)),
        "wanted": {"accelerators": "A100-80GB:1"},
        "max_price": 5.0,
        "__provider": "x",
    }


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pulumi]:
    """When a test ends, nothing bills."""
    with emulated(tmp_path / "runpod") as runpod:
        env = {**runpod.env, "RECIPE_HOME": str(tmp_path / "home"), "RECIPE_RUNPOD_PACE": "0.1"}
        env |= {"HF_TOKEN": TOKEN, report.VARIABLE: str(tmp_path / "report")}
        (tmp_path / "report").touch()
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        yield Pulumi(runpod, tmp_path / "home", tmp_path / "report")
        assert runpod.billing == []


def earlier() -> str:
    """When a name was made that an earlier update may have asked for."""
    return (datetime.now(UTC) - timedelta(seconds=5)).isoformat()


def delete(pulumi: Pulumi, outs: Mapping[str, Any]) -> None:
    pulumi.provider().delete(outs["lease"]["id"], {**outs, "__provider": "x"})


def test_a_pod_is_made_read_and_let_go_with_proof(pulumi: Pulumi) -> None:
    outs = pulumi.create()
    (pod,) = pulumi.runpod.ledger()
    assert (outs["lease"]["id"], outs["lease"]["name"]) == (pod["id"], pulumi.props["unique_name"])
    assert pulumi.journal.state(pod["name"]) == "created"
    assert [note["lease"]["id"] for note in pulumi.notes() if note["kind"] == "created"] == [pod["id"]]
    seen = pulumi.provider().read(pod["id"], {**outs, "__provider": "x"})
    assert (seen.id, (seen.outs or {})["lease"]) == (pod["id"], outs["lease"])
    delete(pulumi, outs)
    assert pulumi.journal.state(pod["name"]) == "gone"
    assert "absent from the lists" in pulumi.report().proofs[-1]
    assert pulumi.provider().read(pod["id"], outs).id == ""


def test_what_comes_out_and_what_is_told_hold_no_secret(pulumi: Pulumi) -> None:
    outs = pulumi.create()
    key, packed = pulumi.runpod.key, pulumi.props["order"]
    shown = json.dumps([outs, pulumi.notes()])
    assert [secret for secret in (TOKEN, key, packed) if secret in shown] == []
    pickled = base64.b64decode(serialize_provider(pulumi.provider()))
    assert key.encode() not in pickled
    files = [path for path in pulumi.home.rglob("*") if path.is_file()]
    assert [path for path in files if key.encode() in path.read_bytes() or TOKEN.encode() in path.read_bytes()] == []
    delete(pulumi, outs)


def test_the_provider_that_a_state_keeps_is_a_name_and_nothing_else() -> None:
    pickled = base64.b64decode(serialize_provider(GpuPodProvider()))
    assert b"stacks.gpu_pod.pod" in pickled
    assert len(pickled) < 100


@pytest.mark.parametrize("lag_s", [0, 4])
@pytest.mark.parametrize("known", ["nothing", "its id"])
def test_a_second_create_after_a_crash_finds_the_first_pod(pulumi: Pulumi, lag_s: float, known: str) -> None:
    pulumi.runpod.inject(list_lag_new_s=lag_s)
    lost = pulumi.create()  # and the state was never written
    entry = pulumi.journal.of_run(pulumi.props["run"])
    assert entry is not None
    if known == "nothing":
        pulumi.journal.intend(replace(entry.lease, id=None))
    found = pulumi.create(made_at=earlier())
    assert found["lease"]["id"] == lost["lease"]["id"]
    assert pulumi.runpod.creates() == {pulumi.props["unique_name"]: [found["lease"]["id"]]}
    delete(pulumi, found)


def test_the_same_from_another_computer(pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lost = pulumi.create()
    monkeypatch.setenv("RECIPE_HOME", str(tmp_path / "elsewhere"))
    found = pulumi.create(made_at=earlier())
    assert found["lease"]["id"] == lost["lease"]["id"]
    assert found["lease"]["price_usd_per_h"] == pytest.approx(lost["lease"]["price_usd_per_h"])
    assert found["lease"]["storage_usd_per_h"] == lost["lease"]["storage_usd_per_h"]
    assert found["lease"]["details"]["gpu"] == lost["lease"]["details"]["gpu"]
    assert found["lease"]["details"]["cloud"] == lost["lease"]["details"]["cloud"]
    delete(pulumi, found)
    assert len(pulumi.runpod.ledger()) == 1


@pytest.mark.parametrize("fault", ["create_500_after", "create_lost_after"])
def test_an_unclear_create_leaves_one_pod(pulumi: Pulumi, fault: str) -> None:
    pulumi.runpod.inject(**{fault: 1})
    pulumi.create()
    assert len(pulumi.runpod.billing) == 1
    again = pulumi.create()
    assert pulumi.runpod.billing == [again["lease"]["name"]]
    delete(pulumi, again)


def test_a_second_pod_of_one_create_goes_with_the_first(pulumi: Pulumi) -> None:
    pulumi.runpod.inject(create_duplicate=1)
    outs = pulumi.create()
    assert len(pulumi.runpod.billing) == 2, "whoever connects to it lets the other one go; nobody has"
    delete(pulumi, outs)
    assert (len(pulumi.runpod.ledger()), pulumi.runpod.billing) == (2, [])


def test_the_next_offer_is_taken_and_the_refusal_told(pulumi: Pulumi) -> None:
    first = pulumi.inputs()
    pulumi.runpod.inject(create_no_capacity=1)
    outs = pulumi.create()
    assert outs["lease"]["name"] == first["unique_name"]
    refused, had = unpack(first["order"]).offers[:2]
    assert outs["lease"]["details"]["gpu"] == f"{had.count} × {had.id}"
    says = [note["text"] for note in pulumi.notes() if note["kind"] == "says"]
    assert [text for text in says if f"RunPod has no {refused.count} × {refused.id}" in text]
    delete(pulumi, outs)


def test_a_dearer_offer_ends_before_it_has_cost_more_than_was_agreed_to(pulumi: Pulumi) -> None:
    request = unpack(pulumi.inputs()["order"])
    first, second = (
        replace(offer, price_usd_per_h=price) for offer, price in zip(request.offers[:2], (1.0, 4.0), strict=True)
    )
    pulumi.props["order"] = pack(replace(request, offers=(first, second), max_cost_usd=0.4))
    pulumi.runpod.inject(create_no_capacity=1)
    began, outs = datetime.now(UTC), pulumi.create()
    lease = lease_of(outs["lease"])
    assert lease.deadline is not None
    assert abs(lease.deadline - began - timedelta(minutes=6)) < timedelta(seconds=30)
    delete(pulumi, outs)


def test_it_is_minded_by_whoever_hears_of_it_and_no_state_knows_by_whom(
    pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(report.CLIENT, report.this_client())
    details = in_stack("recipe-gpu-pod", "main")
    outs = pulumi.create(details=details)
    again = pulumi.create(details=details, made_at=earlier())
    entry = pulumi.journal.of_run(pulumi.props["run"])
    assert entry is not None
    assert is_minded(entry.lease)
    assert "minded_by" not in json.dumps([outs, again, pulumi.notes()])
    delete(pulumi, outs)


def test_what_a_plain_update_takes_over_is_held(pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch) -> None:
    details = in_stack("recipe-gpu-pod", "main")
    pulumi.create(details=details)  # and its client was killed
    monkeypatch.delenv(report.VARIABLE)
    outs = pulumi.create(details=details, made_at=earlier())
    entry = pulumi.journal.of_run(pulumi.props["run"])
    assert entry is not None
    assert holder_of(entry, datetime.now(UTC)) == "gpu_pod"
    delete(pulumi, outs)


def test_where_nothing_can_be_had_the_error_is_told_as_what_it_is(pulumi: Pulumi) -> None:
    pulumi.inputs()
    pulumi.runpod.inject(create_402=1)
    with pytest.raises(ProviderFailed, match=r"credit|402"):
        pulumi.create()
    assert type(pulumi.report().error).__name__ == "NoMachine"
    assert pulumi.journal.state(pulumi.props["unique_name"]) == "gone"
    assert pulumi.runpod.ledger() == []


def test_a_delete_that_is_not_proven_fails_with_name_price_and_command(pulumi: Pulumi) -> None:
    outs = pulumi.create(release_s=2.0)
    pulumi.runpod.inject(delete_500=-1)
    with pytest.raises(ProviderFailed) as failed:
        delete(pulumi, outs)
    said = str(failed.value)
    assert outs["lease"]["name"] in said
    assert "may still bill for $" in said
    assert "recipe reap --yes" in said
    assert type(pulumi.report().error).__name__ == "MayStillBillError"
    assert pulumi.journal.state(outs["lease"]["name"]) == "may-still-bill"
    pulumi.runpod.inject(delete_500=0)
    delete(pulumi, outs)


def test_a_pod_is_let_go_twice_without_harm(pulumi: Pulumi) -> None:
    outs = pulumi.create()
    delete(pulumi, outs)
    delete(pulumi, outs)
    assert pulumi.runpod.billing == []
    assert pulumi.journal.state(outs["lease"]["name"]) == "gone"


def test_a_pod_that_has_ended_by_itself_is_replaced_and_the_same_name_is_new_again(pulumi: Pulumi) -> None:
    outs = pulumi.create()
    assert pulumi.provider().diff("x", outs, pulumi.inputs()).changes is False
    pulumi.runpod.mishap("preempt")
    diff = pulumi.provider().diff("x", outs, pulumi.inputs())
    assert (diff.changes, diff.replaces, diff.delete_before_replace) == (True, ["run"], True)
    delete(pulumi, outs)
    assert (pulumi.home / "gone" / outs["lease"]["name"]).exists()
    again = pulumi.create()
    assert again["lease"]["id"] != outs["lease"]["id"]
    assert not (pulumi.home / "gone" / outs["lease"]["name"]).exists()  # whose denial would be believed too soon
    delete(pulumi, again)


def test_a_pod_that_cannot_be_used_is_not_taken_over(pulumi: Pulumi) -> None:
    lost = pulumi.create()
    pulumi.runpod.mishap("preempt")
    outs = pulumi.create()
    assert outs["lease"]["id"] != lost["lease"]["id"]
    assert [pod["gone"] for pod in pulumi.runpod.ledger()] == [True, False]
    delete(pulumi, outs)


def test_one_that_cannot_be_used_and_is_not_proven_gone_may_still_bill(
    pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = pulumi.create()
    monkeypatch.setitem(RunPodProvisioner.destroy.__kwdefaults__, "patience_s", 2.0)
    pulumi.runpod.mishap("preempt")
    pulumi.runpod.inject(delete_500=-1)
    with pytest.raises(ProviderFailed, match=r"may still bill for \$"):
        pulumi.create()
    assert type(pulumi.report().error).__name__ == "MayStillBillError"
    pulumi.runpod.inject(delete_500=0)
    delete(pulumi, lost)


def named(pulumi: Pulumi, *, age_s: float) -> tuple[dict[str, Any], list[str]]:
    """A unique name of this age, whose pod is that of `pulumi`; and what replaces it."""
    inputs = {"keepers": {}, "lasts_s": 1800, "words": {"owner": "ana", "recipe": "pod"}, "provisioner": "runpod"}
    provider = PodsTimeProvider()
    provider.configure(ConfigureRequest(Config({}, "test")))
    olds = provider.create(inputs).outs or {}
    olds["made_at"] = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()
    run = f"pod-{olds['stamp']}-{olds['suffix']}"
    pulumi.inputs()
    pulumi.props |= {"run": run, "unique_name": pod_name("ana", run, olds["deadline"]), "deadline": olds["deadline"]}
    return olds, provider.diff("x", olds, inputs).replaces


def test_a_name_that_nothing_bears_is_made_anew_with_all_of_its_time(pulumi: Pulumi) -> None:
    assert named(pulumi, age_s=120)[1] == ["lasts_s"]
    assert named(pulumi, age_s=30)[1] == [], "lists may not show yet what was asked for"
    pulumi.runpod.inject(html_502=-1)
    assert named(pulumi, age_s=120)[1] == [], "nobody knows"
    pulumi.runpod.inject(html_502=0)


@pytest.mark.parametrize("known", [True, False], ids=["from here", "from elsewhere"])
def test_a_name_is_kept_while_a_pod_bears_it(
    pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known: bool
) -> None:
    olds, _ = named(pulumi, age_s=120)
    inputs = {**olds, "provisioner": "runpod"}
    outs = pulumi.create()
    if not known:
        monkeypatch.setenv("RECIPE_HOME", str(tmp_path / "elsewhere"))
    provider = PodsTimeProvider()
    provider.configure(ConfigureRequest(Config({}, "test")))
    assert provider.diff("x", olds, inputs).replaces == []
    pulumi.runpod.mishap("preempt")
    delete(pulumi, outs)
    monkeypatch.setattr("stacks.gpu_pod.lifecycle.LISTED_S", 0.0)  # as after a minute
    assert provider.diff("x", olds, inputs).replaces == ["lasts_s"]


@pytest.mark.parametrize(
    ("changed", "replaces", "changes"),
    [
        ({"wanted": {"accelerators": "H100:1"}}, ["wanted"], True),
        ({"run": "04da6b54-80e4-46f7-96ec-b56ff0331ba9"}, ["run"], True),  # not known yet, in a preview
        ({"max_price": 9.0}, [], True),
        ({"order": "another offer"}, [], False),
        ({"unique_name": "recipe-bob-pod"}, [], False),
    ],
)
def test_what_replaces_a_pod_and_what_does_not(
    pulumi: Pulumi, changed: dict[str, Any], replaces: list[str], changes: bool
) -> None:
    outs = pulumi.create()
    diff = pulumi.provider().diff("x", outs, {**pulumi.inputs(), **changed})
    assert (diff.replaces, diff.changes) == (replaces, changes)
    updated = pulumi.provider().update("x", outs, {**pulumi.inputs(), **changed}).outs or {}
    assert (updated["lease"], updated["unique_name"]) == (outs["lease"], outs["unique_name"])
    assert lease_of(updated["lease"]).deadline == datetime.fromisoformat(outs["deadline"])
    assert "order" not in updated
    delete(pulumi, outs)

"""A cache's volume and models: their providers as Pulumi's process calls them, over the emulated RunPod that judges."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import dill
import pytest
from pulumi.dynamic import Config, ConfigureRequest
from pulumi.dynamic.dynamic import serialize_provider

from provisioners.contract import Boot, BootJob, Gone, Lease, MayStillBill, Offer, Order, Provisioner, Release
from provisioners.journal import Journal
from provisioners.preflight import clear
from provisioners.site import site_of
from recipes.errors import MayStillBillError
from recipes.spec import Resources, Volume
from recipes.units import rough_share
from stacks import report, unique
from stacks.agreed import making
from stacks.holding import minded
from stacks.model_cache import filling, lifecycle
from stacks.model_cache.download import DownloadProvider
from stacks.model_cache.volume import CacheProvider, VolumeNameProvider, VolumeProvider
from stacks.orders import Request, pack
from stacks.providing import ProviderFailed
from tests.emulators.runpod import RunPod, emulated

pytestmark = pytest.mark.real
NAME = "recipe-cache-main-20261121-051200-9f3a"
TOKEN = "hf_that-nobody-may-see-1a2b3c"
WANTED = {
    "provisioner": "runpod",
    "owner": "ana",
    "unique_name": NAME,
    "size_gb": 50.0,
    "asked_region": "",
    "suggested_region": "US-KS-2",
    "__provider": "x",
}


@dataclass
class Pulumi:
    """What the dynamic provider's process does."""

    runpod: RunPod
    home: Path
    told: Path

    def provider(self, kind: type[CacheProvider] = VolumeProvider) -> Any:
        """In a process that knows nothing but its environment."""
        provider = dill.loads(base64.b64decode(serialize_provider(kind())))
        provider.configure(ConfigureRequest(Config({}, "test")))
        return provider

    def checked(self, olds: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = self.provider().check(olds or {}, {**WANTED, **changes}).inputs
        return inputs

    def create(self, **changes: Any) -> dict[str, Any]:
        outs: dict[str, Any] = self.provider().create(self.checked(**changes)).outs
        return outs

    def delete(self, outs: dict[str, Any]) -> None:
        self.provider().delete(NAME, {**outs, "__provider": "x"})

    @property
    def said(self) -> str:
        return self.told.read_text() if self.told.exists() else ""


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pulumi]:
    """As after a crash: this process has made no name yet. When a test ends, nothing bills."""
    monkeypatch.setattr(unique, "_made", set())
    monkeypatch.setattr(report, "_released", set())
    with emulated(tmp_path / "runpod") as runpod:
        env = {**runpod.env, "RECIPE_HOME": str(tmp_path / "home"), "RECIPE_RUNPOD_PACE": "0.02"}
        env |= {"HF_TOKEN": TOKEN, report.VARIABLE: str(tmp_path / "report")}
        (tmp_path / "report").touch()
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        yield Pulumi(runpod, tmp_path / "home", tmp_path / "report")
        assert (runpod.billing, runpod.billing_volumes) == ([], [])


def test_a_volume_is_made_grown_read_and_deleted_with_proof(pulumi: Pulumi) -> None:
    outs = pulumi.create()
    (volume,) = pulumi.runpod.volumes()
    assert (outs["volume_id"], outs["size_gb"], outs["region"]) == (volume["id"], 50, "US-KS-2")
    assert outs["usd_per_month"] == 3.5
    larger = pulumi.checked({**outs}, size_gb=200.0)
    assert pulumi.provider().diff(NAME, outs, larger).changes
    grown = pulumi.provider().update(NAME, outs, larger).outs
    assert (grown["volume_id"], grown["size_gb"], grown["usd_per_month"]) == (volume["id"], 200, 14.0)
    assert not pulumi.provider().diff(NAME, grown, pulumi.checked({**grown})).changes
    seen = pulumi.provider().read(NAME, {**grown, "__provider": "x"})
    assert (seen.id, seen.outs["size_gb"]) == (NAME, 200)
    pulumi.delete(grown)
    assert f"network volume {volume['id']} deleted" in pulumi.said
    assert pulumi.provider().read(NAME, {**grown, "__provider": "x"}).id == ""


def test_a_volume_is_never_made_smaller_whatever_is_asked(pulumi: Pulumi) -> None:
    checked = pulumi.checked({"size_gb": 200.0, "region": "EU-RO-1"}, size_gb=10.0)
    assert (checked["size_gb"], checked["region"]) == (200, "EU-RO-1")
    assert "never be made smaller" in pulumi.said


def test_a_volume_stays_where_it_is_and_nothing_replaces_it(pulumi: Pulumi) -> None:
    outs = pulumi.create()
    elsewhere = pulumi.checked({**outs}, suggested_region="EU-RO-1")
    diff = pulumi.provider().diff(NAME, outs, elsewhere)
    assert (diff.changes, diff.replaces) == (False, [])
    asked = pulumi.checked({**outs}, asked_region="EU-RO-1")
    with pytest.raises(ProviderFailed, match="no volume can be moved to EU-RO-1"):
        pulumi.provider().diff(NAME, outs, asked)
    same = pulumi.provider().diff(NAME, outs, pulumi.checked({**outs}, asked_region="US-KS-2"))
    assert not same.changes
    pulumi.delete(outs)


@pytest.mark.parametrize(
    "faults",
    [
        {"volume_500_after": 1},
        {"volume_lost_after": 1},
        {"volume_500_before": 1},
        {"volume_429": 1, "retry_after_s": 0},
        {"volume_duplicate": 1},
        {"volume_500_after": 1, "volume_list_lag_s": 0.3},
        {"volume_delete_500": 1},
        {"volume_delete_404": 1},
        {"volume_delete_ignored": 1},
        {"volume_delete_lost": 1},
        {"volume_grow_500": 1},
        {"volume_grow_lost": 1},
    ],
)
def test_whatever_goes_wrong_there_is_one_volume_and_none_at_the_end(pulumi: Pulumi, faults: dict[str, Any]) -> None:
    pulumi.runpod.inject(**faults)
    outs = pulumi.create()
    assert pulumi.runpod.billing_volumes == [outs["volume_id"]]
    larger = pulumi.checked({**outs}, size_gb=100.0)
    grown = pulumi.provider().update(NAME, outs, larger).outs
    assert (grown["volume_id"], grown["size_gb"]) == (outs["volume_id"], 100)
    pulumi.delete(grown)


def test_a_twin_that_lists_have_late_is_told_by_a_preview_and_ended_by_the_next_update(pulumi: Pulumi) -> None:
    pulumi.runpod.inject(volume_duplicate=1, volume_list_lag_s=-1)
    outs = pulumi.create()
    assert len(pulumi.runpod.billing_volumes) == 2
    pulumi.runpod.inject(volume_list_lag_s=0)
    wanted = pulumi.checked({**outs})
    diff = pulumi.provider().diff(NAME, outs, wanted)
    assert (diff.changes, diff.replaces) == (True, [])
    assert "deletes it and keeps " + outs["volume_id"] in pulumi.said
    assert len(pulumi.runpod.billing_volumes) == 2, "a look deletes nothing"
    again = pulumi.provider().update(NAME, outs, wanted).outs
    assert again["volume_id"] == outs["volume_id"]
    assert pulumi.runpod.billing_volumes == [outs["volume_id"]]
    assert not pulumi.provider().diff(NAME, again, wanted).changes
    pulumi.delete(again)


@pytest.mark.parametrize("his", ["grown", "taken on"])
def test_a_twin_that_may_hold_something_is_told_and_stays(pulumi: Pulumi, his: str) -> None:
    pulumi.runpod.inject(volume_duplicate=1, volume_list_lag_s=-1)
    asked = {"taken_on": his == "taken on"}
    outs = pulumi.create(**asked)
    pulumi.runpod.inject(volume_list_lag_s=0)
    (twin,) = {*pulumi.runpod.billing_volumes} - {outs["volume_id"]}
    if his == "grown":
        asyncio.run(lifecycle.Cache.of(site_of(os.environ), "runpod", str).provisioner.grow_volume(twin, 90))
    wanted = pulumi.checked({**outs}, **asked)
    assert not pulumi.provider().diff(NAME, outs, wanted).changes
    assert twin in pulumi.said
    larger = pulumi.checked({**outs}, size_gb=60.0, **asked)
    outs = pulumi.provider().update(NAME, outs, larger).outs
    assert {*pulumi.runpod.billing_volumes} == {outs["volume_id"], twin}
    pulumi.delete(outs)


def test_after_a_crash_between_create_and_state_the_same_volume_is_found(pulumi: Pulumi) -> None:
    """Also where no list has it yet."""
    pulumi.runpod.inject(volume_list_lag_s=0.3)
    first = pulumi.create()
    again = pulumi.create(suggested_region="EU-RO-1")
    assert (again["volume_id"], again["region"]) == (first["volume_id"], "US-KS-2")
    assert pulumi.runpod.volume_creates() == {NAME: [first["volume_id"]]}
    assert "stays there" in pulumi.said
    pulumi.delete(again)


def test_a_volume_that_the_state_never_heard_of_is_deleted_with_its_name(pulumi: Pulumi) -> None:
    pulumi.create()
    pulumi.provider(VolumeNameProvider).delete(NAME, WANTED)
    assert pulumi.runpod.billing_volumes == []


def test_one_that_somebody_has_deleted_is_made_anew_by_an_update(pulumi: Pulumi) -> None:
    outs = pulumi.create()
    pulumi.delete(outs)
    wanted = pulumi.checked({**outs})
    assert pulumi.provider().diff(NAME, outs, wanted).changes
    assert "another one is made, and it is empty" in pulumi.said
    with making(frozenset(), os.environ), pytest.raises(ProviderFailed, match="which the preview did not show"):
        pulumi.provider().update(NAME, outs, wanted)
    assert pulumi.runpod.billing_volumes == []
    another = pulumi.provider().update(NAME, outs, wanted).outs
    assert another["volume_id"] not in ("", outs["volume_id"])
    pulumi.delete(another)


def test_one_that_stays_is_an_error_with_name_and_command(pulumi: Pulumi) -> None:
    outs = pulumi.create()
    pulumi.runpod.inject(volume_delete_ignored=-1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle.Cache.delete, "__kwdefaults__", {"patience_s": 1.0})
        with pytest.raises(ProviderFailed, match=f"{NAME} .*may still bill for [$]3.50/month: "):
            pulumi.delete(outs)
    assert json.loads(pulumi.said.splitlines()[-1])["error"] == "MayStillBillError"
    pulumi.runpod.inject(volume_delete_ignored=0)
    pulumi.delete(outs)


def test_nothing_that_is_kept_or_told_holds_the_key(pulumi: Pulumi) -> None:
    outs, key = pulumi.create(), pulumi.runpod.key
    pickled = base64.b64decode(serialize_provider(pulumi.provider()))
    assert (key in json.dumps(outs) + pulumi.said, key.encode() in pickled, len(pickled) < 120) == (False, False, True)
    pulumi.delete(outs)


def download(volume_id: str, **changes: Any) -> dict[str, Any]:
    """What the resource of a model is given; the machine's job says at once that it is done."""
    said = json.dumps({"path": "/workspace/hub/models--me--lead", "downloaded": 1504288})
    order = Order(
        offer=Offer(provider="runpod", id=""),
        lease=Lease(provider="runpod", name="", run_id=""),
        resources=Resources(provisioner="runpod", volumes=(Volume(path="/workspace", name="volume"),)),
        boot=Boot(jobs=(BootJob(name="fetch", argv=("sh", "-c", f"test -n \"$HF_TOKEN\" && echo '{said}'")),)),
    )
    asked = {
        "provisioner": "runpod",
        "owner": "ana",
        "volume_id": volume_id,
        "repo": "me/lead",
        "commit": "7773b17",
        "files": "1f2e",
        "bytes": 1504288.0,
        "place": ".",
        "order": pack(Request.of(order, clear(()))),
        "secrets": ["HF_TOKEN"],
        "lasts_s": 1800.0,
        "noted": None,
        "__provider": "x",
    }
    return {**asked, **changes}


def test_a_model_is_brought_by_the_cheapest_machine_which_is_let_go(pulumi: Pulumi) -> None:
    volume = pulumi.create(suggested_region="EU-RO-1")
    outs = pulumi.provider(DownloadProvider).create(download(volume["volume_id"])).outs
    assert outs["held"]["repo"] == "me/lead"
    (pod,) = pulumi.runpod.ledger()
    assert (pod["gpu"], pod["billing"]) == ("NVIDIA L4", False)
    assert Journal(pulumi.home / "ledger.db").state(pod["name"]) == "gone"
    assert (pod["name"] in pulumi.said, TOKEN in pulumi.said + json.dumps(outs)) == (True, False)
    pulumi.delete(volume)


def test_no_machine_dearer_than_the_recipes_limit_fills_it(pulumi: Pulumi) -> None:
    volume = pulumi.create(suggested_region="EU-RO-1")
    with pytest.raises(ProviderFailed, match=r"takes \$0\.\d\d/h, above limits.max_price \$0.05/h") as refused:
        pulumi.provider(DownloadProvider).create(download(volume["volume_id"], max_price=0.05))
    assert "--set limits.max_price=0." in str(refused.value)
    assert pulumi.runpod.ledger() == []
    pulumi.provider(DownloadProvider).create(download(volume["volume_id"], max_price=5.0))
    pulumi.delete(volume)


def test_what_a_download_waits_for_is_said(pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "_TELL_WAIT_S", 0.05)
    volume = pulumi.create(suggested_region="EU-RO-1")
    pulumi.provider(DownloadProvider).create(download(volume["volume_id"]))
    assert re.search(r"waits until the machine can be reached, for \d+ s so far", pulumi.said)
    pulumi.delete(volume)


def test_only_the_download_itself_may_take_as_long_as_its_machine_is_rented_for(
    pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: Any) -> None:
        raise TimeoutError("the machine does not answer")

    monkeypatch.setattr(filling.Filling, "_download", silent)
    volume = pulumi.create(suggested_region="EU-RO-1")
    with pytest.raises(ProviderFailed, match="TimeoutError: the machine does not answer"):
        pulumi.provider(DownloadProvider).create(download(volume["volume_id"]))
    assert pulumi.runpod.billing == []
    pulumi.delete(volume)


class Ending:
    """A provisioner whose machines do not all end."""

    def __init__(self) -> None:
        self.ended = list[str]()

    async def destroy(self, lease: Lease) -> Release:
        if lease.name == "a":
            raise OSError("no route to host")
        if lease.name == "b":
            return MayStillBill("it is still listed", "delete b by hand")
        self.ended.append(lease.name)
        return Gone(f"{lease.name} was deleted")

    def command_to_end(self, lease: Lease) -> str:
        return f"delete {lease.name} by hand"


def test_machines_that_stay_keep_no_other_and_all_of_them_are_told(tmp_path: Path) -> None:
    journal, ending = Journal(tmp_path / "ledger.db"), Ending()
    leases = [Lease(provider="runpod", name=name, run_id="fill-1", price_usd_per_h=0.5) for name in "abc"]
    with pytest.raises(MayStillBillError) as stay:
        asyncio.run(lifecycle.let_all_go(journal, [(cast(Provisioner, ending), lease) for lease in leases]))
    assert "a (None) may still bill for $0.50/h: OSError: no route to host" in stay.value.message
    assert "b (None) may still bill for $0.50/h: it is still listed" in stay.value.message
    assert stay.value.advice == "delete a by hand; delete b by hand"
    assert (ending.ended, [journal.state(name) for name in "abc"]) == (
        ["c"],
        ["may-still-bill", "may-still-bill", "gone"],
    )


@pytest.mark.parametrize(
    ("stored", "total", "told"),
    [(1_504_288, 1_504_288, "1.5 of 1.5 MB"), (12_300_000_000, 137_900_000_000, "12.3 of 137.9 GB")],
)
def test_how_much_is_there_is_told_in_the_unit_that_suits(stored: int, total: int, told: str) -> None:
    assert rough_share(stored, total) == told


@pytest.mark.parametrize(
    ("faults", "argv"),
    [
        ({"create_500_after": 1}, None),
        ({"create_lost_after": 1}, None),
        ({"create_duplicate": 1}, None),
        ({"delete_500": 1, "delete_404": 1}, None),
        ({}, ("sh", "-c", "exit 3")),
        ({}, ("sh", "-c", 'echo \'{"error": {"message": "me/lead is gated", "advice": "set HF_TOKEN"}}\'; exit 3')),
    ],
)
def test_whatever_goes_wrong_while_it_is_filled_no_machine_stays(
    pulumi: Pulumi, faults: dict[str, Any], argv: tuple[str, ...] | None
) -> None:
    volume = pulumi.create(suggested_region="EU-RO-1")
    pulumi.runpod.inject(**faults)
    asked = download(volume["volume_id"])
    if argv is None:
        pulumi.provider(DownloadProvider).create(asked)
    else:
        with pytest.raises(ProviderFailed, match=r"gated|exit status 3"):
            pulumi.provider(DownloadProvider).create({**asked, "order": _failing(argv)})
    assert pulumi.runpod.billing == []
    pulumi.delete(volume)


def _failing(argv: tuple[str, ...]) -> str:
    order = Order(
        offer=Offer(provider="runpod", id=""),
        lease=Lease(provider="runpod", name="", run_id=""),
        resources=Resources(provisioner="runpod", volumes=(Volume(path="/workspace", name="volume"),)),
        boot=Boot(jobs=(BootJob(name="fetch", argv=argv),)),
    )
    return pack(Request.of(order, clear(())))


def test_without_the_token_that_it_takes_no_machine_is_rented(pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = pulumi.create()
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ProviderFailed, match="me/lead is gated, and HF_TOKEN is not set"):
        pulumi.provider(DownloadProvider).create(download(volume["volume_id"], gated=True))
    assert pulumi.runpod.ledger() == []
    pulumi.delete(volume)


def test_a_model_that_a_run_has_brought_costs_nothing(pulumi: Pulumi) -> None:
    noted = {
        "repo": "me/lead",
        "commit": "7773b17",
        "files": "1f2e",
        "bytes": 1504288,
        "place": ".",
        "by": "a-run",
        "at": "2026-11-21T23:50:45+00:00",
        "volume_id": "v1",
    }
    outs = pulumi.provider(DownloadProvider).create(download("v1", noted=noted)).outs
    assert (outs["held"]["by"], pulumi.runpod.ledger()) == ("a-run", [])


def test_a_model_on_another_volume_is_another_one(pulumi: Pulumi) -> None:
    provider = pulumi.provider(DownloadProvider)
    assert provider.diff("id", download("v1"), download("v1", order="of a newer release")).changes is False
    assert provider.diff("id", download("v1"), download("v2")).replaces == ["volume_id"]
    assert provider.diff("id", download("v1"), download("v1", files="other")).replaces == ["files"]


def test_machines_that_an_interrupted_update_left_are_ended_with_the_volume(pulumi: Pulumi) -> None:
    volume = pulumi.create(suggested_region="EU-RO-1")
    name = "recipe-ana-fill-9f3a-20261121-051300-2d12-31m"
    pulumi.runpod.order_pod(name, volume["volume_id"])
    assert pulumi.runpod.billing == [name]
    pulumi.delete(volume)
    assert (pulumi.runpod.billing, f"lets go of {name}" in pulumi.said) == ([], True)


@pytest.mark.parametrize("lives", [False, True])
def test_a_machine_that_was_only_asked_for_is_ended_unless_somebody_uses_it(pulumi: Pulumi, lives: bool) -> None:
    name = "recipe-ana-fill-9f3a-20261121-051300-2d12-31m"
    lease = Lease(provider="runpod", name=name, run_id="fill-9f3a-20261121-051300-2d12")
    cache = pulumi.provider()._cache(WANTED)
    journal = Journal(pulumi.home / "ledger.db")
    journal.intend(minded(lease) if lives else lease)
    asyncio.run(cache.end_fillers("fill-9f3a", "ana"))
    assert journal.state(name) == ("intended" if lives else "gone")

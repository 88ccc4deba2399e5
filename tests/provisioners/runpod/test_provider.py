"""The provisioner as the rest of recipe sees it, against a RunPod that answers from a script."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web

from provisioners import naming
from provisioners.contract import Clearance, Gone, Lease, MayStillBill, Offer, Order, Site
from provisioners.providers.runpod import PLUGIN
from provisioners.providers.runpod.pace import Pace
from provisioners.providers.runpod.provider import RunPodProvisioner
from provisioners.shell.keys import LeaseKeys
from recipes.errors import NoCapacity, NoMachine, RecipeError, Unsettled
from recipes.spec import Resources
from tests.provisioners.runpod.scripted import KEY, NAME, QUICK, Script, pod_json, serving

T = TypeVar("T")
OFFER = Offer(provider="runpod", id="NVIDIA A40", accelerator="A40", count=2, price_usd_per_h=0.88, cloud="secure")
RESOURCES = Resources.model_validate({"provisioner": "runpod", "accelerators": "A40:2", "cloud": "secure"})
LEASE = Lease(provider="runpod", name=NAME, run_id="test", deadline=datetime.now(UTC) + timedelta(hours=1))


def catalogue(price: float = 0.44, gpu_id: str = "NVIDIA A40") -> tuple[int, Any]:
    entry = {
        "id": gpu_id,
        "name": "A40",
        "memory": 48,
        "secure": True,
        "community": True,
        "price": {"secure": price, "community": 0.3},
        "maxCount": {"secure": 10, "community": 4},
        "availability": "HIGH",
    }
    return 200, {"gpus": [entry]}


def order(most: float | None = 1.0, **changes: Any) -> Order:
    return replace(Order(offer=OFFER, lease=LEASE, resources=RESOURCES, max_price_usd_per_h=most), **changes)


def using(
    home: Path, what: Callable[[RunPodProvisioner], Awaitable[T]], *script: Any, key: str = KEY, pace: Pace = QUICK
) -> tuple[T, Script]:
    async def conversation() -> tuple[T, Script]:
        async with serving(*script) as server:
            env = {"RUNPOD_API_KEY": key, "RECIPE_RUNPOD_URL": server.url}
            site = Site(home=home, cache=home / "cache", env=env)
            return await what(RunPodProvisioner(site, pace)), server

    return asyncio.run(conversation())


def failing(
    home: Path,
    kind: type[RecipeError],
    what: Callable[[RunPodProvisioner], Awaitable[Any]],
    *script: Any,
    key: str = KEY,
) -> tuple[RecipeError, Script]:
    async def raising(provisioner: RunPodProvisioner) -> RecipeError:
        with pytest.raises(kind) as caught:
            await what(provisioner)
        return caught.value

    return using(home, raising, *script, key=key)


def keys_of(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "leases").glob("*/*"))


def test_it_is_the_plugin_and_bills() -> None:
    assert PLUGIN is RunPodProvisioner
    assert (PLUGIN.name, PLUGIN.billable, PLUGIN.at_once) == ("runpod", True, True)


def test_offers_come_from_the_catalogue_of_each_cloud_and_count(tmp_path: Path) -> None:
    resources = Resources.model_validate({"accelerators": "A40:2", "any_of": [{"accelerators": "A40:4"}]})
    found, script = using(tmp_path, lambda p: p.offers(resources), catalogue())
    asked = {(request.query["count"], request.query["cloud"]) for request in script.asked}
    assert asked == {("2", "SECURE"), ("2", "COMMUNITY"), ("4", "SECURE"), ("4", "COMMUNITY")}
    assert [(offer.count, offer.cloud, offer.price_usd_per_h) for offer in found] == [
        (2, "community", 0.6),
        (2, "secure", 0.88),
        (4, "community", 1.2),
        (4, "secure", 1.76),
    ]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {"detail": f"bad token {KEY}"}), "does not accept the key"),
        ((403, {}), "may not do this"),
        ((404, {}), "refuses what was asked"),
        ((410, {}), "has been ended"),
        ((500, {}), "no usable answer"),
        ((200, "<html>"), "no usable answer"),
    ],
)
def test_offers_that_cannot_be_had_are_no_machine(tmp_path: Path, answer: Any, message: str) -> None:
    error, _ = failing(tmp_path, NoMachine, lambda p: p.offers(RESOURCES), answer)
    assert message in error.message
    assert error.advice
    assert KEY not in f"{error.message} {error.advice} {error.__cause__!r}"


def test_an_existing_volume_binds_the_offers_to_its_data_centre(tmp_path: Path) -> None:
    resources = RESOURCES.model_copy(
        update={"volumes": Resources.model_validate({"volumes": [{"name": "models", "path": "/m"}]}).volumes}
    )
    volumes = (200, {"networkVolumes": [{"id": "v1", "name": "models", "size": 10, "dataCenter": "EU-SE-1"}]})
    found, script = using(tmp_path, lambda p: p.offers(resources), volumes, catalogue())
    assert script.lines[0] == "GET /v2/network-volumes"
    assert [(offer.region, offer.stock) for offer in found] == [("EU-SE-1", "none")]


def test_a_created_pod_completes_the_lease(tmp_path: Path) -> None:
    pod = pod_json(status="PROVISIONING", cost=0.88, ssh=None, runtime={})
    lease, script = using(tmp_path, lambda p: p.create(order(), Clearance(())), catalogue(), (201, pod))
    assert (lease.name, lease.id, lease.price_usd_per_h) == (NAME, "pod1", 0.88)
    assert lease.details["data_center"] == "US-KS-2"
    assert "warnings" not in lease.details
    assert [line.split("?")[0] for line in script.lines] == ["GET /v2/catalog/gpus", "POST /v2/pods"]
    assert keys_of(tmp_path) == ["id_ed25519", "id_ed25519.pub"]
    public = (tmp_path / "leases" / NAME / "id_ed25519.pub").read_text().strip()
    assert script.bodies[1]["env"]["PUBLIC_KEY"] == public
    assert script.bodies[1]["env"]["RECIPE_API"] == script.url


def test_the_price_is_asked_again_right_before(tmp_path: Path) -> None:
    error, script = failing(tmp_path, NoCapacity, lambda p: p.create(order(1.0), Clearance(())), catalogue(0.51))
    assert "now costs $1.02/h, above limits.max_price $1.00/h" in error.message
    assert len(script.asked) == 1
    assert keys_of(tmp_path) == []


def test_a_gpu_that_left_the_catalogue_is_no_capacity(tmp_path: Path) -> None:
    error, script = failing(
        tmp_path, NoCapacity, lambda p: p.create(order(), Clearance(())), catalogue(gpu_id="NVIDIA L4")
    )
    assert "does not offer NVIDIA A40" in error.message
    assert len(script.asked) == 1


def test_a_pod_that_costs_more_than_allowed_is_let_go_at_once(tmp_path: Path) -> None:
    error, script = failing(
        tmp_path,
        NoCapacity,
        lambda p: p.create(order(1.0), Clearance(())),
        catalogue(),
        (201, pod_json(cost=1.52)),
        (204, ""),
        by_path({"pods": []}),
    )
    assert "charges for pod pod1 $1.52/h" in error.message
    assert "DELETE /v2/pods/pod1" in script.lines
    assert keys_of(tmp_path) == []


def by_path(lists: Any) -> Callable[[Any], Awaitable[Any]]:
    """404 for a pod, and this for a list."""

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/pods"):
            return web.json_response(lists)
        return web.json_response({}, status=404)

    return answer


def test_such_a_pod_that_does_not_go_is_not_forgotten(tmp_path: Path) -> None:
    async def trying(provisioner: RunPodProvisioner) -> str:
        with pytest.raises(Unsettled) as caught:
            await provisioner.create(order(1.0), Clearance(()))
        release = await provisioner.destroy(LEASE, patience_s=0.2)
        assert isinstance(release, MayStillBill)
        return caught.value.message

    pace = replace(QUICK, release_s=0.6)
    message, script = using(tmp_path, trying, catalogue(), (201, pod_json(cost=1.52)), (500, {}), pace=pace)
    assert "not proven gone" in message
    assert script.lines.count("DELETE /v2/pods/pod1") > 1
    assert len(keys_of(tmp_path)) == 2


def test_a_pod_that_costs_a_little_more_is_kept_with_a_warning(tmp_path: Path) -> None:
    lease, _ = using(tmp_path, lambda p: p.create(order(1.0), Clearance(())), catalogue(), (201, pod_json(cost=0.95)))
    assert lease.price_usd_per_h == 0.95
    assert lease.details["warnings"] == ["RunPod charges $0.95/h for a pod that it offered for $0.88/h"]


@pytest.mark.parametrize(
    ("status", "kind"), [(400, NoCapacity), (403, NoCapacity), (401, NoMachine), (402, NoMachine), (422, NoMachine)]
)
def test_what_was_refused_needs_no_letting_go(tmp_path: Path, status: int, kind: type[RecipeError]) -> None:
    async def trying(provisioner: RunPodProvisioner) -> RecipeError:
        with pytest.raises(kind) as caught:
            await provisioner.create(order(), Clearance(()))
        release = await provisioner.destroy(LEASE)
        assert isinstance(release, Gone)
        assert "never asked for a pod of this name, or refused it" in release.proof
        return caught.value

    error, script = using(tmp_path, trying, catalogue(), (status, {"detail": "the reason", "errors": ["$.disk: no"]}))
    assert isinstance(error, NoCapacity) is (kind is NoCapacity)
    assert "the reason ($.disk: no)" in error.message
    assert len(script.asked) == 2
    assert keys_of(tmp_path) == []


def test_another_process_looks_for_a_lease_without_an_id(tmp_path: Path) -> None:
    began = time.monotonic()
    release, script = using(tmp_path, lambda p: p.destroy(LEASE, patience_s=60), (200, {"pods": []}))
    assert isinstance(release, Gone)
    assert time.monotonic() - began >= QUICK.unnamed_settle_s
    assert len(script.asked) > 1


def test_a_pod_that_was_seen_once_is_believed_to_be_gone_by_every_process(tmp_path: Path) -> None:
    """Also by one that comes after the proof: who proved it may have died before noting it."""
    new = replace(LEASE, id="pod1", details={"created_at": datetime.now(UTC).isoformat()})
    missing = by_path({"pods": []})
    assert isinstance(using(tmp_path, lambda p: p.destroy(new, patience_s=0.5), missing)[0], MayStillBill)
    used = replace(new, name=f"{NAME}x", details={**new.details, "reached": True})
    assert isinstance(using(tmp_path, lambda p: p.destroy(used), missing)[0], Gone)
    LeaseKeys.create(tmp_path, NAME)
    using(tmp_path, lambda p: p.observe(new), (200, pod_json()))
    assert isinstance(using(tmp_path, lambda p: p.destroy(new), missing)[0], Gone)
    assert keys_of(tmp_path) == []
    assert isinstance(using(tmp_path, lambda p: p.destroy(new), missing)[0], Gone)


def test_a_pod_of_graphql_can_be_let_go_over_rest(tmp_path: Path) -> None:
    """RunPod will end GraphQL while such pods may still run."""

    async def without_graphql(request: web.Request) -> web.Response:
        if request.path == "/graphql":
            return web.json_response({"detail": "retired"}, status=410)
        if request.method == "DELETE":
            return web.Response(status=204)
        return await by_path({"pods": []})(request)

    lease = replace(LEASE, id="pod1", details={"api": "graphql"})
    release, script = using(tmp_path, lambda p: p.destroy(lease), without_graphql)
    assert isinstance(release, Gone)
    assert script.lines[0] == "POST /graphql"
    assert "DELETE /v2/pods/pod1" in script.lines


def test_without_a_key_nothing_can_be_proven(tmp_path: Path) -> None:
    async def everything(provisioner: RunPodProvisioner) -> None:
        lease = replace(LEASE, id="pod1")
        with pytest.raises(NoMachine, match="RUNPOD_API_KEY is not set"):
            await provisioner.offers(RESOURCES)
        with pytest.raises(NoMachine):
            await provisioner.owned("ana")
        assert (await provisioner.observe(lease)).state == "unknown"
        assert await provisioner.bill(lease) is None
        release = await provisioner.destroy(lease)
        assert isinstance(release, MayStillBill)
        assert "RUNPOD_API_KEY" in release.reason

    assert using(tmp_path, everything, (200, {}), key="")[1].asked == []


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("PROVISIONING", "starting"),
        ("STARTING", "starting"),
        ("RUNNING", "running"),
        ("EXITED", "stopped"),
        ("ERROR", "failed"),
        ("TERMINATED", "gone"),
        ("SOMETHING_NEW", "unknown"),
    ],
)
def test_what_runpod_says_of_a_pod(tmp_path: Path, status: str, state: str) -> None:
    observed, _ = using(tmp_path, lambda p: p.observe(replace(LEASE, id="pod1")), (200, pod_json(status=status)))
    assert (observed.state, observed.price_usd_per_h) == (state, 3.58)


def test_a_pod_that_is_denied_is_gone_only_if_it_was_there(tmp_path: Path) -> None:
    missing = by_path({"pods": []})
    new = replace(LEASE, id="pod1", details={"created_at": datetime.now(UTC).isoformat()})
    old = replace(new, details={"created_at": (datetime.now(UTC) - timedelta(minutes=6)).isoformat()})
    assert using(tmp_path, lambda p: p.observe(new), missing)[0].state == "unknown"
    assert using(tmp_path, lambda p: p.observe(old), missing)[0].state == "gone"


def test_silence_is_unknown(tmp_path: Path) -> None:
    observed, _ = using(tmp_path, lambda p: p.observe(replace(LEASE, id="pod1")), (500, {"detail": "down"}))
    assert observed.state == "unknown"
    assert "down" in observed.message


def test_what_an_owner_has_is_known_by_its_names(tmp_path: Path) -> None:
    deadline = datetime(2026, 11, 21, 8, 12, tzinfo=UTC)
    name = naming.lease_name("ana", "2xA40-20261121-051200-9f3a", deadline)
    pods = [
        pod_json(id="mine", name=name),
        pod_json(id="ended", name=name, status="TERMINATED"),
        pod_json(id="theirs", name=naming.lease_name("bob", "2xA40-20261121-051200-9f3b", deadline)),
        pod_json(id="foreign", name="pytorch-training"),
    ]
    (lease,), _ = using(tmp_path, lambda p: p.owned("ana"), (200, {"pods": pods}))
    assert (lease.id, lease.name, lease.run_id) == ("mine", name, "2xA40-20261121-051200-9f3a")
    assert (lease.deadline, lease.price_usd_per_h, lease.provider) == (deadline, 3.58, "runpod")


def test_a_bill_says_dollars_and_the_seconds_of_computing(tmp_path: Path) -> None:
    lease = replace(LEASE, id="pod1", price_usd_per_h=3.6)
    records = [{"podId": "pod1", "totalAmount": 1.0, "gpuAmount": 0.9, "cpuAmount": 0, "diskAmount": 0.1}]
    bill, _ = using(tmp_path, lambda p: p.bill(lease), (200, {"records": records, "metadata": {}}))
    assert bill is not None
    assert (bill.usd, bill.seconds) == (1.0, pytest.approx(900.0))
    for silence in [(200, {"records": []}), (500, {}), (404, {})]:
        assert using(tmp_path, lambda p: p.bill(lease), silence)[0] is None
    assert using(tmp_path, lambda p: p.bill(LEASE), (200, {}))[0] is None


def test_the_command_that_ends_it_is_one_that_people_can_type(tmp_path: Path) -> None:
    command = RunPodProvisioner(Site(home=tmp_path, cache=tmp_path)).command_to_end(LEASE)
    assert command.startswith("recipe reap --yes")
    assert "https://console.runpod.io/pods" in command


def test_there_is_no_login_before_it_was_reached(tmp_path: Path) -> None:
    assert RunPodProvisioner(Site(home=tmp_path, cache=tmp_path)).login(LEASE) is None


def test_a_host_needs_the_key_that_was_made_for_it(tmp_path: Path) -> None:
    error, script = failing(tmp_path, NoMachine, lambda p: p.host(replace(LEASE, id="pod1")), (200, pod_json()))
    assert "holds no key" in error.message
    assert script.asked == []

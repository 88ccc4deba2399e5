"""REST v2 as the schema has it: answers, refusals, the catalogue, volumes, logs and the bill."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from provisioners.rehearsal.catalogue import GPUS
from tests.provisioners.rehearsal import schema
from tests.provisioners.rehearsal.using import A40, Api, eventually, rehearse

pytestmark = pytest.mark.real

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"bogus": 1}, "$: additional properties 'bogus' not allowed"),
    ({"name": ""}, "$.name"),
    ({"image": 5}, "$.image"),
    ({"disk": 0}, "$.disk"),
    ({"env": {"A": 1}}, "$.env.A"),
    ({"ports": "22/tcp"}, "$.ports"),
    ({"cloud": "ALL"}, "$.cloud"),
    ({"gpu": {"id": A40, "count": 0}}, "$.gpu.count"),
    ({"gpu": {"id": A40, "extra": 0}}, "$.gpu: additional properties 'extra'"),
    ({"gpu": {"count": 1}}, "$.gpu: missing properties 'id'"),
    ({"gpu": {"id": A40, "allowedCudaVersions": ["12"]}}, "$.gpu.allowedCudaVersions[0]"),
    ({"mounts": {"persistent": {"size": 5, "path": "/w"}}}, "$.mounts.persistent.size"),
    ({"mounts": {"network": [{"path": "/w"}]}}, "missing properties 'volumeId'"),
    ({"startSsh": "yes"}, "$.startSsh"),
]
UNRULY: list[dict[str, Any]] = [
    {"cpu": {"id": "cpu5c", "vcpuCount": 2}},
    {"gpu": {"id": "NVIDIA NONE"}},
    {"gpu": {"id": A40, "count": 99}},
    {"gpu": {"id": A40, "allowedCudaVersions": ["9.9"]}},
    {"gpu": {"id": A40, "allowedCudaVersions": ["12.8"], "minCudaVersion": "12.1"}},
    {"dataCenterIds": ["US-CA-2"]},
    {"mounts": {"network": [{"volumeId": "none", "path": "/w"}]}},
    {"mounts": {"persistent": {"size": 10, "path": "/w"}, "network": [{"volumeId": "v", "path": "/w"}]}},
]


def test_keys_are_needed_and_a_pods_own_key_only_acts_on_its_pod(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": api.emulator.key}):
            status, problem = await api("GET", "/pods", headers=headers)
            assert (status, problem["title"]) == (401, "Unauthorized")
        mine, other = await api.running(), await api.running()
        pod = api.as_pod(mine)
        for method, path in (
            ("GET", "/pods"),
            ("GET", f"/pods/{mine}"),
            ("GET", "/catalog/gpus"),
            ("DELETE", f"/pods/{other}"),
        ):
            assert (await pod(method, path))[0] == 403
        assert (await pod("POST", f"/pods/{other}/action", {"action": "terminate"}))[0] == 403
        assert (await pod("POST", f"/pods/{mine}/action", {"action": "start"}))[0] == 409
        assert (await pod("POST", f"/pods/{mine}/action", {"action": "terminate"}))[0] == 204
        assert (await pod("DELETE", f"/pods/{mine}"))[0] == 401
        assert [entry.ended_by for entry in api.emulator.ledger.entries()] == ["pod: action terminate", None]

    rehearse(tmp_path, use)


def test_what_is_wrong_with_a_create_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        for changes, complaint in WRONG:
            status, problem = await api("POST", "/pods", api.order(**changes))
            assert status == 422, changes
            assert api.headers["Content-Type"].startswith("application/problem+json")
            assert complaint in " ".join(problem["errors"])
        for changes in UNRULY:
            assert (await api("POST", "/pods", api.order(**changes)))[0] == 400, changes
        assert (await api("POST", "/pods", api.order(templateId="none")))[0] == 404
        assert (await api("POST", "/pods", {"name": "without image", "gpu": {"id": A40}}))[0] == 422
        assert (await api("POST", "/pods", []))[0] == 422
        assert (await api("PUT", "/pods", []))[0] == 405
        assert (await api("GET", "/nothing"))[0] == 404
        assert api.emulator.ledger.entries() == []

    rehearse(tmp_path, use)


@pytest.mark.parametrize("body", [{}, *(changes for changes, _ in WRONG)])
def test_the_emulator_and_the_schema_agree_on_what_a_create_may_say(tmp_path: Path, body: dict[str, Any]) -> None:
    if schema.document() is None:
        pytest.skip(f"RECIPE_TEST_DATA names no folder with {schema.NAME}")
    order = {"name": "n", "image": "i", "gpu": {"id": A40}, "env": {}, **body}
    described = schema.validator({"$ref": "#/components/schemas/CreatePodRequest"})
    assert described.is_valid(order) == (not body)


def test_pods_that_are_equal_in_name(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        first, second = await api.create(name="same"), await api.create(name="same")
        assert first["id"] != second["id"]
        assert await api.listed() == [first["id"], second["id"]]
        assert api.emulator.ledger.to_json()["create_requests"] == {"same": 2}

    rehearse(tmp_path, use)


def test_changing_a_pod(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        pod = await api.create()
        status, changed = await api("PATCH", f"/pods/{pod['id']}", {"name": "other", "locked": True})
        assert (status, changed["name"], changed["locked"]) == (200, "other", True)
        assert (await api("POST", f"/pods/{pod['id']}/action", {"action": "stop"}))[0] == 409
        assert (await api("PATCH", f"/pods/{pod['id']}", {"cost": 0}))[0] == 422
        assert (await api("POST", f"/pods/{pod['id']}/action", {"action": "explode"}))[0] == 422
        assert (await api("POST", f"/pods/{pod['id']}/action", {"action": "terminate", "now": 1}))[0] == 422

    rehearse(tmp_path, use)


def test_the_catalogue(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        _, plain = await api("GET", "/catalog/gpus")
        assert [gpu["id"] for gpu in plain["gpus"]] == [gpu.id for gpu in GPUS]
        assert all("availability" not in gpu for gpu in plain["gpus"])
        for query in (
            "include=AVAILABILITY",
            "product=POD",
            "count=2",
            "include=AVAILABILITY&product=POD&cudaVersions=12.8&minCudaVersion=12",
        ):
            assert (await api("GET", f"/catalog/gpus?{query}"))[0] == 400, query
        for query in (
            "include=ALL",
            "include=AVAILABILITY&product=POD&count=0",
            "include=AVAILABILITY&product=POD&minCudaVersion=x",
        ):
            assert (await api("GET", f"/catalog/gpus?{query}"))[0] == 422, query
        asked = "include=AVAILABILITY&product=POD"
        _, gpu = await api("GET", f"/catalog/gpus/NVIDIA%20A100%2080GB%20PCIe?{asked}&count=2&cloud=SECURE")
        assert (gpu["price"]["secure"], gpu["availability"], gpu["dataCenters"][0]["id"]) == (1.79, "HIGH", "US-KS-2")
        _, none = await api("GET", f"/catalog/gpus/NVIDIA%20A40?{asked}&count=11")
        assert (none["availability"], "dataCenters" in none) == ("NONE", False)
        _, some = await api("GET", f"/catalog/gpus?{asked}&countryCodes=RO,IS")
        assert {center["id"] for gpu in some["gpus"] for center in gpu["dataCenters"]} == {"EU-RO-1", "EUR-IS-1"}
        assert (await api("GET", "/catalog/gpus/none"))[0] == 404
        _, centers = await api("GET", "/catalog/datacenters?regions=EUROPE&include=GPU_AVAILABILITY")
        assert [center["id"] for center in centers["dataCenters"]] == ["EU-RO-1", "EUR-IS-1"]
        assert {"id": A40, "name": "A40", "availability": "HIGH"} in centers["dataCenters"][0]["gpuAvailability"]
        assert (await api("GET", "/catalog/datacenters/US-KS-2"))[0] == 200

        api.emulator.inject(no_capacity_gpus=(f"{A40}@US-KS-2",))
        _, gpu = await api("GET", f"/catalog/gpus/NVIDIA%20A40?{asked}")
        assert [center["availability"] for center in gpu["dataCenters"]] == ["NONE", "HIGH"]
        assert (await api("POST", "/pods", api.order(dataCenterIds=["US-KS-2"])))[0] == 400
        assert (await api.create())["dataCenterId"] == "EU-RO-1"

    rehearse(tmp_path, use)


def test_network_volumes(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        order = {"name": "v", "size": 20, "dataCenter": "US-KS-2", "type": "HIGH_PERFORMANCE"}
        status, volume = await api("POST", "/network-volumes", order)
        assert status == 201
        at = f"/network-volumes/{volume['id']}"
        assert await api("GET", at) == (200, volume)
        assert (await api("PATCH", at, {"size": 10}))[0] == 400
        assert (await api("PATCH", at, {}))[0] == 422
        assert (await api("PATCH", at, {"size": 40, "name": "w"}))[1] == {**volume, "size": 40, "name": "w"}
        assert len((await api("GET", "/network-volumes"))[1]["networkVolumes"]) == 1
        mounts = {"network": [{"volumeId": volume["id"], "path": "/w"}]}
        assert (await api("POST", "/pods", api.order(mounts=mounts, dataCenterIds=["EU-RO-1"])))[0] == 400
        assert (await api("DELETE", at))[0] == 204
        assert (await api("GET", at))[0] == 404
        assert (await api("POST", "/network-volumes", {**order, "dataCenter": "EUR-IS-1"}))[0] == 400
        assert (await api("POST", "/network-volumes", {**order, "size": 1}))[0] == 422

    rehearse(tmp_path, use)


def test_the_bill_is_the_ledgers(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        first, second = await api.create(gpu={"id": A40, "count": 2}), await api.create()
        for pod in (first, second):
            await api("DELETE", f"/pods/{pod['id']}")
        status, bill = await api("GET", f"/billing/pods?podId={first['id']}&bucketSize=hour&lastN=2")
        assert status == 200
        entry = api.emulator.ledger.entries()[0]
        assert bill["metadata"]["totals"]["totalAmount"] == pytest.approx(entry.usd)
        assert {record["podId"] for record in bill["records"]} == {first["id"]}
        _, both = await api("GET", "/billing/pods?startTime=2026-01-01T00:00:00Z&bucketSize=year")
        assert both["metadata"]["uniquePodCount"] == 2
        assert (await api("GET", "/billing/pods?lastN=1&startTime=2026-01-01T00:00:00Z"))[0] == 400
        assert (await api("GET", "/billing/pods?bucketSize=minute"))[0] == 422

    rehearse(tmp_path, use, time_scale=1000)


def test_time_passes_faster_on_the_bill(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        pod = await api.create(disk=73)
        await asyncio.sleep(0.2)
        await api("DELETE", f"/pods/{pod['id']}")
        (entry,) = api.emulator.ledger.entries()
        assert entry.billing_until is not None
        real = (entry.billing_until - entry.created_at).total_seconds()
        assert entry.billed_s == pytest.approx(real * 3600, rel=0.01)
        # 73 GB at $0.10 a month of 730 hours is a cent an hour.
        assert entry.usd == pytest.approx(real * (0.44 + 0.01), rel=0.01)

    rehearse(tmp_path, use, time_scale=3600)


def test_logs_are_streamed_and_end_with_the_pod(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        pod_id = await api.running(args="sh -c 'echo one; echo two; exec sleep 1000'")
        heard: list[str] = []

        async def listen(query: str) -> None:
            headers = {"Authorization": f"Bearer {api.emulator.key}"}
            async with aiohttp.request(
                "GET", f"{api.emulator.url}/pods/{pod_id}/logs?{query}", headers=headers
            ) as answer:
                assert answer.content_type == "text/event-stream"
                async for line in answer.content:
                    heard.extend(json.loads(data)["line"] for data in [line.removeprefix(b"data: ")] if data != line)

        listening = asyncio.create_task(listen("source=container"))
        await eventually(lambda: _says(heard, ["one", "two"]))
        last = asyncio.create_task(listen("source=container&tail=1"))
        await eventually(lambda: _says(heard, ["one", "two", "two"]))
        await api("DELETE", f"/pods/{pod_id}")
        await asyncio.gather(listening, last)
        assert (await api("GET", f"/pods/{pod_id}/logs"))[0] == 404

    rehearse(tmp_path, use)


async def _says(heard: list[str], wanted: list[str]) -> bool:
    return heard == wanted


def test_the_accounts_ssh_keys_reach_pods_that_ask_for_them(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        public = api.key_file.with_suffix(".pub").read_text().strip()
        assert (await api("PUT", "/account/ssh-keys", {"keys": ["nonsense"]}))[0] == 422
        assert await api("PUT", "/account/ssh-keys", {"keys": [public]}) == (200, {"keys": [public]})
        assert await api("GET", "/account/ssh-keys") == (200, {"keys": [public]})
        pod_id = await api.running(env={}, startSsh=True)
        assert await api.ssh(pod_id, "echo in") == (0, "in\n")

    rehearse(tmp_path, use)

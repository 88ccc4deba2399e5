"""The REST API: lists to their end, bodies of the schema's fields alone, and answers read openly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from aiohttp import web

from provisioners.providers.runpod import answers, values
from provisioners.providers.runpod.cloud import NetworkDisk, PersistentDisk
from provisioners.providers.runpod.rest import RestCloud, create_body
from provisioners.providers.runpod.values import Address, NetworkVolume
from tests.provisioners.rehearsal import schema
from tests.provisioners.runpod.scripted import KEY, QUICK, Script, pod_json, serving, wish

T = TypeVar("T")


def talk(what: Callable[[RestCloud], Awaitable[T]], *script: Any) -> tuple[T, Script]:
    async def conversation() -> tuple[T, Script]:
        async with serving(*script) as server, RestCloud(server.url, KEY, QUICK) as cloud:
            return await what(cloud), server

    return asyncio.run(conversation())


def pods(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [pod_json(id=f"pod{number}") for number in range(start, start + count)]


def test_a_list_is_followed_to_its_end() -> None:
    found, script = talk(
        lambda cloud: cloud.pods(),
        (200, {"pods": pods(2), "nextCursor": "a/b="}),
        (200, {"pods": pods(2, 2), "nextCursor": "c"}),
        (200, {"pods": pods(1, 4), "nextCursor": None}),
    )
    assert [pod.id for pod in found] == [f"pod{n}" for n in range(5)]
    assert [request.query.get("cursor") for request in script.asked] == [None, "a/b=", "c"]


def test_a_cursor_may_stand_beside_the_list() -> None:
    found, script = talk(
        lambda cloud: cloud.pods(), (200, {"pods": pods(1), "page": {"nextCursor": "b"}}), (200, {"pods": pods(1, 1)})
    )
    assert len(found) == len(script.asked) == 2


@pytest.mark.parametrize(
    "broken",
    [
        [(200, {"pods": pods(1), "nextCursor": "b"}), (500, {})],
        [(200, {"pods": pods(1), "nextCursor": "b"})],
        [(200, {})],
        [(200, [])],
        [(200, {"pods": "none"})],
        [(200, {"pods": [{"name": "nameless"}]})],
        [(200, {"pods": [None]})],
        [(200, "<html>")],
        [(200, "")],
    ],
)
def test_a_list_that_was_not_read_whole_is_no_list(broken: list[Any]) -> None:
    """An absence is a proof: it must not come from half a list."""

    async def listing(cloud: RestCloud) -> None:
        with pytest.raises(answers.ServerError):
            await cloud.pods(again_s=0.0)

    talk(listing, *broken)


def test_an_empty_list_is_one() -> None:
    assert talk(lambda cloud: cloud.pods(), (200, {"pods": []}))[0] == []
    assert talk(lambda cloud: cloud.pods(), (200, {"pods": None}))[0] == []


def test_a_pod_is_read_without_its_secrets() -> None:
    pod, script = talk(lambda cloud: cloud.pod("pod1"), (200, pod_json(someday={"new": 1})))
    assert (pod.id, pod.status, pod.cost_usd_per_h, pod.data_center) == ("pod1", "RUNNING", 3.58, "US-KS-2")
    assert pod.address == Address("10.0.0.1", 2222, "root")
    assert pod.created_at == datetime(2026, 11, 21, 5, 12, 3, tzinfo=UTC)
    assert "hf_secret" not in repr(pod)
    assert script.lines == ["GET /v2/pods/pod1"]


def test_a_pod_of_which_little_is_said_is_one_too() -> None:
    pod = values.pod_from({"id": "pod1"})
    assert (pod.status, pod.cost_usd_per_h, pod.address, pod.created_at) == ("UNKNOWN", None, None, None)
    odd = values.pod_from({"id": "p", "cost": "much", "ssh": None, "runtime": {"ports": None}, "createdAt": "?"})
    assert odd.cost_usd_per_h is None


@pytest.mark.parametrize(
    ("ssh", "ports", "address"),
    [
        ({"direct": None}, [{"private": 22, "public": 7, "type": "tcp", "ip": "1.2.3.4"}], Address("1.2.3.4", 7)),
        ({"direct": None}, [{"private": 22, "public": None, "type": "tcp", "ip": None}], None),
        ({"direct": None}, [{"private": 80, "public": 7, "type": "http", "ip": "1.2.3.4"}], None),
        ({"direct": None, "proxy": {"host": "ssh.runpod.io", "port": 22, "username": "x"}}, [], None),
        ({"direct": {"host": "h", "port": 9, "username": "me"}}, [], Address("h", 9, "me")),
        (None, None, None),
    ],
)
def test_where_a_pods_sshd_listens(ssh: Any, ports: Any, address: Address | None) -> None:
    assert values.pod_from(pod_json(ssh=ssh, runtime={"ports": ports})).address == address


def test_the_ports_that_are_open_to_the_internet() -> None:
    ports = [
        {"private": 22, "public": 7, "type": "tcp", "ip": "1.2.3.4"},
        {"private": 8000, "public": 8, "type": "tcp", "ip": "1.2.3.4"},
        {"private": 8888, "public": 9, "type": "http", "ip": "1.2.3.4"},
        {"private": 9000, "public": None, "type": "tcp", "ip": None},
        "nonsense",
    ]
    assert values.pod_from(pod_json(runtime={"ports": ports})).public == {22: "1.2.3.4:7", 8000: "1.2.3.4:8"}


CREATE_FIELDS = {"name", "image", "gpu", "cloud", "disk", "ports", "env", "args", "dataCenterIds", "mounts"}


def test_a_create_says_what_the_schema_knows_and_nothing_else() -> None:
    whole = create_body(wish(data_centers=("US-KS-2",), min_cuda="12.8", mount=PersistentDisk(200, "/workspace")))
    assert set(whole) == CREATE_FIELDS
    assert whole["gpu"] == {"id": "NVIDIA A40", "count": 1, "minCudaVersion": "12.8"}
    assert whole["cloud"] == "SECURE"
    assert whole["ports"] == ["22/tcp"]
    assert whole["mounts"] == {"persistent": {"size": 200, "path": "/workspace"}}
    assert set(create_body(wish())) == CREATE_FIELDS - {"dataCenterIds", "mounts"}
    network = create_body(wish(mount=NetworkDisk("vol1", "/models")))
    assert network["mounts"] == {"network": [{"volumeId": "vol1", "path": "/models"}]}


@pytest.mark.skipif(schema.document() is None, reason="RECIPE_TEST_DATA names no folder with RunPod's schema")
@pytest.mark.parametrize("mount", [None, PersistentDisk(10, "/workspace"), NetworkDisk("v1", "/models")])
def test_a_create_is_what_the_vendors_schema_says(mount: Any) -> None:
    body = create_body(wish(mount=mount, data_centers=("US-KS-2",), min_cuda="12.8"))
    schema.fail_unless_valid({"$ref": "#/components/schemas/CreatePodRequest"}, body, "create")


@pytest.mark.parametrize("trouble", [(500, {}), "hang up", (429, {}, {"Retry-After": "0"}), (201, {}), (201, "<html>")])
def test_a_create_is_never_asked_twice_by_itself(trouble: Any) -> None:
    async def creating(cloud: RestCloud) -> None:
        with pytest.raises(answers.ApiError):
            await cloud.create(wish())

    _, script = talk(creating, trouble, (201, pod_json()))
    assert script.lines == ["POST /v2/pods"]


def test_a_pod_is_made() -> None:
    pod, script = talk(lambda cloud: cloud.create(wish()), (201, pod_json(status="PROVISIONING", ssh=None, runtime={})))
    assert (pod.id, pod.status, pod.address) == ("pod1", "PROVISIONING", None)
    assert script.bodies == [create_body(wish())]


@pytest.mark.parametrize("first", [(404, {}), (409, {}), (403, {}), (500, {}), (405, {})])
def test_where_a_delete_is_not_accepted_the_action_may_be(first: Any) -> None:
    _, script = talk(lambda cloud: cloud.end("pod1"), first, (204, ""))
    assert script.lines == ["DELETE /v2/pods/pod1", "POST /v2/pods/pod1/action"]
    assert script.bodies[1] == {"action": "terminate"}


@pytest.mark.parametrize("first", [(401, {}), (429, {}), "hang up"])
def test_where_the_action_would_fare_no_better_it_is_not_tried(first: Any) -> None:
    async def ending(cloud: RestCloud) -> None:
        with pytest.raises(answers.ApiError):
            await cloud.end("pod1")

    assert set(talk(ending, first)[1].lines) == {"DELETE /v2/pods/pod1"}


def test_the_catalogue_is_asked_for_one_cloud_and_count() -> None:
    entry = {
        "id": "NVIDIA A40",
        "name": "A40",
        "memory": 48,
        "secure": True,
        "community": False,
        "price": {"secure": 0.44, "community": 0},
        "maxCount": {"secure": 10, "community": 0},
        "availability": "HIGH",
        "dataCenters": [{"id": "EU-SE-1", "name": "Sweden", "availability": "LOW"}],
    }
    found, script = talk(lambda cloud: cloud.gpus(count=4, cloud="secure"), (200, {"gpus": [entry]}))
    (gpu,) = found
    assert (gpu.price_usd_per_h, gpu.most, gpu.stock, gpu.memory_gb) == (0.44, 10, "high", 48)
    assert gpu.stock_by_data_center == {"EU-SE-1": "low"}
    assert dict(script.asked[0].query) == {
        "include": "AVAILABILITY",
        "product": "POD",
        "count": "4",
        "cloud": "SECURE",
    }
    assert list(talk(lambda cloud: cloud.gpus(count=4, cloud="community"), (200, {"gpus": [entry]}))[0]) == []


def test_network_volumes_are_listed_read_made_grown_and_deleted() -> None:
    volume = {"id": "v1", "name": "models", "size": 200, "dataCenter": "EU-RO-1", "type": "STANDARD"}

    async def all_five(cloud: RestCloud) -> list[NetworkVolume]:
        found = [*await cloud.volumes(), await cloud.volume("v1"), await cloud.create_volume("models", 200, "EU-RO-1")]
        found.append(await cloud.grow_volume("v1", 200))
        await cloud.end_volume("v1")
        with pytest.raises(answers.NotFound):
            await cloud.end_volume("v1")
        return found

    found, script = talk(
        all_five, (200, {"networkVolumes": [volume]}), (200, volume), (201, volume), (200, volume), (204, ""), (404, {})
    )
    assert found == [NetworkVolume("v1", "models", 200, "EU-RO-1")] * 4
    assert script.bodies[2:4] == [{"name": "models", "size": 200, "dataCenter": "EU-RO-1"}, {"size": 200}]
    assert script.lines[3:5] == ["PATCH /v2/network-volumes/v1", "DELETE /v2/network-volumes/v1"]


def test_data_centres() -> None:
    kansas = {"id": "US-KS-2", "name": "Kansas", "region": "NORTH_AMERICA", "networkVolumeTypes": ["STANDARD"]}
    answer = (200, {"dataCenters": [kansas, {"id": "EUR-IS-1", "name": "Iceland", "region": "EUROPE"}]})
    found, _ = talk(lambda cloud: cloud.data_centers(), answer)
    assert [(center.id, center.region, center.volume_types) for center in found] == [
        ("US-KS-2", "NORTH_AMERICA", ("STANDARD",)),
        ("EUR-IS-1", "EUROPE", ()),
    ]


def test_bills_are_added_up_from_their_records() -> None:
    records = [
        {"podId": "p", "totalAmount": 1.5, "gpuAmount": 1.2, "cpuAmount": 0, "diskAmount": 0.3},
        {"podId": "p", "totalAmount": 0.5, "gpuAmount": 0.4, "cpuAmount": 0, "diskAmount": 0.1},
    ]
    found, script = talk(lambda cloud: cloud.billing("p"), (200, {"records": records, "metadata": {}}))
    assert [(record.total_usd, record.compute_usd) for record in found] == [(1.5, 1.2), (0.5, 0.4)]
    assert dict(script.asked[0].query) == {"podId": "p", "bucketSize": "hour"}


def test_the_end_of_a_log_is_read_from_a_stream_that_does_not_end() -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(5):
            await response.write(f'id: {number}\ndata: {{"source":"container","line":"line {number}"}}\n\n'.encode())
        await response.write(b": a comment\n\ndata: no json\n\n")
        await asyncio.sleep(3600)
        return response

    lines, script = talk(lambda cloud: cloud.log_tail("pod1", 3), stream)
    assert lines == ["line 2", "line 3", "line 4"]
    assert script.lines == ["GET /v2/pods/pod1/logs?tail=3"]


def test_a_log_that_cannot_be_had_is_an_error_like_any_other() -> None:
    async def reading(cloud: RestCloud) -> None:
        with pytest.raises(answers.NotFound):
            await cloud.log_tail("pod1", 3)

    talk(reading, (404, {}))


def test_an_id_is_never_part_of_a_path_by_accident() -> None:
    _, script = talk(lambda cloud: cloud.pod("a/b c"), (200, pod_json()))
    assert script.asked[0].raw_path == "/v2/pods/a%2Fb%20c"

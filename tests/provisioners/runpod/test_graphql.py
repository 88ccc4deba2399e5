"""GraphQL through RunPod's SDK: values travel as variables, and every error is one of the same classes."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from provisioners.providers.runpod import answers
from provisioners.providers.runpod.answers import ApiError
from provisioners.providers.runpod.cloud import NetworkDisk, PersistentDisk
from provisioners.providers.runpod.graphql import GraphqlCloud, create_input, error_from
from provisioners.providers.runpod.rest import RestCloud
from provisioners.providers.runpod.values import Address
from tests.provisioners.runpod.scripted import KEY, NAME, QUICK, Script, serving, wish

T = TypeVar("T")
NASTY = 'a "quoted" \\ back\nslash } ) { $input'


def talk(what: Callable[[GraphqlCloud], Awaitable[T]], *script: Any) -> tuple[T, Script]:
    async def conversation() -> tuple[T, Script]:
        async with serving(*script) as server:
            address = server.url.replace("/v2", "/graphql")
            async with GraphqlCloud(address, KEY, QUICK, RestCloud(server.url, KEY, QUICK)) as cloud:
                return await what(cloud), server

    return asyncio.run(conversation())


def trouble(what: Callable[[GraphqlCloud], Awaitable[Any]], *script: Any) -> tuple[ApiError, Script]:
    async def failing(cloud: GraphqlCloud) -> ApiError:
        with pytest.raises(ApiError) as caught:
            await what(cloud)
        return caught.value

    return talk(failing, *script)


def data(**fields: Any) -> tuple[int, Any]:
    return 200, {"data": fields}


def error(message: str, code: str = "INTERNAL_SERVER_ERROR") -> tuple[int, Any]:
    return 200, {"errors": [{"message": message, "extensions": {"code": code}}], "data": None}


def pod(**changes: Any) -> dict[str, Any]:
    ports = [
        {"ip": "100.65.0.1", "isIpPublic": False, "privatePort": 8888, "publicPort": 60000, "type": "http"},
        {"ip": "1.2.3.4", "isIpPublic": True, "privatePort": 22, "publicPort": 10022, "type": "tcp"},
    ]
    known = {"id": "pod1", "name": NAME, "desiredStatus": "RUNNING", "costPerHr": 1.79, "gpuCount": 1}
    return {**known, "machine": {"podHostId": "h"}, "runtime": {"uptimeInSeconds": 5, "ports": ports}, **changes}


def test_every_value_of_a_create_is_a_variable() -> None:
    asked = wish(name=NASTY, args=NASTY, env={"PROMPT": NASTY, "QUOTE": '"'}, mount=PersistentDisk(200, "/workspace"))
    made, script = talk(lambda cloud: cloud.create(asked), data(podFindAndDeployOnDemand=pod(runtime=None)))
    assert (made.id, made.status, made.cost_usd_per_h) == ("pod1", "STARTING", 1.79)
    (body,) = script.bodies
    assert body["variables"] == {"input": create_input(asked)}
    assert body["variables"]["input"]["env"] == [
        {"key": "PROMPT", "value": NASTY},
        {"key": "QUOTE", "value": '"'},
    ]
    assert body["variables"]["input"]["dockerArgs"] == NASTY
    assert "$input" in body["query"]
    assert "quoted" not in body["query"]
    assert script.lines == ["POST /graphql"]
    assert script.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert "RunPod-Python-SDK" in script.asked[0].headers["User-Agent"]


def test_the_document_does_not_depend_on_what_is_asked() -> None:
    answer = data(podFindAndDeployOnDemand=pod())
    documents = {
        talk(lambda cloud, w=w: cloud.create(w), answer)[1].bodies[0]["query"]  # type: ignore[misc]
        for w in (wish(), wish(name=NASTY, env={"A": NASTY}))
    }
    assert len(documents) == 1


def test_an_input_has_the_fields_of_the_schema() -> None:
    whole = create_input(wish(data_centers=("US-KS-2",), mount=NetworkDisk("v1", "/models"), bid_usd_per_gpu_h=0.5))
    assert whole["bidPerGpu"] == 0.5
    assert (whole["networkVolumeId"], whole["volumeMountPath"], whole["volumeInGb"]) == ("v1", "/models", 0)
    assert (whole["dataCenterId"], whole["cloudType"], whole["ports"]) == ("US-KS-2", "SECURE", "22/tcp")
    assert "bidPerGpu" not in create_input(wish())
    sized = create_input(wish(min_cpus=16, min_memory_gb=128))
    assert (sized["minVcpuCount"], sized["minMemoryInGb"]) == (16, 128)


def test_spot_is_another_mutation_with_a_bid() -> None:
    asked = wish(bid_usd_per_gpu_h=0.61)
    _, script = talk(lambda cloud: cloud.create(asked), data(podRentInterruptable=pod()))
    assert "podRentInterruptable(input: $input)" in script.bodies[0]["query"]
    assert script.bodies[0]["variables"]["input"]["bidPerGpu"] == 0.61


def test_pods_are_listed_read_and_ended() -> None:
    found, script = talk(lambda cloud: cloud.pods(), data(myself={"pods": [pod(), pod(id="pod2", runtime=None)]}))
    assert [(p.id, p.name, p.status) for p in found] == [("pod1", NAME, "RUNNING"), ("pod2", NAME, "STARTING")]
    assert found[0].address == Address("1.2.3.4", 10022)
    read, script = talk(lambda cloud: cloud.pod("pod1"), data(pod=pod(desiredStatus="EXITED", runtime=None)))
    assert read.status == "EXITED"
    assert script.bodies[0]["variables"] == {"input": {"podId": "pod1"}}
    _, script = talk(lambda cloud: cloud.end("pod1"), data(podTerminate=None))
    assert script.bodies[0]["variables"] == {"input": {"podId": "pod1"}}


def test_what_is_not_there_is_not_found() -> None:
    assert isinstance(trouble(lambda cloud: cloud.pod("pod1"), data(pod=None))[0], answers.NotFound)
    assert isinstance(trouble(lambda cloud: cloud.end("pod1"), error("Pod not found"))[0], answers.NotFound)


@pytest.mark.parametrize("answer", [data(myself=None), data(myself={}), data(myself={"pods": None}), data(), (200, {})])
def test_an_answer_without_a_list_is_no_empty_list(answer: Any) -> None:
    assert isinstance(trouble(lambda cloud: cloud.pods(again_s=0.0), answer)[0], answers.ServerError)


@pytest.mark.parametrize(
    ("message", "code", "kind"),
    [
        (
            "There are no longer any instances available with the requested specifications. Please refresh.",
            "RUNPOD",
            answers.CapacityRefused,
        ),
        ("There are no longer any instances available with enough disk space.", "", answers.CapacityRefused),
        ("Bid must be at least 0.61 per GPU", "RUNPOD", answers.CapacityRefused),
        ("Your balance is too low to rent this pod", "", answers.NoCredit),
        ("Unauthorized", "", answers.Unauthorized),
        ("who are you", "UNAUTHENTICATED", answers.Unauthorized),
        ("access denied", "FORBIDDEN", answers.Forbidden),
        ("pod not found to terminate", "", answers.NotFound),
        ('Variable "$input" got invalid value', "BAD_USER_INPUT", answers.Invalid),
        ('Cannot query field "foo" on type "Pod"', "GRAPHQL_VALIDATION_FAILED", answers.Invalid),
        ("Too many requests", "", answers.RateLimited),
        ("Something went wrong. Please try again later", "INTERNAL_SERVER_ERROR", answers.ServerError),
        ("", "", answers.ServerError),
    ],
)
def test_an_error_is_known_by_its_words_then_by_its_code(message: str, code: str, kind: type[ApiError]) -> None:
    assert type(error_from("Deploy", {"message": message, "extensions": {"code": code}})) is kind


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((401, {"errors": [{"message": "Unauthorized"}]}), answers.Unauthorized),
        ((401, "no"), answers.Unauthorized),
        ((410, {}), answers.Retired),
        ((429, {}, {"Retry-After": "7"}), answers.RateLimited),
        ((500, "<html>"), answers.ServerError),
        ((502, {"message": "bad gateway"}), answers.ServerError),
        ((200, "<html>"), answers.ServerError),
        ((302, "", {"Location": "/"}), answers.Invalid),
        (data(podFindAndDeployOnDemand=None), answers.CapacityRefused),
        (data(podFindAndDeployOnDemand={"name": "no id"}), answers.ServerError),
        (error("Something went wrong"), answers.ServerError),
        ("hang up", answers.Lost),
    ],
)
def test_a_create_that_fails_is_one_of_the_classes_and_is_asked_once(answer: Any, kind: type[ApiError]) -> None:
    caught, script = trouble(lambda cloud: cloud.create(wish()), answer)
    assert type(caught) is kind
    assert len(script.asked) == 1


def test_where_nobody_listens_nothing_was_asked() -> None:
    async def nobody(address: str) -> None:
        rest = RestCloud(f"{address}/v2", KEY, QUICK)
        async with GraphqlCloud(f"{address}/graphql", KEY, QUICK, rest) as cloud:
            with pytest.raises(answers.Unreachable):
                await cloud.create(wish())

    with socket.socket() as deaf:  # it has the port, and does not listen
        deaf.bind(("127.0.0.1", 0))
        asyncio.run(nobody(f"http://127.0.0.1:{deaf.getsockname()[1]}"))


def test_reads_are_repeated() -> None:
    found, script = talk(lambda cloud: cloud.pods(again_s=60.0), (502, "<html>"), data(myself={"pods": []}))
    assert found == []
    assert len(script.asked) == 2


def test_no_error_repeats_a_secret() -> None:
    secret = 'hf_"quoted"_secret'
    said = error(f'Variable got {KEY} and hf_"quoted"_secret')
    caught, _ = trouble(lambda cloud: cloud.create(wish(env={"HF_TOKEN": secret})), said)
    shown = f"{caught} {caught!r} {caught.short}"
    assert "***" in shown
    assert KEY not in shown
    assert "quoted" not in shown


def test_spot_prices_are_those_of_the_bid() -> None:
    entry = {"id": "NVIDIA A40", "name": "A40", "price": {"secure": 0.44}, "maxCount": {"secure": 8}}
    other = {**entry, "id": "NVIDIA L4", "name": "L4"}
    prices = data(gpuTypes=[{"id": "NVIDIA A40", "secureSpotPrice": 0.2}, {"id": "NVIDIA L4", "secureSpotPrice": None}])
    found, _ = talk(
        lambda cloud: cloud.gpus(count=1, cloud="secure", spot=True), (200, {"gpus": [entry, other]}), prices
    )
    assert [(gpu.id, gpu.price_usd_per_h) for gpu in found] == [("NVIDIA A40", 0.2)]


def test_the_sdk_and_the_ssh_libraries_are_not_loaded_before_they_are_needed() -> None:
    program = (
        "import sys; import provisioners.providers.runpod\n"
        "print([name for name in ('runpod', 'fabric', 'paramiko', 'requests') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"

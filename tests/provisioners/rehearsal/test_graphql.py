"""GraphQL: what the `runpod` package asks for, and what is asked with variables."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from provisioners.rehearsal.faults import Faults
from provisioners.rehearsal.graphql_text import Field, SyntaxProblem, Variable, filled_in, read
from tests.provisioners.rehearsal.using import A40, WAITS, Api, rehearse

pytestmark = pytest.mark.real

PORTS = "runtime { ports { ip isIpPublic privatePort publicPort type } }"
POD = f"id name desiredStatus costPerHr env {PORTS} machine {{ podHostId }}"
DEPLOY = (
    f"mutation Deploy($input: PodFindAndDeployOnDemandInput!) {{ podFindAndDeployOnDemand(input: $input) {{ {POD} }} }}"
)
RENT = "mutation ($input: PodRentInterruptableInput) { podRentInterruptable(input: $input) { id costPerHr podType } }"
PACKAGE = """
import json, sys, runpod
runpod.api_key = sys.argv[1]
said = {"gpus": len(runpod.get_gpus()), "gpu": runpod.get_gpu("NVIDIA A40", 2)["securePrice"]}
pod = runpod.create_pod("by package", "some/image:1", gpu_type_id="NVIDIA A40", gpu_count=2, cloud_type="SECURE",
                        ports="22/tcp", env={"A": "b"}, docker_args="sleep 1000", volume_in_gb=20)
said["listed"] = [other["name"] for other in runpod.get_pods()]
said["seen"] = runpod.get_pod(pod["id"])["gpuCount"]
runpod.stop_pod(pod["id"])
said["stopped"] = runpod.get_pod(pod["id"])["desiredStatus"]
runpod.terminate_pod(pod["id"])
said["left"] = runpod.get_pods()
try:
    runpod.create_pod('a "quoted" name', "some/image:1", gpu_type_id="NVIDIA A40")
except runpod.error.QueryError as error:
    said["quoted"] = str(error)
runpod.api_key = "wrong"
try:
    runpod.get_pods()
except runpod.error.AuthenticationError as error:
    said["wrong key"] = str(error)
print(json.dumps(said))
"""


def test_reading_documents() -> None:
    operation = read(
        'query Q($id: String! = "x", $n: [Int!]) { # a remark\n'
        "a: pod(input: {podId: $id, n: [1, -2.5e1, true, null, ENUM]}) { id } }"
    )
    assert operation.defaults == {"id": "x"}
    arguments = {"input": {"podId": Variable("id"), "n": [1, -25.0, True, None, "ENUM"]}}
    assert operation.fields == (Field("pod", "a", arguments, (Field("id", "id"),)),)
    assert filled_in({"a": Variable("x"), "b": Variable("y")}, {"x": 1}) == {"a": 1}
    assert read('{ f(a: "\\u00e9\\n", b: """block "q" """) }').fields[0].arguments == {"a": "é\n", "b": 'block "q" '}
    assert read("query A { a } query B { b }", "B").fields == (Field("b", "b"),)
    for wrong in ("", "{", "{ a(", "query A { a } query B { b }", '{ f(a: "x"y") }', "subscription { a }", "{ a; }"):
        with pytest.raises(SyntaxProblem):
            read(wrong)


def test_the_runpod_package(tmp_path: Path) -> None:
    pytest.importorskip("runpod")

    async def use(api: Api) -> None:
        env = {**os.environ, "RUNPOD_API_BASE_URL": api.emulator.graphql_url.removesuffix("/graphql")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PACKAGE, api.emulator.key), env=env, stdout=subprocess.PIPE
        )
        output, _ = await process.communicate()
        said: dict[str, Any] = json.loads(output)
        assert "Syntax Error" in said.pop("quoted")
        assert "Unauthorized" in said.pop("wrong key")
        assert said == {
            "gpus": 10,
            "gpu": 0.44,
            "listed": ["by package"],
            "seen": 2,
            "stopped": "EXITED",
            "left": [],
        }
        assert [entry.ended_by for entry in api.emulator.ledger.entries()] == ["account: podTerminate"]

    rehearse(tmp_path, use)


def test_what_is_asked_with_variables(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        env = [
            {"key": "PUBLIC_KEY", "value": api.key_file.with_suffix(".pub").read_text()},
            {"key": "Q", "value": '"$`'},
        ]
        order = {
            "name": 'a "name"',
            "imageName": "i",
            "gpuTypeId": A40,
            "dockerArgs": WAITS,
            "ports": "22/tcp",
            "env": env,
        }
        answer = await api.graphql(DEPLOY, {"input": {**order, "cloudType": "SECURE"}})
        pod = answer["data"]["podFindAndDeployOnDemand"]
        assert (pod["name"], pod["desiredStatus"], pod["costPerHr"]) == ('a "name"', "RUNNING", 0.44)
        assert 'Q="$`' in pod["env"]
        await api.until(pod["id"], lambda pod: pod["ssh"]["direct"])
        answer = await api.graphql(f'{{ pod(input: {{podId: "{pod["id"]}"}}) {{ {POD} }} }}')
        (port,) = answer["data"]["pod"]["runtime"]["ports"]
        assert (port["privatePort"], port["type"], port["isIpPublic"]) == (22, "tcp", True)
        answer = await api.graphql('{ pod(input: {podId: "none"}) { id } }')
        assert answer == {"data": {"pod": None}}

        answer = await api.graphql(RENT, {"input": {**order, "bidPerGpu": 0.01, "cloudType": "SECURE"}})
        assert "Bid must be at least" in answer["errors"][0]["message"]
        answer = await api.graphql(RENT, {"input": {**order, "bidPerGpu": 0.25, "gpuCount": 2}})
        rented = answer["data"]["podRentInterruptable"]
        assert (rented["costPerHr"], rented["podType"]) == (0.5, "INTERRUPTABLE")
        assert len(api.emulator.ledger.billing()) == 2

    rehearse(tmp_path, use)


def test_errors_come_with_200(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        for query in (
            "{",
            "{ none { id } }",
            "{ myself { none } }",
            "{ myself }",
            "mutation { podTerminate(input: {}) }",
        ):
            assert (await api.graphql(query))["errors"], query
        order = {"name": "n", "imageName": "i", "gpuTypeId": A40}
        answer = await api.graphql(DEPLOY, {"input": {**order, "unknown": 1}})
        assert "unknown" in answer["errors"][0]["message"]
        assert "no longer any instances" in (await api.graphql(DEPLOY, {"input": order}))["errors"][0]["message"]
        pod = await api.create()
        answer = await api.as_pod(pod["id"]).graphql("{ myself { id } }")
        assert answer["errors"][0]["message"] == "Not authorized"

    rehearse(tmp_path, use, Faults(create_no_capacity=2))

"""The GraphQL that is still needed: what the `runpod` package asks for, interruptible pods, and a pod's own way to end.

Errors come with HTTP 200, in `errors`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from provisioners.rehearsal import catalogue
from provisioners.rehearsal.account import Account, Caller
from provisioners.rehearsal.asking import PodRequest, pod_request
from provisioners.rehearsal.clock import rfc3339
from provisioners.rehearsal.graphql_text import Field, SyntaxProblem, filled_in, read
from provisioners.rehearsal.pods import Pod
from provisioners.rehearsal.problems import Checks, Problem
from provisioners.rehearsal.rest import CALLER, json_body
from provisioners.rehearsal.views import HOST, ports

Resolver = Callable[[Caller, Mapping[str, Any], Field], Awaitable[Any]]

_CREATE_INPUT = frozenset(
    [
        "cloudType",
        "name",
        "imageName",
        "gpuTypeId",
        "gpuCount",
        "volumeInGb",
        "containerDiskInGb",
        "minVcpuCount",
        "minMemoryInGb",
        "dockerArgs",
        "ports",
        "volumeMountPath",
        "env",
        "networkVolumeId",
        "dataCenterId",
        "allowedCudaVersions",
        "countryCode",
        "minDownload",
        "minUpload",
        "startSsh",
        "startJupyter",
        "supportPublicIp",
        "templateId",
        "stopAfter",
        "terminateAfter",
        "deployCost",
        "bidPerGpu",
        "globalNetwork",
    ]
)
_IGNORED_TEMPLATE = "runpod-ubuntu"


class GraphQL:
    """The handler of /graphql."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._resolvers: dict[tuple[str, str], Resolver] = {
            ("query", "gpuTypes"): self._gpu_types,
            ("query", "myself"): self._myself,
            ("query", "pod"): self._pod,
            ("mutation", "podFindAndDeployOnDemand"): self._deploy,
            ("mutation", "podRentInterruptable"): self._deploy,
            ("mutation", "podTerminate"): self._terminate,
            ("mutation", "podStop"): self._stop,
            ("mutation", "podResume"): self._resume,
        }

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/graphql", self.answer)]

    async def answer(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        try:
            if not isinstance(body, dict) or not isinstance(body.get("query"), str):
                raise SyntaxProblem("Must provide query string.")
            operation = read(body["query"], body.get("operationName"))
            variables = {**operation.defaults, **(body.get("variables") or {})}
            data = {}
            for field in operation.fields:
                resolver = self._resolvers.get((operation.kind, field.name))
                if resolver is None:
                    raise SyntaxProblem(f'Cannot query field "{field.name}" on type "{operation.kind.title()}".')
                arguments = filled_in(dict(field.arguments), variables)
                data[field.alias] = select(await resolver(request[CALLER], arguments, field), field)
        except SyntaxProblem as problem:
            return _refused(str(problem), "GRAPHQL_VALIDATION_FAILED")
        except Problem as problem:
            if problem.status in (401, 410, 429, 502, 503):
                raise
            return _refused("; ".join([problem.detail, *problem.errors]), "RUNPOD")
        return web.json_response({"data": data})

    async def _gpu_types(self, caller: Caller, arguments: Mapping[str, Any], field: Field) -> Any:
        _only_account(caller)
        wanted = (arguments.get("input") or {}).get("id")
        return [_gpu(gpu) for gpu in catalogue.GPUS if wanted in (None, gpu.id)]

    async def _myself(self, caller: Caller, arguments: Mapping[str, Any], field: Field) -> Any:
        _only_account(caller)
        account = self._account
        return {
            "id": "user_rehearsal",
            "pubKey": "\n".join(account.ssh_keys),
            "pods": [self._shown(pod) for pod in account.listed()],
            "networkVolumes": [
                {"id": volume.id, "name": volume.name, "size": volume.size_gb, "dataCenterId": volume.data_center}
                for volume in account.volumes.listed()
            ],
        }

    async def _pod(self, caller: Caller, arguments: Mapping[str, Any], field: Field) -> Any:
        _only_account(caller)
        try:
            return self._shown(self._account.seen(_pod_id(arguments)))
        except Problem as problem:
            if problem.status != 404:
                raise
            return None

    async def _deploy(self, caller: Caller, arguments: Mapping[str, Any], field: Field) -> Any:
        _only_account(caller)
        given = arguments.get("input") or {}
        spot = field.name == "podRentInterruptable"
        problem: Problem | None = None
        for asked in _requests(given, spot=spot):
            try:
                return self._shown(await self._account.create(asked, "GraphQL"))
            except Problem as refused:
                if refused.status != 400:
                    raise
                problem = refused
        assert problem is not None
        raise problem

    async def _terminate(self, caller: Caller, arguments: Mapping[str, Any], field: Field) -> Any:
        await self._account.act(_pod_id(arguments), "terminate", caller, "graphql")

    async def _stop(self, caller: Caller, arguments: Mapping[str, Any], field: Field) -> Any:
        return self._shown(await self._account.act(_pod_id(arguments), "stop", caller, "graphql"))

    async def _resume(self, caller: Caller, arguments: Mapping[str, Any], field: Field) -> Any:
        return self._shown(await self._account.act(_pod_id(arguments), "start", caller, "graphql"))

    def _shown(self, pod: Pod) -> dict[str, Any]:
        asked, clock = pod.asked, self._account.shop.clock
        gpu = catalogue.gpu_named(asked.gpu_id)
        listed = [
            {"ip": HOST, "isIpPublic": True, "privatePort": p["private"], "publicPort": p["public"], "type": p["type"]}
            for p in ports(pod)
        ]
        mounted = asked.persistent or asked.network
        uptime = int(clock.since(pod.container_started_at)) if pod.status == "RUNNING" else 0
        return {
            "id": pod.id,
            "name": asked.name,
            "containerDiskInGb": asked.disk_gb,
            "costPerHr": pod.cost_usd_per_h,
            "adjustedCostPerHr": pod.cost_usd_per_h,
            # GraphQL tells what is desired, not what is: a pod that is being made is wanted running.
            "desiredStatus": {"PROVISIONING": "RUNNING", "STARTING": "RUNNING", "ERROR": "RUNNING"}.get(
                pod.status, pod.status
            ),
            "dockerArgs": asked.args,
            "dockerId": None,
            "env": [f"{key}={value}" for key, value in asked.env.items()],
            "gpuCount": asked.gpu_count,
            "imageName": asked.image,
            "lastStatusChange": rfc3339(pod.created_at),
            "createdAt": rfc3339(pod.created_at),
            "machineId": "rehearsal",
            "memoryInGb": 64,
            "podType": "INTERRUPTABLE" if asked.bid_usd_per_h is not None else "RESERVED",
            "port": None,
            "ports": ",".join(asked.ports),
            "uptimeSeconds": uptime,
            "vcpuCount": 16,
            "volumeInGb": asked.persistent.size_gb if asked.persistent else 0,
            "volumeMountPath": mounted.path if mounted else None,
            "runtime": {"ports": listed, "uptimeInSeconds": uptime} if pod.status == "RUNNING" else None,
            "machine": {
                "podHostId": f"{pod.id}-rehearsal",
                "gpuDisplayName": gpu.name if gpu else None,
                "dataCenterId": pod.data_center,
                "secureCloud": asked.cloud == "SECURE",
            },
        }


def select(value: Any, field: Field) -> Any:
    """Of a value, what was asked for. Raises SyntaxProblem for fields that there are not."""
    if isinstance(value, list):
        return [select(item, field) for item in value]
    if not isinstance(value, dict):
        return value
    if not field.fields:
        raise SyntaxProblem(f'Field "{field.name}" must have a selection of subfields.')
    found = {}
    for wanted in field.fields:
        if wanted.name not in value:
            raise SyntaxProblem(f'Cannot query field "{wanted.name}" on "{field.name}".')
        found[wanted.alias] = select(value[wanted.name], wanted)
    return found


def _gpu(gpu: catalogue.Gpu) -> dict[str, Any]:
    return {
        "id": gpu.id,
        "displayName": gpu.name,
        "memoryInGb": gpu.memory_gb,
        "maxGpuCount": gpu.secure_max,
        "manufacturer": "Nvidia",
        "cudaCores": 0,
        "secureCloud": True,
        "communityCloud": True,
        "securePrice": gpu.secure_usd_per_h,
        "communityPrice": gpu.community_usd_per_h,
        "oneMonthPrice": None,
        "threeMonthPrice": None,
        "oneWeekPrice": None,
        "secureSpotPrice": catalogue.least_bid(gpu, "SECURE"),
        "communitySpotPrice": catalogue.least_bid(gpu, "COMMUNITY"),
        "lowestPrice": {
            "minimumBidPrice": catalogue.least_bid(gpu, "COMMUNITY"),
            "uninterruptablePrice": gpu.community_usd_per_h,
            "stockStatus": "High",
        },
    }


def _requests(given: Any, *, spot: bool) -> list[PodRequest]:
    """What a deployment asks for, in the clouds in which it may be. Raises Problem."""
    checks = Checks()
    known = checks.object("input", given, _CREATE_INPUT, ("gpuTypeId", *(("bidPerGpu",) if spot else ())))
    checks.raise_if_wrong()
    body: dict[str, Any] = {
        "name": known.get("name") or "pod",
        "image": known.get("imageName") or "",
        "gpu": {"id": known["gpuTypeId"], "count": known.get("gpuCount") or 1},
        "args": known.get("dockerArgs") or "",
        "disk": known.get("containerDiskInGb") or 10,
        "env": {item["key"]: item["value"] for item in known.get("env") or []},
        "ports": [port for port in (known.get("ports") or "").split(",") if port],
        "startSsh": bool(known.get("startSsh")),
        "dataCenterIds": [known["dataCenterId"]] if known.get("dataCenterId") else [],
    }
    if known.get("allowedCudaVersions"):
        body["gpu"]["allowedCudaVersions"] = known["allowedCudaVersions"]
    path = known.get("volumeMountPath") or "/workspace"
    if known.get("networkVolumeId"):
        body["mounts"] = {"network": [{"volumeId": known["networkVolumeId"], "path": path}]}
    elif known.get("volumeInGb"):
        body["mounts"] = {"persistent": {"size": max(10, known["volumeInGb"]), "path": path}}
    if known.get("templateId") not in (None, _IGNORED_TEMPLATE):
        body["templateId"] = known["templateId"]
    cloud = known.get("cloudType") or "ALL"
    clouds = catalogue.CLOUDS if cloud == "ALL" else (cloud,)
    return [pod_request({**body, "cloud": each}, bid_usd_per_h=known.get("bidPerGpu")) for each in clouds]


def _pod_id(arguments: Mapping[str, Any]) -> str:
    checks = Checks()
    known = checks.object("input", arguments.get("input"), ("podId", "gpuCount"), ("podId",))
    checks.text("input.podId", known.get("podId"))
    checks.raise_if_wrong()
    return str(known["podId"])


def _only_account(caller: Caller) -> None:
    if caller.pod is not None:
        raise Problem(403, "Not authorized")


def _refused(message: str, code: str) -> web.Response:
    return web.json_response({"errors": [{"message": message, "extensions": {"code": code}}], "data": None})

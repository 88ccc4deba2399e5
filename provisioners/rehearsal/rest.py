"""REST v2: the routes, their parameters and their answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from provisioners.rehearsal import billing, catalogue, logs
from provisioners.rehearsal.account import Account, Caller
from provisioners.rehearsal.asking import changed_settings, pod_request
from provisioners.rehearsal.problems import Checks, Problem
from provisioners.rehearsal.views import pod_json, volume_json
from provisioners.rehearsal.volumes import Volume

CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_ACTIONS = ("start", "stop", "restart", "terminate")
_AVAILABILITY_ONLY = ("product", "count", "cloud", "countryCodes", "cudaVersions", "minCudaVersion")
_SSH_KEY = r"^(ssh|ecdsa|sk)-[^\s]+ [^\s]+([ \t][^\n\r]*)?$"


async def json_body(request: web.Request) -> Any:
    """Raises Problem 400 for what is no JSON."""
    try:
        return json.loads(await request.read())
    except ValueError:
        raise Problem(400, "the body is not JSON") from None


class Rest:
    """The handlers of /v2."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._clock = account.shop.clock

    def routes(self) -> list[web.RouteDef]:
        table: dict[str, dict[str, Handler]] = {
            "/v2/pods": {"GET": self.list_pods, "POST": self.create_pod},
            "/v2/pods/{id}": {"GET": self.get_pod, "PATCH": self.update_pod, "DELETE": self.delete_pod},
            "/v2/pods/{id}/action": {"POST": self.pod_action},
            "/v2/pods/{id}/logs": {"GET": self.pod_logs},
            "/v2/catalog/gpus": {"GET": self.list_gpus},
            "/v2/catalog/gpus/{id:.+}": {"GET": self.get_gpu},
            "/v2/catalog/datacenters": {"GET": self.list_data_centers},
            "/v2/catalog/datacenters/{id}": {"GET": self.get_data_center},
            "/v2/network-volumes": {"GET": self.list_volumes, "POST": self.create_volume},
            "/v2/network-volumes/{id}": {
                "GET": self.get_volume,
                "PATCH": self.update_volume,
                "DELETE": self.delete_volume,
            },
            "/v2/billing/pods": {"GET": self.pod_billing},
            "/v2/account/ssh-keys": {"GET": self.get_ssh_keys, "PUT": self.put_ssh_keys},
            "/v2/templates": {"GET": self.list_templates},
        }
        return [
            web.route(method, path, handler, expect_handler=None)
            for path, handlers in table.items()
            for method, handler in handlers.items()
        ]

    # Pods

    async def create_pod(self, request: web.Request) -> web.Response:
        pod = await self._account.create(pod_request(await json_body(request)), "REST")
        return web.json_response(pod_json(pod, self._clock), status=201)

    async def list_pods(self, request: web.Request) -> web.Response:
        pods, size = self._account.listed(), self._account.mishaps.faults.page_size
        first = _whole(request, "cursor", 0)
        page = pods[first : first + size] if size else pods
        answer: dict[str, Any] = {"pods": [pod_json(pod, self._clock) for pod in page]}
        if size and first + size < len(pods):
            answer["nextCursor"] = str(first + size)
        return web.json_response(answer)

    async def get_pod(self, request: web.Request) -> web.Response:
        return web.json_response(pod_json(self._account.seen(request.match_info["id"]), self._clock))

    async def update_pod(self, request: web.Request) -> web.Response:
        pod = self._account.seen(request.match_info["id"])
        pod.change(changed_settings(await json_body(request)))
        return web.json_response(pod_json(pod, self._clock))

    async def delete_pod(self, request: web.Request) -> web.Response:
        await self._account.act(request.match_info["id"], "terminate", request[CALLER], "delete")
        return web.Response(status=204)

    async def pod_action(self, request: web.Request) -> web.Response:
        checks = Checks()
        body = checks.object("$", await json_body(request), ("action",), ("action",))
        action = checks.one_of("$.action", body.get("action", "start"), _ACTIONS)
        self._account.check_may(request[CALLER], request.match_info["id"], "action")
        checks.raise_if_wrong()
        pod = await self._account.act(request.match_info["id"], action, request[CALLER], "action")
        if action == "terminate":
            return web.Response(status=204)
        return web.json_response(pod_json(pod, self._clock))

    async def pod_logs(self, request: web.Request) -> web.StreamResponse:
        return await logs.stream(request, self._account.seen(request.match_info["id"]))

    # Catalogue

    async def list_gpus(self, request: web.Request) -> web.Response:
        countries = _listed(request, "countryCodes")
        shown = []
        for gpu in catalogue.GPUS:
            wanted = _wanted(request, gpu)
            offered = not countries or (wanted is not None and any(c in (wanted.centers or ()) for c, _ in gpu.stock))
            if offered:
                shown.append(catalogue.gpu_json(gpu, wanted, self._account.mishaps.faults))
        return web.json_response({"gpus": shown})

    async def get_gpu(self, request: web.Request) -> web.Response:
        gpu = catalogue.gpu_named(request.match_info["id"])
        if gpu is None:
            raise Problem(404, "gpu type not found")
        return web.json_response(catalogue.gpu_json(gpu, _wanted(request, gpu), self._account.mishaps.faults))

    async def list_data_centers(self, request: web.Request) -> web.Response:
        with_gpus = "GPU_AVAILABILITY" in _listed(request, "include")
        regions, types = _listed(request, "regions"), _listed(request, "networkVolumeTypes")
        found = [
            catalogue.data_center_json(center, self._account.mishaps.faults, with_gpus=with_gpus)
            for center in catalogue.DATA_CENTERS
            if (not regions or center.region in regions) and set(types) <= set(center.volume_types)
        ]
        return web.json_response({"dataCenters": found})

    async def get_data_center(self, request: web.Request) -> web.Response:
        center = catalogue.data_center_named(request.match_info["id"])
        if center is None:
            raise Problem(404, "data center not found")
        with_gpus = "GPU_AVAILABILITY" in _listed(request, "include")
        faults = self._account.mishaps.faults
        return web.json_response(catalogue.data_center_json(center, faults, with_gpus=with_gpus))

    # Network volumes

    async def list_volumes(self, request: web.Request) -> web.Response:
        return web.json_response({"networkVolumes": list(map(volume_json, self._account.volumes.listed()))})

    async def create_volume(self, request: web.Request) -> web.Response:
        checks = Checks()
        required = ("name", "size", "dataCenter")
        body = checks.object("$", await json_body(request), (*required, "type"), required)
        name = checks.text("$.name", body.get("name", "?"), least=1)
        size = checks.whole("$.size", body.get("size", 10), least=10, most=4096)
        center = checks.text("$.dataCenter", body.get("dataCenter", "?"), least=1)
        if "type" in body:
            checks.one_of("$.type", body["type"], ("STANDARD", "HIGH_PERFORMANCE"))
        checks.raise_if_wrong()
        volume = self._account.volumes.create(name, size, center, body.get("type"))
        return web.json_response(volume_json(volume), status=201)

    async def get_volume(self, request: web.Request) -> web.Response:
        return web.json_response(volume_json(self._volume(request)))

    async def update_volume(self, request: web.Request) -> web.Response:
        volume, checks = self._volume(request), Checks()
        body = checks.object("$", await json_body(request), ("name", "size"))
        name = checks.text("$.name", body.get("name", volume.name), least=1)
        size = checks.whole("$.size", body.get("size", volume.size_gb), least=10, most=4096)
        if not body:
            checks.errors.append("$: at least one property is needed")
        checks.raise_if_wrong()
        return web.json_response(volume_json(self._account.volumes.change(volume, name, size)))

    async def delete_volume(self, request: web.Request) -> web.Response:
        self._account.volumes.delete(self._volume(request))
        return web.Response(status=204)

    # Money and keys

    async def pod_billing(self, request: web.Request) -> web.Response:
        now = self._clock.now()
        query = billing.read_query(request.query, datetime.fromtimestamp(now, UTC))
        until = now - self._clock.real(self._account.mishaps.faults.billing_lag_s)
        return web.json_response(billing.answer(self._account.shop.ledger, query, until=until))

    async def get_ssh_keys(self, request: web.Request) -> web.Response:
        return web.json_response({"keys": self._account.ssh_keys})

    async def put_ssh_keys(self, request: web.Request) -> web.Response:
        checks = Checks()
        body = checks.object("$", await json_body(request), ("keys",), ("keys",))
        keys = checks.items("$.keys", body.get("keys", []), lambda at, item: checks.text(at, item, pattern=_SSH_KEY))
        checks.raise_if_wrong()
        self._account.ssh_keys = keys
        return web.json_response({"keys": keys})

    async def list_templates(self, request: web.Request) -> web.Response:
        return web.json_response({"templates": []})

    def _volume(self, request: web.Request) -> Volume:
        volume = self._account.volumes.get(request.match_info["id"])
        if volume is None:
            raise Problem(404, "network volume not found")
        return volume


def _wanted(request: web.Request, gpu: catalogue.Gpu) -> catalogue.Wanted | None:
    """The availability that is asked for; None if none is. Raises Problem."""
    include = _listed(request, "include")
    checks = Checks()
    for item in include:
        checks.one_of("include", item, ("AVAILABILITY",))
    products = _listed(request, "product")
    for product in products:
        checks.one_of("product", product, ("POD", "CLUSTER", "SERVERLESS"))
    cloud = checks.one_of("cloud", request.query.get("cloud", "SECURE"), catalogue.CLOUDS)
    for version in _listed(request, "cudaVersions"):
        checks.text("cudaVersions", version, pattern=r"^\d+\.\d+$")
    minimum = request.query.get("minCudaVersion")
    if minimum is not None:
        checks.text("minCudaVersion", minimum, pattern=r"^\d+(\.\d+)?$")
    checks.raise_if_wrong()
    if not include:
        given = [name for name in _AVAILABILITY_ONLY if name in request.query]
        if given:
            raise Problem(400, f"{given[0]} is valid only with include=AVAILABILITY")
        return None
    if not products:
        raise Problem(400, "product is required with include=AVAILABILITY")
    versions = frozenset(_listed(request, "cudaVersions"))
    if versions and minimum is not None:
        raise Problem(400, "cudaVersions and minCudaVersion are mutually exclusive")
    countries = _listed(request, "countryCodes")
    centers = frozenset(center.id for center in catalogue.DATA_CENTERS if center.country in countries)
    return catalogue.Wanted(
        count=_whole(request, "count", 1, least=1),
        cloud=cloud,
        centers=centers if countries else None,
        cuda=catalogue.cuda_from(gpu, minimum) if minimum is not None else versions or None,
    )


def _listed(request: web.Request, name: str) -> list[str]:
    return [item for item in request.query.get(name, "").split(",") if item]


def _whole(request: web.Request, name: str, default: int, *, least: int = 0) -> int:
    given = request.query.get(name, str(default))
    if not given.isdigit() or int(given) < least:
        raise Problem(422, "Request validation failed.", errors=[f"{name}: must be an integer of at least {least}"])
    return int(given)

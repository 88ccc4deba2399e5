"""RunPod's GraphQL API through its SDK, until RunPod ends it; experimental, and the only way to spot machines.

The SDK writes values into the text of a query without escaping them, so only its HTTP session and user agent are used:
every value travels as a GraphQL variable. Importing the SDK takes more than a second; it is loaded when first needed.
The catalogue, volumes, logs and bills come from the REST API, which has the same machines and knows their stock.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from provisioners.providers.runpod import values
from provisioners.providers.runpod.answers import (
    ApiError,
    CapacityRefused,
    Forbidden,
    Invalid,
    Lost,
    NoCredit,
    NotFound,
    RateLimited,
    ServerError,
    Unauthorized,
    Unreachable,
    from_status,
)
from provisioners.providers.runpod.cloud import NetworkDisk, PersistentDisk, Wish
from provisioners.providers.runpod.http import repeated
from provisioners.providers.runpod.pace import Pace
from provisioners.providers.runpod.rest import SHORTEST_SECRET, RestCloud
from provisioners.providers.runpod.values import BillingRecord, CloudName, Gpu, NetworkVolume, Pod
from provisioners.threads import in_thread
from recipes.errors import NoMachine

_POD = """
    id name desiredStatus costPerHr gpuCount imageName
    machine { podHostId gpuDisplayName }
    runtime { uptimeInSeconds ports { ip isIpPublic privatePort publicPort type } }
"""
DEPLOY = (
    "mutation Deploy($input: PodFindAndDeployOnDemandInput!) { podFindAndDeployOnDemand(input: $input) {" + _POD + "} }"
)
RENT = "mutation Rent($input: PodRentInterruptableInput!) { podRentInterruptable(input: $input) {" + _POD + "} }"
END = "mutation End($input: PodTerminateInput!) { podTerminate(input: $input) }"
PODS = "query Pods { myself { pods {" + _POD + "} } }"
POD = "query Pod($input: PodFilter!) { pod(input: $input) {" + _POD + "} }"
PRICES = "query Prices { gpuTypes { id secureSpotPrice communitySpotPrice } }"

# RunPod's errors carry no code that could be relied on: their words have to do.
_BY_WORDS: tuple[tuple[str, type[ApiError]], ...] = (
    (r"unauthori[sz]ed|unauthenticated|invalid api key|not logged in", Unauthorized),
    (r"\bbalance\b|insufficient funds|\bcredits?\b", NoCredit),
    (r"forbidden|not allowed|permission|access denied", Forbidden),
    (
        r"no longer any instances|\bno\b.*\b(instances?|capacity|gpus?|machines?)\b|not available|out of stock|\bbid\b",
        CapacityRefused,
    ),
    (r"not found|does not exist|no such", NotFound),
    (r"rate limit|too many requests", RateLimited),
    (
        r"variable \"?\$|cannot query field|unknown (type|argument|field)|syntax error|validation|must (not )?be",
        Invalid,
    ),
)


class GraphqlCloud:
    """Implements Cloud; what GraphQL lacks comes from `rest`."""

    def __init__(self, address: str, key: str, pace: Pace, rest: RestCloud) -> None:
        self._address, self._key, self._pace, self._rest = address, key, pace, rest
        self._session: Any = None
        self._user_agent = ""

    def __repr__(self) -> str:
        return f"GraphqlCloud({self._address})"

    async def __aenter__(self) -> Self:
        self._session, self._user_agent = await in_thread(_sdk_session)
        await self._rest.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()
        await self._rest.__aexit__(kind, error, trace)

    @property
    def scarce_s(self) -> float:
        return self._rest.scarce_s

    async def create(self, wish: Wish) -> Pod:
        if wish.bid_usd_per_gpu_h is None:
            document, field = DEPLOY, "podFindAndDeployOnDemand"
        else:
            document, field = RENT, "podRentInterruptable"
        data = await self._ask(document, {"input": create_input(wish)}, answer_s=self._pace.create_s)
        made = data.get(field)
        if made is None:  # no error and no pod: how GraphQL puts it that nothing is free
            raise CapacityRefused(f"{field} → null", short="null")
        pod = _pod_from(made, name=wish.name)
        return replace(pod, gpu_id=wish.gpu_id, cloud=wish.cloud)

    async def pods(self, *, again_s: float | None = None) -> list[Pod]:
        data = await self._read(PODS, {}, again_s)
        myself = data.get("myself")
        if not isinstance(myself, Mapping) or not isinstance(myself.get("pods"), list):
            raise ServerError("myself.pods: no list in the answer", short="no list")
        return [_pod_from(pod) for pod in myself["pods"]]

    async def pod(self, pod_id: str, *, again_s: float | None = None) -> Pod:
        data = await self._read(POD, {"input": {"podId": pod_id}}, again_s)
        if data.get("pod") is None:
            raise NotFound(f"pod {pod_id} → null", short="null")
        return _pod_from(data["pod"])

    async def end(self, pod_id: str) -> None:
        await self._ask(END, {"input": {"podId": pod_id}})

    async def gpus(self, *, count: int, cloud: CloudName, spot: bool = False) -> Sequence[Gpu]:
        found = await self._rest.gpus(count=count, cloud=cloud)
        if not spot:
            return found
        data = await self._read(PRICES, {}, None)
        entries = [entry for entry in data.get("gpuTypes") or () if isinstance(entry, Mapping)]
        bids = {str(entry.get("id")): values.positive(entry.get(f"{cloud}SpotPrice")) for entry in entries}
        return [replace(gpu, price_usd_per_h=bids[gpu.id]) for gpu in found if bids.get(gpu.id)]

    async def volumes(self, *, again_s: float | None = None) -> Sequence[NetworkVolume]:
        return await self._rest.volumes(again_s=again_s)

    async def log_tail(self, pod_id: str, lines: int) -> list[str]:
        return await self._rest.log_tail(pod_id, lines)

    async def billing(self, pod_id: str) -> Sequence[BillingRecord]:
        return await self._rest.billing(pod_id)

    async def _read(self, document: str, variables: Mapping[str, Any], again_s: float | None) -> dict[str, Any]:
        patience_s = self._pace.again_s if again_s is None else again_s
        return await repeated(lambda: self._ask(document, variables), self._pace, patience_s)

    async def _ask(
        self, document: str, variables: Mapping[str, Any], *, answer_s: float | None = None
    ) -> dict[str, Any]:
        """The answer's data. Raises ApiError. Asked once."""
        asked = re.split(r"[\s(]", document, maxsplit=2)[1]
        timeouts = (self._pace.connect_s, answer_s or self._pace.request_s)
        try:
            response = await in_thread(
                self._session.post,
                self._address,
                json={"query": document, "variables": dict(variables)},
                headers={"Authorization": f"Bearer {self._key}", "User-Agent": self._user_agent},
                timeout=timeouts,
                allow_redirects=False,
            )
        except OSError as error:  # what requests raises is all of this kind
            raise _lost(asked, error) from error
        return _data_of(asked, response, self._key, variables)


def create_input(wish: Wish) -> dict[str, Any]:
    """The variable of a create. Every value stays a value: nothing in it is part of the query's text."""
    given: dict[str, Any] = {
        "name": wish.name,
        "imageName": wish.image,
        "gpuTypeId": wish.gpu_id,
        "gpuCount": wish.gpu_count,
        "cloudType": wish.cloud.upper(),
        "containerDiskInGb": wish.disk_gb,
        "volumeInGb": 0,
        "ports": ",".join(wish.ports),
        "dockerArgs": wish.args,
        "env": [{"key": key, "value": value} for key, value in wish.env.items()],
        "supportPublicIp": True,
        "startSsh": False,
    }
    if wish.min_cpus:
        given["minVcpuCount"] = wish.min_cpus
    if wish.min_memory_gb:
        given["minMemoryInGb"] = wish.min_memory_gb
    if wish.data_centers:
        given["dataCenterId"] = wish.data_centers[0]
    if wish.bid_usd_per_gpu_h is not None:
        given["bidPerGpu"] = wish.bid_usd_per_gpu_h
    match wish.mount:
        case PersistentDisk(size_gb, path):
            given |= {"volumeInGb": size_gb, "volumeMountPath": path}
        case NetworkDisk(volume_id, path):
            given |= {"networkVolumeId": volume_id, "volumeMountPath": path}
    return given


def error_from(asked: str, error: Any) -> ApiError:
    """One entry of `errors`: by its words, then by its code; else it may have happened after the work was done."""
    fields = error if isinstance(error, Mapping) else {"message": error}
    message = str(fields.get("message") or "an error without a message")
    extensions = fields.get("extensions")
    code = str(extensions.get("code") or "") if isinstance(extensions, Mapping) else ""
    words = (kind for pattern, kind in _BY_WORDS if re.search(pattern, message, re.IGNORECASE))
    kind = next(words, None) or _BY_CODE.get(code) or ServerError
    return kind(f"{asked}: {message}"[:1000], short=message[:80])


_BY_CODE: Mapping[str, type[ApiError]] = {
    "UNAUTHENTICATED": Unauthorized,
    "FORBIDDEN": Forbidden,
    "GRAPHQL_PARSE_FAILED": Invalid,
    "GRAPHQL_VALIDATION_FAILED": Invalid,
    "BAD_USER_INPUT": Invalid,
}


def _data_of(asked: str, response: Any, key: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The data of an answer. Raises ApiError, without the key and the variables' secrets."""
    text = response.text
    given = variables.get("input", {}).get("env", ())
    for secret in filter(None, (key, *(entry["value"] for entry in given if len(entry["value"]) >= SHORTEST_SECRET))):
        text = text.replace(json.dumps(secret)[1:-1], "***")
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    errors = answer.get("errors") if isinstance(answer, Mapping) else None
    if errors:
        raise error_from(asked, errors[0] if isinstance(errors, list) else errors)
    if response.status_code != 200:
        waits = response.headers.get("Retry-After")
        raise from_status(asked, response.status_code, answer, retry_after=waits, now=datetime.now(UTC))
    data = answer.get("data") if isinstance(answer, Mapping) else None
    if not isinstance(data, dict):
        raise ServerError(f"{asked}: no data in the answer", short="no data")
    return data


def _pod_from(data: Any, *, name: str | None = None) -> Pod:
    """GraphQL's description of a pod. What is wished for it (RUNNING) is true once its runtime is there."""
    if not isinstance(data, Mapping) or not isinstance(data.get("id"), str):
        raise ServerError("the answer describes no pod", short="no pod")
    runtime = data.get("runtime")
    ports = runtime.get("ports") if isinstance(runtime, Mapping) else None
    public = values.public_ports(ports, ("privatePort", "publicPort", "ip"))
    status = str(data.get("desiredStatus") or values.RUNNING).upper()
    if status == values.RUNNING and not isinstance(runtime, Mapping):
        status = values.STARTING
    return Pod(
        id=data["id"],
        name=str(data.get("name") or name or ""),
        status=status,
        cost_usd_per_h=values.positive(data.get("costPerHr")),
        gpu_count=data.get("gpuCount") if isinstance(data.get("gpuCount"), int) else None,
        image=data.get("imageName") if isinstance(data.get("imageName"), str) else None,
        address=values.published_ssh(public),
        public=public,
    )


def _lost(asked: str, error: OSError) -> ApiError:
    """What a failed exchange over requests is, by whether the request can have left."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    never_sent = "NewConnectionError" in type(reason).__name__ or "ConnectTimeout" in type(error).__name__
    why = "no answer in time" if "Timeout" in type(error).__name__ else type(reason or error).__name__
    return (Unreachable if never_sent else Lost)(f"{asked}: {why}", short=why)


def _sdk_session() -> tuple[Any, str]:
    """The SDK's HTTP session and user agent. Raises NoMachine without the SDK."""
    try:
        http_client = importlib.import_module("runpod.http_client")
        agent = importlib.import_module("runpod.user_agent")
    except ImportError as error:
        raise NoMachine(
            f"api: graphql needs RunPod's SDK: {error}", advice="pip install runpod, or leave resources.api out"
        ) from error
    session = http_client.SyncClientSession()
    session.trust_env = False  # a netrc file would replace the key
    return session, str(agent.USER_AGENT)

"""RunPod's REST API v2. Closed where it writes: exactly the schema's fields. Open where it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

from provisioners.providers.runpod import values
from provisioners.providers.runpod.answers import (
    ApiError,
    Lost,
    RateLimited,
    ServerError,
    Unauthorized,
    Unreachable,
)
from provisioners.providers.runpod.cloud import NetworkDisk, PersistentDisk, Wish
from provisioners.providers.runpod.http import Http, Request
from provisioners.providers.runpod.pace import Pace
from provisioners.providers.runpod.values import BillingRecord, CloudName, DataCenter, Gpu, NetworkVolume, Pod

T = TypeVar("T")
_LOG_QUIET_S, _LOG_MOST_S = 1.0, 3.0
SHORTEST_SECRET = 6


class RestCloud:
    """Implements Cloud; holds one HTTP session while it is entered."""

    def __init__(self, address: str, key: str, pace: Pace) -> None:
        self._pace = pace
        self._http = Http(address, key, pace)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    @property
    def scarce_s(self) -> float:
        return self._http.scarce_s

    async def create(self, wish: Wish) -> Pod:
        request = Request("POST", "/pods", body=create_body(wish), answer_s=self._pace.create_s, hide=_secrets(wish))
        return await self._one(request, values.pod_from)

    async def pods(self, *, again_s: float | None = None) -> list[Pod]:
        return await self._list("/pods", "pods", values.pod_from, again_s=again_s)

    async def pod(self, pod_id: str, *, again_s: float | None = None) -> Pod:
        return await self._one(
            Request("GET", f"/pods/{_part(pod_id)}"), values.pod_from, again_s=self._again_s(again_s)
        )

    async def end(self, pod_id: str) -> None:
        """DELETE; where that is not accepted, the action that means the same."""
        path = f"/pods/{_part(pod_id)}"
        try:
            await self._http.ask(Request("DELETE", path))
        except (Unauthorized, RateLimited, Unreachable, Lost):
            raise
        except ApiError as error:
            try:
                await self._http.ask(Request("POST", f"{path}/action", body={"action": "terminate"}))
            except ApiError:
                raise error from None

    async def gpus(self, *, count: int, cloud: CloudName, spot: bool = False) -> Sequence[Gpu]:
        query = {"include": "AVAILABILITY", "product": "POD", "count": str(count), "cloud": cloud.upper()}
        found = await self._list("/catalog/gpus", "gpus", lambda data: values.gpu_from(data, cloud), query=query)
        return [gpu for gpu in found if gpu is not None]

    async def data_centers(self) -> Sequence[DataCenter]:
        return await self._list("/catalog/datacenters", "dataCenters", values.data_center_from)

    async def volumes(self, *, again_s: float | None = None) -> Sequence[NetworkVolume]:
        return await self._list("/network-volumes", "networkVolumes", values.volume_from, again_s=again_s)

    async def volume(self, volume_id: str, *, again_s: float | None = None) -> NetworkVolume:
        request = Request("GET", f"/network-volumes/{_part(volume_id)}")
        return await self._one(request, values.volume_from, again_s=self._again_s(again_s))

    async def create_volume(self, name: str, size_gb: int, data_center: str) -> NetworkVolume:
        """Asked once. It bills from then on, until it is deleted."""
        body = {"name": name, "size": size_gb, "dataCenter": data_center}
        request = Request("POST", "/network-volumes", body=body, answer_s=self._pace.create_s)
        return await self._one(request, values.volume_from)

    async def grow_volume(self, volume_id: str, size_gb: int) -> NetworkVolume:
        """The same size may be asked for again; a smaller one is refused."""
        request = Request("PATCH", f"/network-volumes/{_part(volume_id)}", body={"size": size_gb})
        return await self._one(request, values.volume_from, again_s=self._pace.again_s)

    async def end_volume(self, volume_id: str) -> None:
        """Ask once for its deletion."""
        await self._http.ask(Request("DELETE", f"/network-volumes/{_part(volume_id)}"))

    async def log_tail(self, pod_id: str, lines: int) -> list[str]:
        request = Request("GET", f"/pods/{_part(pod_id)}/logs", {"tail": str(lines)})
        events = await self._http.events(request, quiet_s=_LOG_QUIET_S, most_s=_LOG_MOST_S)
        said = [str(event["line"]) for event in events if isinstance(event, dict) and "line" in event]
        return said[-lines:]

    async def billing(self, pod_id: str) -> Sequence[BillingRecord]:
        query = {"podId": pod_id, "bucketSize": "hour"}
        return await self._list("/billing/pods", "records", values.billing_record_from, query=query)

    async def _one(self, request: Request, parse: Callable[[Any], T], *, again_s: float = 0.0) -> T:
        answer = await self._http.ask(request, again_s=again_s)
        with _readable(request):
            return parse(answer)

    async def _list(
        self,
        path: str,
        key: str,
        parse: Callable[[Any], T],
        *,
        query: dict[str, str] | None = None,
        again_s: float | None = None,
    ) -> list[T]:
        """Every entry of every page: a list that was not read to its end proves nothing, so it is an error."""
        found: list[T] = []
        cursor, seen = None, set[str]()
        while True:
            page = Request("GET", path, {**(query or {}), **({"cursor": cursor} if cursor else {})})
            answer = await self._http.ask(page, again_s=self._again_s(again_s))
            with _readable(page):
                found += [parse(entry) for entry in values.listed(answer, key)]
                cursor = values.next_cursor(answer)
            if cursor is None:
                return found
            if cursor in seen:
                raise ServerError(f"GET {path}: its pages run in a circle", short="pages in a circle")
            seen.add(cursor)

    def _again_s(self, asked: float | None) -> float:
        return self._pace.again_s if asked is None else asked


def create_body(wish: Wish) -> dict[str, Any]:
    """The body of a create: what the schema knows, and nothing else."""
    gpu: dict[str, Any] = {"id": wish.gpu_id, "count": wish.gpu_count}
    if wish.min_cuda:
        gpu["minCudaVersion"] = wish.min_cuda
    body: dict[str, Any] = {
        "name": wish.name,
        "image": wish.image,
        "gpu": gpu,
        "cloud": wish.cloud.upper(),
        "disk": wish.disk_gb,
        "ports": list(wish.ports),
        "env": dict(wish.env),
        "args": wish.args,
    }
    if wish.data_centers:
        body["dataCenterIds"] = list(wish.data_centers)
    match wish.mount:
        case PersistentDisk(size_gb, path):
            body["mounts"] = {"persistent": {"size": size_gb, "path": path}}
        case NetworkDisk(volume_id, path):
            body["mounts"] = {"network": [{"volumeId": volume_id, "path": path}]}
    return body


@contextmanager
def _readable(request: Request) -> Iterator[None]:
    """An answer that is not what the schema promises is as good as none."""
    try:
        yield
    except ValueError as error:
        raise ServerError(f"{request}: {error}", short="an answer that cannot be read") from error


def _secrets(wish: Wish) -> tuple[str, ...]:
    """What no error may repeat. Short values are no secrets, and would be found everywhere."""
    return tuple(value for value in wish.env.values() if len(value) >= SHORTEST_SECRET)


def _part(text: str) -> str:
    return quote(text, safe="")

"""RunPod's answers as values: untyped JSON ends here. Unknown fields are ignored, missing optional ones tolerated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

CloudName = Literal["secure", "community"]
CLOUDS: tuple[CloudName, ...] = ("secure", "community")

PROVISIONING, STARTING, RUNNING = "PROVISIONING", "STARTING", "RUNNING"
EXITED, ERROR, TERMINATED = "EXITED", "ERROR", "TERMINATED"


@dataclass(frozen=True)
class Address:
    """Where a pod's sshd listens."""

    host: str
    port: int
    user: str = "root"


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod as RunPod describes it; its environment, which holds secrets, is never kept."""

    id: str
    name: str
    status: str
    cost_usd_per_h: float | None = None
    """None if it is not said, or nothing is charged in this state."""
    gpu_id: str | None = None
    gpu_count: int | None = None
    cloud: str | None = None
    data_center: str | None = None
    image: str | None = None
    address: Address | None = None
    public: Mapping[int, str] = field(default_factory=dict)
    """Where the pod's TCP ports are reached from the internet: ip:port by their own number."""
    created_at: datetime | None = None

    @property
    def terminated(self) -> bool:
        return self.status == TERMINATED


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A kind of GPU in the catalogue, as one of the clouds offers it."""

    id: str
    name: str
    memory_gb: int | None
    cloud: CloudName
    price_usd_per_h: float | None
    """Of one GPU."""
    most: int | None
    """How many one pod can have."""
    stock: str | None
    """high, medium, low or none."""
    stock_by_data_center: Mapping[str, str]


@dataclass(frozen=True)
class NetworkVolume:
    """A disk that outlives pods; it binds them to its data centre."""

    id: str
    name: str
    size_gb: int | None
    data_center: str


@dataclass(frozen=True)
class DataCenter:
    id: str
    name: str
    region: str | None
    volume_types: tuple[str, ...] = ()
    """Of the network volumes that can lie there; none, if empty."""


@dataclass(frozen=True)
class BillingRecord:
    """What a pod cost in one stretch of time."""

    total_usd: float
    compute_usd: float


def pod_from(data: Any) -> Pod:
    """Raises ValueError if the data is no pod."""
    fields = _mapping(data)
    gpu = _mapping_or_empty(fields.get("gpu"))
    public = public_ports(_mapping_or_empty(fields.get("runtime")).get("ports"), ("private", "public", "ip"))
    return Pod(
        id=_text(fields, "id"),
        name=str(fields.get("name") or ""),
        status=str(fields.get("status") or "UNKNOWN").upper(),
        cost_usd_per_h=positive(fields.get("cost")),
        gpu_id=_text_or_none(gpu.get("id")),
        gpu_count=_whole(gpu.get("count")),
        cloud=_text_or_none(fields.get("cloud")),
        data_center=_text_or_none(fields.get("dataCenterId")),
        image=_text_or_none(fields.get("image")),
        address=_direct(fields) or published_ssh(public),
        public=public,
        created_at=_instant(fields.get("createdAt")),
    )


def gpu_from(data: Any, cloud: CloudName) -> Gpu | None:
    """A catalogue entry as this cloud offers it; None if it does not. Raises ValueError if the data is none."""
    fields = _mapping(data)
    if fields.get(cloud) is False:
        return None
    most = _whole(_mapping_or_empty(fields.get("maxCount")).get(cloud))
    if most == 0:
        return None
    places = (_mapping(entry) for entry in fields.get("dataCenters") or ())
    return Gpu(
        id=_text(fields, "id"),
        name=str(fields.get("name") or fields["id"]),
        memory_gb=_whole(fields.get("memory")),
        cloud=cloud,
        price_usd_per_h=positive(_mapping_or_empty(fields.get("price")).get(cloud)),
        most=most,
        stock=_stock(fields.get("availability")),
        stock_by_data_center={_text(place, "id"): _stock(place.get("availability")) or "none" for place in places},
    )


def volume_from(data: Any) -> NetworkVolume:
    fields = _mapping(data)
    return NetworkVolume(
        _text(fields, "id"), str(fields.get("name") or ""), _whole(fields.get("size")), _text(fields, "dataCenter")
    )


def data_center_from(data: Any) -> DataCenter:
    fields = _mapping(data)
    types = fields.get("networkVolumeTypes")
    return DataCenter(
        _text(fields, "id"),
        str(fields.get("name") or ""),
        _text_or_none(fields.get("region")),
        tuple(map(str, types)) if isinstance(types, list) else (),
    )


def billing_record_from(data: Any) -> BillingRecord:
    fields = _mapping(data)
    compute = (positive(fields.get("gpuAmount")) or 0.0) + (positive(fields.get("cpuAmount")) or 0.0)
    return BillingRecord(positive(fields.get("totalAmount")) or compute, compute)


def listed(data: Any, key: str) -> list[Any]:
    """The entries of a list answer. Raises ValueError if it is none: an error page is no empty list."""
    fields = _mapping(data)
    if key not in fields:
        raise ValueError(f"no {key} in the answer")
    entries = fields[key]
    if entries is None:  # how some servers write a list without entries
        return []
    if not isinstance(entries, list):
        raise ValueError(f"{key} is no list")
    return entries


def next_cursor(data: Any) -> str | None:
    """Where the next page begins; None on the last."""
    fields = _mapping(data)
    for place in (fields, *(inner for inner in fields.values() if isinstance(inner, Mapping))):
        if cursor := place.get("nextCursor"):
            return str(cursor)
    return None


def public_ports(ports: Any, keys: tuple[str, str, str]) -> dict[int, str]:
    """A pod's TCP ports that are published; `keys` are the names of the private port, the public one and the ip."""
    private, public, ip = keys
    found = {}
    for port in ports if isinstance(ports, list) else ():
        if not isinstance(port, Mapping) or str(port.get("type") or "tcp").lower() != "tcp":
            continue
        inside, outside = _whole(port.get(private)), _whole(port.get(public))
        if inside and outside and port.get(ip) and port.get("isIpPublic") is not False:
            found[inside] = f"{port[ip]}:{outside}"
    return found


def published_ssh(public: Mapping[int, str]) -> Address | None:
    host, _, port = public.get(22, "").rpartition(":")
    return Address(host, int(port)) if host else None


def positive(value: Any) -> float | None:
    """A number above nothing; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _direct(fields: Mapping[str, Any]) -> Address | None:
    direct = _mapping_or_empty(_mapping_or_empty(fields.get("ssh")).get("direct"))
    port = _whole(direct.get("port"))
    if not direct.get("host") or not port:
        return None
    return Address(str(direct["host"]), port, str(direct.get("username") or "root"))


def _mapping(data: Any) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError(f"{type(data).__name__} where an object was expected")
    return data


def _mapping_or_empty(data: Any) -> Mapping[str, Any]:
    return data if isinstance(data, Mapping) else {}


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"no {key} in the answer")
    return value


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return int(value)
    except (ValueError, OverflowError):
        return None


def _stock(value: Any) -> str | None:
    return value.lower() if isinstance(value, str) and value else None


def _instant(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)

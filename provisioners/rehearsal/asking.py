"""What a create asks for, read from a body once and a value from then on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from provisioners.rehearsal.catalogue import CLOUDS
from provisioners.rehearsal.problems import Checks, Problem

_CONTAINER = ("args", "disk", "env", "image", "ports", "registry")
_CREATE = (
    *_CONTAINER,
    *("name", "cloud", "cpu", "dataCenterIds", "globalNetworking", "gpu", "mounts", "startJupyter", "startSsh"),
    "templateId",
)
_UPDATE = (*_CONTAINER, "globalNetworking", "locked", "mounts", "name", "templateId")
_CUDA = r"^\d+\.\d+$"


@dataclass(frozen=True)
class PersistentMount:
    """A volume on the pod's own machine."""

    size_gb: int
    path: str


@dataclass(frozen=True)
class NetworkMount:
    """A network volume at a path."""

    volume_id: str
    path: str


@dataclass(frozen=True, kw_only=True)
class PodRequest:
    """A pod as it was asked for."""

    name: str
    image: str
    gpu_id: str
    gpu_count: int = 1
    cloud: str = "SECURE"
    data_centers: tuple[str, ...] = ()
    cuda: frozenset[str] = frozenset()
    """Exact versions; empty for any."""
    min_cuda: str | None = None
    args: str = ""
    disk_gb: int = 20
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ports: tuple[str, ...] = ()
    registry: str | None = None
    persistent: PersistentMount | None = None
    network: NetworkMount | None = None
    start_ssh: bool = False
    bid_usd_per_h: float | None = None
    """Per GPU, of an interruptible pod."""

    @property
    def mounts_json(self) -> dict[str, Any]:
        if self.persistent:
            return {"persistent": {"size": self.persistent.size_gb, "path": self.persistent.path}}
        if self.network:
            return {"network": [{"volumeId": self.network.volume_id, "path": self.network.path}]}
        return {}


def pod_request(body: Any, *, bid_usd_per_h: float | None = None) -> PodRequest:
    """Read a create's body. Raises Problem: 422 for its form, 400 for its rules, 404 for a template."""
    checks = Checks()
    known = checks.object("$", body, _CREATE, ("name",) if "templateId" in _keys(body) else ("name", "image"))
    settings = _container(checks, known)
    name = checks.text("$.name", known.get("name", "?"), least=1)
    cloud = checks.one_of("$.cloud", known.get("cloud", "SECURE"), CLOUDS)
    centers = checks.items("$.dataCenterIds", known.get("dataCenterIds", []), checks.text)
    gpu = _gpu(checks, known["gpu"]) if "gpu" in known else {}
    if "cpu" in known:
        cpu = checks.object("$.cpu", known["cpu"], ("id", "vcpuCount"), ("id", "vcpuCount"))
        checks.whole("$.cpu.vcpuCount", cpu.get("vcpuCount", 2), least=2)
    mounts = _mounts(checks, known.get("mounts", {}))
    flags = {
        name: checks.flag(f"$.{name}", known.get(name, False))
        for name in ("startJupyter", "startSsh", "globalNetworking")
    }
    if "templateId" in known:
        checks.text("$.templateId", known["templateId"], least=1)
    checks.raise_if_wrong()
    _follow_rules(known, gpu)
    return PodRequest(
        name=name,
        cloud=cloud,
        data_centers=tuple(centers),
        start_ssh=flags["startSsh"],
        bid_usd_per_h=bid_usd_per_h,
        **gpu,
        **settings,
        **mounts,
    )


def changed_settings(body: Any) -> dict[str, Any]:
    """The fields of a PATCH as a PodRequest and `locked` have them. Raises Problem."""
    checks = Checks()
    known = checks.object("$", body, _UPDATE)
    changes = _container(checks, known)
    if "name" in known:
        changes["name"] = checks.text("$.name", known["name"], least=1)
    if "locked" in known:
        changes["locked"] = checks.flag("$.locked", known["locked"])
    mounts = _mounts(checks, known.get("mounts", {}))
    checks.raise_if_wrong()
    if "templateId" in known:
        raise Problem(404, "template not found")
    if mounts:
        raise Problem(400, "mounts cannot be changed here")
    return changes


def _keys(body: Any) -> set[str]:
    return set(body) if isinstance(body, dict) else set()


def _container(checks: Checks, known: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the container that are given."""
    found: dict[str, Any] = {}
    for name in ("args", "image"):
        if name in known:
            found[name] = checks.text(f"$.{name}", known[name])
    if "disk" in known:
        found["disk_gb"] = checks.whole("$.disk", known["disk"], least=1)
    if "ports" in known:
        found["ports"] = tuple(checks.items("$.ports", known["ports"], checks.text))
    if known.get("registry") is not None:
        found["registry"] = checks.text("$.registry", known["registry"])
    if "env" in known:
        env = checks.object("$.env", known["env"], _keys(known["env"]))
        found["env"] = {key: checks.text(f"$.env.{key}", value) for key, value in env.items()}
    return found


def _gpu(checks: Checks, value: Any) -> dict[str, Any]:
    known = checks.object("$.gpu", value, ("id", "count", "allowedCudaVersions", "minCudaVersion"), ("id",))

    def version(path: str, item: Any) -> str:
        return checks.text(path, item, pattern=_CUDA)

    versions = checks.items("$.gpu.allowedCudaVersions", known.get("allowedCudaVersions", []), version)
    least = known.get("minCudaVersion")
    return {
        "gpu_id": checks.text("$.gpu.id", known.get("id", "")),
        "gpu_count": checks.whole("$.gpu.count", known.get("count", 1), least=1),
        "cuda": frozenset(versions),
        "min_cuda": None if least is None else version("$.gpu.minCudaVersion", least),
    }


def _mounts(checks: Checks, value: Any) -> dict[str, Any]:
    known = checks.object("$.mounts", value, ("persistent", "network"))
    found: dict[str, Any] = {}
    if "persistent" in known:
        mount = checks.object("$.mounts.persistent", known["persistent"], ("size", "path"), ("size", "path"))
        size = checks.whole("$.mounts.persistent.size", mount.get("size", 10), least=10)
        found["persistent"] = PersistentMount(size, checks.text("$.mounts.persistent.path", mount.get("path", "")))

    def network(path: str, item: Any) -> NetworkMount:
        mount = checks.object(path, item, ("volumeId", "path"), ("volumeId", "path"))
        volume = checks.text(f"{path}.volumeId", mount.get("volumeId", ""))
        return NetworkMount(volume, checks.text(f"{path}.path", mount.get("path", "")))

    if "network" in known:
        entries = checks.items("$.mounts.network", known["network"], network, most=1)
        found["network"] = entries[0] if entries else None
    return found


def _follow_rules(known: Mapping[str, Any], gpu: Mapping[str, Any]) -> None:
    """The rules that are no question of form. Raises Problem."""
    if "templateId" in known:
        raise Problem(404, "template not found")
    if ("gpu" in known) == ("cpu" in known):
        raise Problem(400, "exactly one of gpu or cpu must be set")
    if "cpu" in known:
        raise Problem(400, "There are no longer any instances available: the emulator has no CPU pods")
    if gpu["cuda"] and gpu["min_cuda"]:
        raise Problem(400, "allowedCudaVersions and minCudaVersion are mutually exclusive")
    mounts = known.get("mounts", {})
    if "persistent" in mounts and "network" in mounts:
        raise Problem(400, "mounts.persistent and mounts.network are mutually exclusive")
    for mount in [*([mounts["persistent"]] if "persistent" in mounts else []), *mounts.get("network", [])]:
        if not mount["path"].startswith("/"):
            raise Problem(400, "a mount's path must be absolute")

"""The hardware that the emulator has: GPU types, data centres and stock.

Prices that are marked as seen are RunPod's of one day; the others are the emulator's own, of the right order only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from provisioners.rehearsal.faults import Faults

LEVELS = ("NONE", "LOW", "MEDIUM", "HIGH")
CLOUDS = ("SECURE", "COMMUNITY")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU type; prices are for one of them, in dollars per hour."""

    id: str
    name: str
    pool: str
    memory_gb: int
    secure_usd_per_h: float
    community_usd_per_h: float
    secure_max: int = 8
    community_max: int = 4
    stock: tuple[tuple[str, str], ...]
    """Level by data centre, in the secure cloud."""
    cuda: tuple[str, ...] = ("12.8", "12.6", "12.4")

    def price(self, cloud: str) -> float:
        return self.secure_usd_per_h if cloud == "SECURE" else self.community_usd_per_h

    def most(self, cloud: str) -> int:
        return self.secure_max if cloud == "SECURE" else self.community_max


@dataclass(frozen=True, kw_only=True)
class DataCenter:
    """Where pods stand."""

    id: str
    name: str
    region: str
    country: str
    volume_types: tuple[str, ...] = ("STANDARD",)
    global_network: bool = True


DATA_CENTERS = (
    DataCenter(
        id="US-KS-2",
        name="US Kansas 2",
        region="NORTH_AMERICA",
        country="US",
        volume_types=("STANDARD", "HIGH_PERFORMANCE"),
    ),
    DataCenter(id="US-TX-3", name="US Texas 3", region="NORTH_AMERICA", country="US"),
    DataCenter(id="US-CA-2", name="US California 2", region="NORTH_AMERICA", country="US"),
    DataCenter(id="EU-RO-1", name="EU Romania 1", region="EUROPE", country="RO"),
    DataCenter(id="EUR-IS-1", name="EU Iceland 1", region="EUROPE", country="IS", volume_types=()),
)

GPUS = (
    # Prices as seen.
    Gpu(
        id="NVIDIA A100 80GB PCIe", name="A100 PCIe", pool="AMPERE_80", memory_gb=80,
        secure_usd_per_h=1.79, community_usd_per_h=1.19, stock=(("US-KS-2", "HIGH"), ("EU-RO-1", "MEDIUM")),
    ),
    Gpu(
        id="NVIDIA A100-SXM4-80GB", name="A100 SXM", pool="AMPERE_80", memory_gb=80,
        secure_usd_per_h=1.79, community_usd_per_h=1.39, stock=(("US-TX-3", "MEDIUM"), ("US-KS-2", "LOW")),
    ),
    Gpu(
        id="NVIDIA H100 PCIe", name="H100 PCIe", pool="HOPPER_80", memory_gb=80,
        secure_usd_per_h=2.89, community_usd_per_h=1.99, stock=(("US-KS-2", "LOW"), ("EUR-IS-1", "LOW")),
    ),
    Gpu(
        id="NVIDIA H100 80GB HBM3", name="H100 SXM", pool="HOPPER_80", memory_gb=80,
        secure_usd_per_h=3.99, community_usd_per_h=2.69, stock=(("US-CA-2", "MEDIUM"), ("US-TX-3", "LOW")),
    ),
    # Prices are the emulator's own.
    Gpu(
        id="NVIDIA H200", name="H200 SXM", pool="HOPPER_141", memory_gb=141,
        secure_usd_per_h=4.59, community_usd_per_h=3.99, stock=(("US-CA-2", "LOW"), ("EUR-IS-1", "MEDIUM")),
    ),
    Gpu(
        id="NVIDIA A40", name="A40", pool="AMPERE_48", memory_gb=48, secure_max=10,
        secure_usd_per_h=0.44, community_usd_per_h=0.35, stock=(("US-KS-2", "HIGH"), ("EU-RO-1", "HIGH")),
    ),
    Gpu(
        id="NVIDIA L40S", name="L40S", pool="ADA_48_PRO", memory_gb=48,
        secure_usd_per_h=0.89, community_usd_per_h=0.79, stock=(("US-TX-3", "HIGH"), ("EUR-IS-1", "LOW")),
    ),
    Gpu(
        id="NVIDIA L4", name="L4", pool="AMPERE_24", memory_gb=24,
        secure_usd_per_h=0.43, community_usd_per_h=0.39, stock=(("EU-RO-1", "HIGH"),),
    ),
    Gpu(
        id="NVIDIA GeForce RTX 4090", name="RTX 4090", pool="ADA_24", memory_gb=24,
        secure_usd_per_h=0.69, community_usd_per_h=0.34, stock=(("US-KS-2", "HIGH"), ("EU-RO-1", "MEDIUM")),
    ),
    Gpu(
        id="NVIDIA GeForce RTX 3090", name="RTX 3090", pool="AMPERE_24", memory_gb=24,
        secure_usd_per_h=0.46, community_usd_per_h=0.22, stock=(("US-CA-2", "MEDIUM"),),
    ),
)  # fmt: skip


def gpu_named(gpu_id: str) -> Gpu | None:
    return next((gpu for gpu in GPUS if gpu.id == gpu_id), None)


def least_bid(gpu: Gpu, cloud: str) -> float:
    """What an interruptible one costs at least; the emulator's own rule."""
    return round(gpu.price(cloud) * 0.5, 2)


def data_center_named(center_id: str) -> DataCenter | None:
    return next((center for center in DATA_CENTERS if center.id == center_id), None)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What availability is asked for."""

    count: int = 1
    cloud: str = "SECURE"
    centers: frozenset[str] | None = None
    """None for any."""
    cuda: frozenset[str] | None = None
    """Exact versions; None for any."""


def blocked(names: Iterable[str], gpu: str, cloud: str, center: str) -> bool:
    """Whether a list of GPU, GPU@CLOUD or GPU@DATACENTER names this combination."""
    return bool({gpu, f"{gpu}@{cloud}", f"{gpu}@{center}"} & set(names))


def stock(gpu: Gpu, wanted: Wanted, faults: Faults) -> dict[str, str]:
    """The level in every data centre that offers this."""
    if wanted.count > gpu.most(wanted.cloud) or (wanted.cuda is not None and not wanted.cuda & set(gpu.cuda)):
        return {}
    return {
        center: "NONE" if blocked(faults.no_capacity_gpus, gpu.id, wanted.cloud, center) else level
        for center, level in gpu.stock
        if wanted.centers is None or center in wanted.centers
    }


def placement(gpu: Gpu, wanted: Wanted, faults: Faults, preferred: Sequence[str]) -> str | None:
    """The data centre where this can be had; None if it cannot."""
    levels = {center: level for center, level in stock(gpu, wanted, faults).items() if level != "NONE"}
    if preferred:
        return next((center for center in preferred if center in levels), None)
    return max(levels, key=lambda center: LEVELS.index(levels[center]), default=None)


def cuda_from(gpu: Gpu, minimum: str) -> frozenset[str]:
    """The versions of a GPU's hosts that are at least this; a bare major means any release of it."""
    floor = tuple(map(int, minimum.split(".")))
    return frozenset(version for version in gpu.cuda if tuple(map(int, version.split("."))) >= floor)


def gpu_json(gpu: Gpu, wanted: Wanted | None, faults: Faults) -> dict[str, Any]:
    """A GPU type as the API shows it; with availability if that was asked for."""
    shown: dict[str, Any] = {
        "id": gpu.id,
        "name": gpu.name,
        "pool": gpu.pool,
        "manufacturer": "NVIDIA",
        "memory": gpu.memory_gb,
        "secure": True,
        "community": True,
        "price": {"secure": gpu.secure_usd_per_h, "community": gpu.community_usd_per_h},
        "maxCount": {"secure": gpu.secure_max, "community": gpu.community_max},
    }
    if wanted is None:
        return shown
    levels = stock(gpu, wanted, faults)
    best = max(levels.values(), key=LEVELS.index, default="NONE")
    shown["availability"] = best
    if levels:
        shown["dataCenters"] = [
            {"id": center.id, "name": center.name, "availability": levels[center.id]}
            for center in DATA_CENTERS
            if center.id in levels
        ]
    versions = [version for version in gpu.cuda if wanted.cuda is None or version in wanted.cuda]
    if versions:
        shown["cudaVersions"] = [{"version": version, "available": best != "NONE"} for version in versions]
    return shown


def data_center_json(center: DataCenter, faults: Faults, *, with_gpus: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": center.id,
        "name": center.name,
        "region": center.region,
        "globalNetwork": center.global_network,
        "networkVolumeTypes": list(center.volume_types),
        "compliance": ["SOC_2_TYPE_2"],
    }
    if with_gpus:
        wanted = Wanted(centers=frozenset({center.id}))
        levels = [(gpu, stock(gpu, wanted, faults).get(center.id)) for gpu in GPUS]
        shown["gpuAvailability"] = [
            {"id": gpu.id, "name": gpu.name, "availability": level} for gpu, level in levels if level is not None
        ]
    return shown

"""A recipe's disks as RunPod has them: the container's own, and one that is mounted."""

from __future__ import annotations

from collections.abc import Iterable

from provisioners.providers.runpod.cloud import NetworkDisk, PersistentDisk
from provisioners.providers.runpod.values import NetworkVolume
from provisioners.storage_prices import storage_prices
from recipes.errors import NoMachine
from recipes.explain import did_you_mean
from recipes.spec import Resources, Volume

DISK_GB = 20
"""Of the container, if the recipe does not say."""
SMALLEST_PERSISTENT_GB = 10
"""Smaller ones are refused by RunPod."""
_GB = 10**9


def disk_gb(resources: Resources) -> int:
    return gigabytes(resources.disk_size) if resources.disk_size else DISK_GB


def gigabytes(size_bytes: int) -> int:
    """Whole gigabytes that hold so many bytes."""
    return -(-size_bytes // _GB)


def volume_of(resources: Resources) -> Volume | None:
    """The one volume that a pod can have. Raises NoMachine if there are more, or one of no kind that RunPod has."""
    if not resources.volumes:
        return None
    if len(resources.volumes) > 1:
        raise NoMachine("a RunPod pod mounts one volume; resources.volumes has more", advice="leave one of them")
    (volume,) = resources.volumes
    if volume.name is None and volume.size is None:
        advice = "write size: 200GB for one that ends with the pod, or name: for an existing network volume"
        raise NoMachine(f"the volume {volume.path} has neither a size nor a name", advice=advice)
    return volume


def persistent_gb(volume: Volume | None) -> int:
    """Of the volume that ends with the pod; 0 if there is none."""
    return 0 if volume is None or volume.size is None else max(SMALLEST_PERSISTENT_GB, gigabytes(volume.size))


def price_of(resources: Resources) -> tuple[float, str]:
    """What the pod's own disks cost in dollars per hour, and who says so.

    A network volume costs the same without the pod: it is no part of the run.
    """
    prices = storage_prices("runpod")
    sizes = {"container": disk_gb(resources), "persistent": persistent_gb(volume_of(resources))}
    usd_per_h = sum(prices[kind].usd_per_gb_h * gb for kind, gb in sizes.items())
    seen_on = min(prices[kind].seen_on for kind in sizes)
    return round(usd_per_h, 6), f"{sum(sizes.values())} GB at RunPod's prices of {seen_on}, assumed"


def mount_of(volume: Volume | None, existing: Iterable[NetworkVolume]) -> PersistentDisk | NetworkDisk | None:
    """What is mounted. Raises NoMachine if a named volume does not exist."""
    if volume is None:
        return None
    if volume.name is not None:
        return NetworkDisk(find(volume.name, existing).id, volume.path)
    return PersistentDisk(persistent_gb(volume), volume.path)


def find(wanted: str, existing: Iterable[NetworkVolume]) -> NetworkVolume:
    """The network volume of this id or name. Raises NoMachine if there is none, or more than one."""
    known = list(existing)
    found = [v for v in known if v.id == wanted] or [v for v in known if v.name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(v.id for v in found)
        raise NoMachine(f"{len(found)} network volumes are called {wanted}", advice=f"write one of the ids {ids}")
    advice = (
        did_you_mean(wanted, {v.name for v in known} | {v.id for v in known}) or "make it in RunPod's console first"
    )
    raise NoMachine(f"no network volume is called {wanted}", advice=advice)

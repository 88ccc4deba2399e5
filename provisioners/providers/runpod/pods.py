"""From an order to the pod that is asked for: everything that a create says. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from provisioners.bootstrap import StartCommand, start_command
from provisioners.contract import Order
from provisioners.providers.runpod import images, storage
from provisioners.providers.runpod.cloud import Wish
from provisioners.providers.runpod.values import CLOUDS, CloudName, Gpu, NetworkVolume
from recipes.errors import NoCapacity

_ROUNDING_USD = 1e-6
"""What the arithmetic of prices may add by itself."""
_DECIMALS_USD = 0.0006
_DEARER = 0.01
"""Share by which a pod may cost more than offered before it is said."""


LONGEST_S = 24 * 3600.0
"""A pod lets itself go after so long if nobody has said when."""
IDLE_S = 600.0
"""And after so long without a client or progress."""


def start_of(order: Order, public_key: str, rest_url: str, graphql_url: str, now: datetime) -> StartCommand:
    """What makes the pod a host that lets itself go. Raises Refused if it becomes too long."""
    volume = storage.volume_of(order.resources)
    return start_command(
        order.lease,
        deadline=order.lease.deadline or now + timedelta(seconds=LONGEST_S),
        idle_s=IDLE_S if order.idle_s is None else order.idle_s,
        boot=order.boot,
        public_key=public_key,
        volume=volume.path if volume else None,
        api_url=rest_url,
        graphql_url=graphql_url,
    )


def wish_for(order: Order, start: StartCommand, gpu: Gpu, volumes: Iterable[NetworkVolume]) -> Wish:
    """Raises NoMachine if a named volume does not exist."""
    offer, resources = order.offer, order.resources
    image = resources.image or images.DEFAULT_IMAGE
    return Wish(
        name=order.lease.name,
        image=image,
        gpu_id=offer.id,
        gpu_count=offer.count,
        cloud=cloud_of(offer.cloud),
        data_centers=(offer.region,) if offer.region else (),
        disk_gb=storage.disk_gb(resources),
        mount=storage.mount_of(storage.volume_of(resources), volumes),
        ports=("22/tcp", *(f"{port}/tcp" for port in order.ports)),
        args=start.args,
        env=start.env,
        min_cuda=newer_of(images.min_cuda(image), order.min_cuda),
        min_cpus=resources.cpus.value if resources.cpus else None,
        min_memory_gb=storage.gigabytes(resources.memory.value) if resources.memory else None,
        bid_usd_per_gpu_h=gpu.price_usd_per_h if offer.spot else None,
    )


def newer_of(*releases: str | None) -> str | None:
    """The newest of these releases, each major.minor or unknown."""
    known = [release for release in releases if release]
    return max(known, key=lambda release: tuple(map(int, release.split("."))), default=None)


def cloud_of(name: str | None) -> CloudName:
    return next((cloud for cloud in CLOUDS if cloud == name), "secure")


def price_of(gpu: Gpu, count: int) -> float | None:
    return None if gpu.price_usd_per_h is None else round(gpu.price_usd_per_h * count, 6)


def check_price(now_usd_per_h: float | None, order: Order, said: str) -> None:
    """Raises NoCapacity if it is above what the order allows."""
    most = order.max_price_usd_per_h
    if most is not None and now_usd_per_h is not None and now_usd_per_h > most + _ROUNDING_USD:
        raise NoCapacity(
            f"{said} ${now_usd_per_h:.2f}/h, above limits.max_price ${most:.2f}/h",
            advice=f"raise it with --set limits.max_price={now_usd_per_h:.2f}, or add fallbacks",
        )


def price_without_disks(
    charged_usd_per_h: float | None, price_usd_per_h: float | None, storage_usd_per_h: float
) -> float | None:
    """A pod's own price. RunPod does not say whether what it charges holds the disks: what is just as much dearer does.

    Its figures have three decimals.
    """
    if charged_usd_per_h is None or price_usd_per_h is None:
        return charged_usd_per_h or price_usd_per_h
    with_disks = price_usd_per_h + storage_usd_per_h
    return price_usd_per_h if abs(charged_usd_per_h - with_disks) <= _DECIMALS_USD else charged_usd_per_h


def price_warning(order: Order, cost_usd_per_h: float | None) -> str | None:
    """What to say if a pod costs more than it was offered for."""
    offered = order.offer.price_usd_per_h
    if offered is None or cost_usd_per_h is None or cost_usd_per_h <= offered * (1 + _DEARER):
        return None
    return f"RunPod charges ${cost_usd_per_h:.2f}/h for a pod that it offered for ${offered:.2f}/h"

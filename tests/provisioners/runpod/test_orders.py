"""From an order to a create: disks, images, prices, and the command that the container starts with."""

from __future__ import annotations

import base64
import gzip
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from provisioners.contract import Boot, Lease, Offer, Order
from provisioners.providers.runpod import pods, storage
from provisioners.providers.runpod.cloud import NetworkDisk, PersistentDisk
from provisioners.providers.runpod.images import DEFAULT_IMAGE, min_cuda
from provisioners.providers.runpod.settings import Settings, addresses
from provisioners.providers.runpod.values import Gpu, NetworkVolume
from recipes.errors import NoCapacity, NoMachine
from recipes.spec import Resources
from tests.provisioners.runpod.scripted import KEY, NAME

NOW = datetime(2026, 11, 21, 5, 12, tzinfo=UTC)
GPU = Gpu(
    id="NVIDIA A40",
    name="A40",
    memory_gb=48,
    cloud="secure",
    price_usd_per_h=0.44,
    most=10,
    stock="high",
    stock_by_data_center={},
)


def order(
    *, boot: Boot | None = None, ports: tuple[int, ...] = (), most: float | None = None, **resources: Any
) -> Order:
    offer = Offer(provider="runpod", id="NVIDIA A40", count=2, cloud="secure", region="EU-SE-1", price_usd_per_h=0.88)
    lease = Lease(provider="runpod", name=NAME, run_id="test", deadline=NOW + timedelta(hours=1))
    asked = Resources.model_validate({"accelerators": "A40:2", **resources})
    return Order(
        offer=offer, lease=lease, resources=asked, boot=boot or Boot(), ports=ports, max_price_usd_per_h=most, idle_s=60
    )


def test_a_wish_is_the_offer_with_the_recipes_disks() -> None:
    asked = order(
        boot=Boot(env={"HF_TOKEN": "hf_secret"}),
        ports=(8000,),
        disk_size="50GB",
        cpus="16+",
        memory="128GB+",
        volumes=[{"size": "200GB", "path": "/workspace"}],
        image="runpod/pytorch:2.0.1-py3.10-cuda11.8.0-devel-ubuntu22.04",
    )
    start = pods.start_of(asked, "ssh-ed25519 AAAA", "http://127.0.0.1:1/v2", "http://127.0.0.1:1/graphql", NOW)
    wish = pods.wish_for(asked, start, GPU, [])
    assert (wish.name, wish.gpu_id, wish.gpu_count, wish.cloud) == (NAME, "NVIDIA A40", 2, "secure")
    assert (wish.data_centers, wish.disk_gb, wish.ports) == (("EU-SE-1",), 50, ("22/tcp", "8000/tcp"))
    assert wish.mount == PersistentDisk(200, "/workspace")
    assert (wish.min_cpus, wish.min_memory_gb) == (16, 128)
    assert (wish.min_cuda, wish.bid_usd_per_gpu_h) == ("11.8", None)
    assert wish.env["PUBLIC_KEY"] == "ssh-ed25519 AAAA"
    assert wish.env["HF_TOKEN"] == "hf_secret"
    assert wish.env["RECIPE_API"] == "http://127.0.0.1:1/v2"
    script = gzip.decompress(base64.b64decode(wish.args.split()[3])).decode()
    assert NAME in script
    assert "hf_secret" not in script
    assert "hf_secret" not in repr(wish)


def test_a_pod_without_a_deadline_has_one_all_the_same() -> None:
    asked = order()
    unlimited = Order(
        offer=asked.offer, lease=Lease(provider="runpod", name=NAME, run_id="t"), resources=asked.resources
    )
    start = pods.start_of(unlimited, "k", "https://api.runpod.io/v2", "https://api.runpod.io/graphql", NOW)
    script = gzip.decompress(base64.b64decode(start.args.split()[3])).decode()
    assert f"{int(NOW.timestamp() + pods.LONGEST_S)} 600" in script
    assert "RECIPE_API" not in start.env


@pytest.mark.parametrize(("disk_size", "disk_gb"), [(None, 20), ("20GB", 20), ("18GiB", 20), ("500MB", 1)])
def test_the_containers_disk_is_whole_gigabytes(disk_size: str | None, disk_gb: int) -> None:
    assert storage.disk_gb(Resources.model_validate({"disk_size": disk_size} if disk_size else {})) == disk_gb


VOLUMES = [
    NetworkVolume("v1", "models", 200, "EU-RO-1"),
    NetworkVolume("v2", "twice", 10, "EU-RO-1"),
    NetworkVolume("v3", "twice", 10, "US-KS-2"),
]


def mount(**volume: Any) -> Any:
    asked = Resources.model_validate({"volumes": [{"path": "/workspace", **volume}]})
    return storage.mount_of(storage.volume_of(asked), VOLUMES)


def test_a_volume_is_made_with_the_pod_or_is_an_existing_one() -> None:
    assert mount(size="5GB") == PersistentDisk(10, "/workspace")
    assert mount(size="200GB") == PersistentDisk(200, "/workspace")
    assert mount(name="models") == NetworkDisk("v1", "/workspace")
    assert mount(name="v3") == NetworkDisk("v3", "/workspace")
    assert storage.mount_of(None, VOLUMES) is None


@pytest.mark.parametrize(
    ("volume", "message", "advice"),
    [
        ({"name": "model"}, "no network volume is called model", "did you mean models?"),
        ({"name": "twice"}, "2 network volumes are called twice", "v2, v3"),
        ({}, "neither a size nor a name", "size: 200GB"),
    ],
)
def test_a_volume_that_cannot_be_mounted_is_said(volume: Any, message: str, advice: str) -> None:
    with pytest.raises(NoMachine, match=message) as caught:
        mount(**volume)
    assert advice in caught.value.advice


def test_a_pod_mounts_one_volume() -> None:
    both = Resources.model_validate({"volumes": [{"path": "/a", "size": "10GB"}, {"path": "/b", "size": "10GB"}]})
    with pytest.raises(NoMachine, match="mounts one volume"):
        storage.volume_of(both)


@pytest.mark.parametrize(
    ("image", "cuda"),
    [
        ("runpod/pytorch:2.0.1-py3.10-cuda11.8.0-devel-ubuntu22.04", "11.8"),
        (DEFAULT_IMAGE, "12.8"),
        ("runpod/pytorch:1.0.2-cu118-torch", "11.8"),
        ("nvidia/cuda:12.4.1-devel-ubuntu22.04", "12.4"),
        ("vllm/vllm-openai:v0.33.0", None),
        ("registry.example:5000/me/acu1281/image", None),
        ("ubuntu:24.04", None),
    ],
)
def test_the_cuda_that_an_image_needs(image: str, cuda: str | None) -> None:
    assert min_cuda(image) == cuda


def test_a_price_above_the_limit_is_no_offer() -> None:
    pods.check_price(5.0, order(most=5.0), "it costs")
    pods.check_price(0.1 + 0.2, order(most=0.3), "it costs")
    pods.check_price(100.0, order(most=None), "it costs")
    pods.check_price(None, order(most=1.0), "it costs")
    with pytest.raises(NoCapacity, match=r"it costs \$5\.01/h, above limits\.max_price \$5\.00/h"):
        pods.check_price(5.01, order(most=5.0), "it costs")


def test_a_pod_that_costs_more_than_offered_is_remarked() -> None:
    assert pods.price_warning(order(), 0.88) is None
    assert pods.price_warning(order(), None) is None
    assert pods.price_warning(order(), 1.0) == "RunPod charges $1.00/h for a pod that it offered for $0.88/h"


@pytest.mark.parametrize(
    ("env", "rest", "graphql"),
    [
        ({}, "https://api.runpod.io/v2", "https://api.runpod.io/graphql"),
        ({"RECIPE_RUNPOD_URL": "http://127.0.0.1:99"}, "http://127.0.0.1:99/v2", "http://127.0.0.1:99/graphql"),
        ({"RECIPE_RUNPOD_URL": "http://127.0.0.1:99/"}, "http://127.0.0.1:99/v2", "http://127.0.0.1:99/graphql"),
        ({"RECIPE_RUNPOD_URL": "https://a.example/v3/"}, "https://a.example/v3", "https://a.example/graphql"),
        ({"RUNPOD_API_BASE_URL": "https://b.example/"}, "https://api.runpod.io/v2", "https://b.example/graphql"),
    ],
)
def test_where_runpod_is(env: dict[str, str], rest: str, graphql: str) -> None:
    assert addresses(env) == (rest, graphql)


def test_settings_name_what_is_missing_and_never_show_the_key() -> None:
    with pytest.raises(NoMachine, match="RUNPOD_API_KEY is not set") as caught:
        Settings.of({})
    assert "export RUNPOD_API_KEY" in caught.value.advice
    with pytest.raises(NoMachine, match="characters that no key has") as caught:
        Settings.of({"RUNPOD_API_KEY": f"{KEY}\n{KEY}"})
    assert KEY not in str(caught.value)
    with pytest.raises(NoMachine, match="is no address"):
        Settings.of({"RUNPOD_API_KEY": KEY, "RECIPE_RUNPOD_URL": "api.runpod.io"})
    assert KEY not in repr(Settings.of({"RUNPOD_API_KEY": f" {KEY}\n"}))


def test_a_charge_that_is_dearer_by_just_the_disks_holds_them() -> None:
    assert pods.price_without_disks(0.88, 0.88, 0.0301) == 0.88
    assert pods.price_without_disks(0.91, 0.88, 0.0301) == 0.88
    assert pods.price_without_disks(1.20, 0.88, 0.0301) == 1.20
    assert pods.price_without_disks(None, 0.88, 0.0301) == 0.88
    assert pods.price_without_disks(0.88, None, 0.0301) == 0.88

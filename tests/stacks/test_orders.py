"""Orders that travel to another process as one text."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from provisioners.contract import Boot, BootJob, Finding, Lease, Offer, Order, Remedy
from provisioners.preflight import clear
from recipes.errors import Refused
from recipes.spec import Resources
from stacks.orders import Request, digest_of, pack, unpack

DEAR = Offer(provider="runpod", id="NVIDIA H100 PCIe", accelerator="H100-PCIe", count=2, price_usd_per_h=5.78)
CHEAP = Offer(provider="runpod", id="NVIDIA A100 80GB PCIe", count=2, price_usd_per_h=3.58, storage_usd_per_h=0.02)
FINDING = Finding(
    level="warn",
    code="price",
    message="dear",
    numbers={"price_usd_per_h": 5.78},
    works=(Remedy(text="take less", overrides=("resources.accelerators=A100:1",), price_usd_per_h=1.8),),
)


def request() -> Request:
    resources = {
        "provisioner": "pulumi",
        "accelerators": "A100-80GB:2",
        "any_of": [{"accelerators": "H100:2", "use_spot": True}],
        "volumes": [{"path": "/workspace", "size": "100GB"}],
        "memory": "64GB+",
        "retry": "30m",
    }
    order = Order(
        offer=CHEAP,
        lease=Lease(
            provider="pulumi",
            name="recipe-me-pod-20261121-120000-abcd-60m",
            run_id="pod-20261121-120000-abcd",
            deadline=datetime(2026, 11, 21, 13, tzinfo=UTC),
            details={"stack": "x"},
        ),
        resources=Resources.model_validate(resources),
        boot=Boot(
            files={"install.json": "{}", "onhost/a.py": "print('ä')"},
            jobs=(BootJob(name="install", argv=("{python}", "a.py")),),
            env={"HF_TOKEN": "hf_secret"},
        ),
        max_price_usd_per_h=4.0,
        idle_s=600.0,
        ports=(8000,),
        min_cuda="12.4",
    )
    return Request.of(order, clear([FINDING]), [CHEAP, DEAR])


def test_what_is_packed_comes_back_whole() -> None:
    assert unpack(pack(request())) == request()
    assert pack(unpack(pack(request()))) == pack(request())


def test_an_order_for_another_offer_has_its_prices() -> None:
    order = request().order_for(DEAR)
    assert (order.offer, order.lease.price_usd_per_h, order.lease.storage_usd_per_h) == (DEAR, 5.78, 0.0)
    assert order.boot == request().order.boot


def test_secrets_can_be_added_where_it_is_asked() -> None:
    assert request().with_env({"HF_TOKEN": "other", "A": "b"}).order.boot.env == {"HF_TOKEN": "other", "A": "b"}


def test_a_block_among_the_findings_is_no_permission() -> None:
    data = json.loads(gzip.decompress(base64.b64decode(pack(request()))))
    data["findings"][0]["level"] = "block"
    with pytest.raises(Refused, match="dear"):
        unpack(base64.b64encode(gzip.compress(json.dumps(data).encode())).decode())


@pytest.mark.parametrize("text", ["", "no order", "bm8gb3JkZXI=", pack(request())[:-40]])
def test_a_text_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the order cannot be read"):
        unpack(text)


def test_the_digest_is_of_engine_and_model_alone() -> None:
    boot = request().order.boot
    assert digest_of(boot) == digest_of(replace(boot, env={}, files={**boot.files, "onhost/a.py": "other"}))
    assert digest_of(boot) != digest_of(replace(boot, files={**boot.files, "install.json": '{"steps": []}'}))

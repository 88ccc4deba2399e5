"""From resources and a catalogue to offers: the right GPUs, in the right order, with their prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from provisioners.contract import Offer
from provisioners.providers.runpod.matching import full_name, matching
from provisioners.providers.runpod.offers import Catalogues, entries_of, offers_of, questions_of
from provisioners.providers.runpod.values import CloudName, Gpu
from recipes.errors import NoMachine
from recipes.spec import Resources

# id, name, memory, price in the secure and in the community cloud (None: not there), stock, the most in one pod
KINDS: Sequence[tuple[str, str, int, float | None, float | None, str, int]] = (
    ("NVIDIA A100 80GB PCIe", "A100 PCIe", 80, 1.79, 1.19, "high", 8),
    ("NVIDIA A100-SXM4-80GB", "A100 SXM", 80, 1.79, 1.39, "medium", 8),
    ("NVIDIA A40", "A40", 48, 0.44, None, "high", 10),
    ("NVIDIA L4", "L4", 24, 0.39, None, "high", 8),
    ("NVIDIA L40", "L40", 48, 0.99, None, "high", 8),
    ("NVIDIA L40S", "L40S", 48, 0.86, 0.79, "low", 8),
    ("NVIDIA H100 PCIe", "H100 PCIe", 80, 2.89, 1.99, "low", 8),
    ("NVIDIA H100 80GB HBM3", "H100 SXM", 80, 3.99, 2.69, "none", 8),
    ("NVIDIA H100 NVL", "H100 NVL", 94, 2.79, None, "low", 4),
    ("NVIDIA H200", "H200 SXM", 141, 4.39, None, "medium", 8),
    ("NVIDIA GeForce RTX 3090", "RTX 3090", 24, 0.46, 0.22, "high", 8),
    ("NVIDIA GeForce RTX 3090 Ti", "RTX 3090 Ti", 24, 0.48, 0.27, "high", 8),
    ("NVIDIA GeForce RTX 4090", "RTX 4090", 24, 0.69, 0.34, "high", 8),
    ("NVIDIA RTX A6000", "RTX A6000", 48, 0.49, 0.33, "high", 8),
    ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", 48, 0.77, 0.74, "high", 8),
    ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000", 96, 1.79, None, "high", 8),
    ("AMD Instinct MI300X OAM", "MI300X", 192, 2.49, None, "low", 8),
)


def catalogue(cloud: CloudName = "secure") -> list[Gpu]:
    return [
        Gpu(
            id=gpu_id,
            name=name,
            memory_gb=memory,
            cloud=cloud,
            price_usd_per_h=secure if cloud == "secure" else community,
            most=most,
            stock=stock,
            stock_by_data_center={"US-KS-2": stock, "EU-RO-1": "low"} if stock != "none" else {},
        )
        for gpu_id, name, memory, secure, community, stock, most in KINDS
        if (secure if cloud == "secure" else community) is not None
    ]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("A100-80GB", ["A100 PCIe", "A100 SXM"]),
        ("A100", ["A100 PCIe", "A100 SXM"]),
        ("A100-SXM", ["A100 SXM"]),
        ("A100-SXM4-80GB", ["A100 SXM"]),
        ("A100-40GB", []),
        ("H100-80GB", ["H100 PCIe", "H100 SXM"]),
        ("H100", ["H100 PCIe", "H100 SXM", "H100 NVL"]),
        ("H100-SXM", ["H100 SXM"]),
        ("H100 PCIe", ["H100 PCIe"]),
        ("H100-NVL", ["H100 NVL"]),
        ("H200", ["H200 SXM"]),
        ("A40", ["A40"]),
        ("L4", ["L4"]),
        ("L40", ["L40"]),
        ("l40s", ["L40S"]),
        ("RTX3090", ["RTX 3090"]),
        ("3090", ["RTX 3090"]),
        ("RTX3090Ti", ["RTX 3090 Ti"]),
        ("RTX-4090", ["RTX 4090"]),
        ("GeForce RTX 4090", ["RTX 4090"]),
        ("RTXA6000", ["RTX A6000"]),
        ("A6000", ["RTX A6000"]),
        ("RTX6000-Ada", ["RTX 6000 Ada"]),
        ("NVIDIA A100 80GB PCIe", ["A100 PCIe"]),
        ("nvidia geforce rtx 3090 ti", ["RTX 3090 Ti"]),
        ("MI300X", ["MI300X"]),
        ("V100", []),
        ("NVIDIA", [name for _, name, *_ in KINDS if name not in ("MI300X", "RTX 3090 Ti", "RTX 6000 Ada")]),
    ],
)
def test_which_gpus_a_name_means(wanted: str, names: list[str]) -> None:
    assert [gpu.name for gpu in matching(wanted, catalogue())] == names


def test_people_read_the_memory_with_the_name() -> None:
    by_name = {gpu.name: gpu for gpu in catalogue()}
    assert full_name(by_name["A100 PCIe"]) == "A100 PCIe 80GB"


def offers(only_region: str | None = None, **resources: Any) -> list[Offer]:
    entries = entries_of(Resources.model_validate(resources), only_region=only_region)
    catalogues: Catalogues = {question: catalogue(question.cloud) for question in questions_of(entries)}
    return offers_of(entries, catalogues, "runpod")


def shown(found: Sequence[Offer]) -> list[tuple[str | None, str | None, float | None]]:
    return [(offer.accelerator, offer.cloud, offer.price_usd_per_h) for offer in found]


def test_within_an_entry_the_cheapest_comes_first_and_what_has_no_stock_last() -> None:
    assert shown(offers(accelerators="H100:2")) == [
        ("H100 PCIe 80GB", "community", 3.98),
        ("H100 NVL 94GB", "secure", 5.58),
        ("H100 PCIe 80GB", "secure", 5.78),
        ("H100 SXM 80GB", "community", 5.38),
        ("H100 SXM 80GB", "secure", 7.98),
    ]


def test_the_recipes_own_entry_comes_first_then_its_fallbacks_in_order() -> None:
    found = offers(
        accelerators="A100-80GB:2", any_of=[{"accelerators": "H100-80GB:2"}, {"accelerators": "A40:4"}], cloud="secure"
    )
    assert [(offer.id, offer.count) for offer in found] == [
        ("NVIDIA A100 80GB PCIe", 2),  # the same price as the next, and more stock
        ("NVIDIA A100-SXM4-80GB", 2),
        ("NVIDIA H100 PCIe", 2),
        ("NVIDIA H100 80GB HBM3", 2),
        ("NVIDIA A40", 4),
    ]


def test_an_offer_says_everything_that_is_known() -> None:
    (offer,) = offers(accelerators="A40:2", cloud="secure")
    assert offer == Offer(
        provider="runpod",
        id="NVIDIA A40",
        accelerator="A40 48GB",
        count=2,
        memory_gib=48,
        price_usd_per_h=0.88,
        region=None,
        stock="high",
        cloud="secure",
        spot=False,
        disk_gib=20e9 / 2**30,
        storage_usd_per_h=pytest.approx(20 * 0.10 / 730, rel=1e-3),
        storage_basis="20 GB at RunPod's prices of 2026-11-09, assumed",
    )


def test_a_fallback_may_have_its_own_cloud_and_region() -> None:
    found = offers(
        accelerators="A100-80GB:1",
        cloud="secure",
        regions=["US-KS-2"],
        any_of=[{"cloud": "community", "regions": ["EU-RO-1"]}],
    )
    assert {(offer.cloud, offer.region) for offer in found} == {("secure", "US-KS-2"), ("community", "EU-RO-1")}


def test_regions_are_data_centres_or_parts_of_the_world() -> None:
    def places(*regions: str) -> list[tuple[str | None, str | None]]:
        found = offers(accelerators="A40:1", cloud="secure", regions=list(regions))
        return [(offer.region, offer.stock) for offer in found]

    assert places("US-KS-2") == [("US-KS-2", "high")]
    assert places("US") == [("US-KS-2", "high")]
    assert places("EU", "us") == [("US-KS-2", "high"), ("EU-RO-1", "low")]
    assert places("EU-RO-1", "CA-MTL-1") == [("EU-RO-1", "low"), ("CA-MTL-1", "none")]


def test_a_network_volume_binds_to_its_data_centre() -> None:
    assert [offer.region for offer in offers("EU-RO-1", accelerators="A40:1")] == ["EU-RO-1"]
    with pytest.raises(NoMachine, match="network volume lies in EU-RO-1"):
        offers("EU-RO-1", accelerators="A40:1", regions=["US"])


def test_no_more_gpus_than_one_pod_can_have() -> None:
    with pytest.raises(NoMachine, match="no pod with 9 × L4; at most 8") as caught:
        offers(accelerators="L4:9")
    assert caught.value.advice == "write accelerators: L4:8"
    assert [offer.id for offer in offers(accelerators="L4:9", any_of=[{"accelerators": "A40:1"}])] == ["NVIDIA A40"]


@pytest.mark.parametrize(
    ("resources", "message", "advice"),
    [
        ({"accelerators": "RTX3099"}, "RunPod offers no RTX3099", "did you mean RTX 3090?"),
        ({"accelerators": "A40", "cloud": "community"}, "no A40 in its community cloud", ""),
        ({"accelerators": "A40", "regions": ["MARS"]}, "no A40 in MARS", "EU-RO-1, US-KS-2"),
        ({}, "names no GPU", "accelerators: A40:1"),
        ({"accelerators": "A40", "use_spot": True}, "no spot machines", "api: graphql"),
    ],
)
def test_what_cannot_be_had_is_said_with_a_way_out(resources: Any, message: str, advice: str) -> None:
    with pytest.raises(NoMachine, match=message) as caught:
        offers(**resources)
    assert advice in caught.value.advice


def test_a_fallback_that_nobody_offers_does_not_spoil_the_others() -> None:
    found = offers(accelerators="V100:1", any_of=[{"accelerators": "A40:1"}], cloud="secure")
    assert [offer.id for offer in found] == ["NVIDIA A40"]


def test_spot_is_a_wish_of_its_own() -> None:
    found = offers(accelerators="A40:1", use_spot=True, api="graphql", any_of=[{"use_spot": False}])
    assert [offer.spot for offer in found] == [True, False]


@pytest.mark.parametrize(
    ("resources", "gb"),
    [
        ({}, 20),
        ({"disk_size": "50GB"}, 50),
        ({"volumes": [{"path": "/workspace", "size": "200GB"}]}, 220),
        ({"volumes": [{"path": "/workspace", "size": "1GB"}]}, 30),
        ({"volumes": [{"path": "/workspace", "name": "models"}]}, 20),
    ],
)
def test_the_disks_that_end_with_the_pod_have_their_price(resources: dict[str, Any], gb: int) -> None:
    """A network volume costs the same without the run."""
    wanted = Resources(provisioner="runpod", accelerators="A40:1", **resources)
    entries = entries_of(wanted)
    (offer,) = offers_of(entries, {question: catalogue() for question in questions_of(entries)}, "runpod")[:1]
    assert offer.storage_usd_per_h == pytest.approx(gb * 0.10 / 730, abs=1e-6)
    assert offer.storage_basis.startswith(f"{gb} GB")
    assert offer.price_usd_per_h is not None
    assert offer.usd_per_h == offer.price_usd_per_h + offer.storage_usd_per_h

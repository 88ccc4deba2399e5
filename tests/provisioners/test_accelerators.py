"""The table of accelerators: complete, plausible, and found by every name that people and providers use."""

from __future__ import annotations

import pytest

from provisioners.accelerators import Accelerator, all_known, find, from_label
from provisioners.rehearsal.catalogue import GPUS


@pytest.mark.parametrize("one", all_known(), ids=lambda one: one.name)
def test_a_row_is_plausible(one: Accelerator) -> None:
    low, high = one.usable_range_gib
    assert low <= one.usable_gib <= high
    assert 0.88 * one.label_gb <= one.usable_gib <= one.label_gb + 0.1, "drivers give a little less than the label"
    assert one.bandwidth_gb_s > 100
    assert one.tflops["float32"] > 0
    assert one.sources, "each row says where it comes from"
    assert one.compute_capability is not None or one.vendor == "amd"
    if one.compute_capability and one.compute_capability >= (8, 0):
        assert "bfloat16" in one.tflops
    else:
        assert "bfloat16" not in one.tflops or one.vendor == "amd"
    assert ("float8" in one.tflops) == (one.vendor == "amd" and one.family != "cdna2") or one.vendor == "nvidia"


def test_names_are_unique() -> None:
    names = [one.name for one in all_known()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "memory_gb", "found"),
    [
        ("A100-80GB", None, "A100-80GB"),
        ("A100 PCIe 80GB", 80, "A100-80GB"),
        ("NVIDIA A100-SXM4-80GB", 80, "A100-80GB-SXM"),
        ("A100", 40, "A100-40GB"),
        ("A100", 80, "A100-80GB"),
        ("A40-48GB", None, "A40"),
        ("RTX3090-24GB", None, "RTX3090"),
        ("NVIDIA GeForce RTX 3090 Ti", None, "RTX3090Ti"),
        ("rtx 4090", None, "RTX4090"),
        ("3090", None, "RTX3090"),
        ("H100 80GB HBM3", 80, "H100-SXM"),
        ("H100 NVL", None, "H100-NVL"),
        ("Tesla T4", 16, "T4"),
        ("T4", None, "T4"),
        ("L4", None, "L4"),
        ("L40S-48GB", None, "L40S"),
        ("V100-32GB", None, "V100-32GB"),
        ("RTX A6000", None, "RTXA6000"),
        ("RTX 6000 Ada", None, "RTX6000-Ada"),
        ("A10", None, "A10"),
        ("A10G", None, "A10G"),
        ("B200", None, "B200"),
        ("MI300X", None, "MI300X"),
        ("GTX 1080", None, None),
        ("A100-20GB", None, None),
        ("", None, None),
    ],
)
def test_an_accelerator_is_found_by_its_names(name: str, memory_gb: float | None, found: str | None) -> None:
    one = find(name, memory_gb=memory_gb)
    assert (one.name if one else None) == found


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.id)
def test_what_runpod_rents_is_in_the_table(gpu: object) -> None:
    one = find(gpu.id)  # type: ignore[attr-defined]
    assert one is not None
    assert abs(one.label_gb - gpu.memory_gb) <= 1  # type: ignore[attr-defined]


def test_what_is_not_in_the_table_is_assumed_from_its_label() -> None:
    one = from_label("X900", 64)
    assert one.assumed
    assert 60 < one.usable_gib < 64

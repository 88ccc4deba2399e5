"""What a machine has against what a recipe asks for."""

from __future__ import annotations

from typing import Any

import pytest

from provisioners.hardware import Gpu, Hardware, is_a, match, no_match, shortage
from recipes.spec import Resources

HERE = Hardware(cpus=8, memory_bytes=64 * 10**9, disk_free_bytes=100 * 10**9)
A100 = Gpu("NVIDIA A100 80GB PCIe", 80.0)
A100_SXM = Gpu("NVIDIA A100-SXM4-40GB", 40.0)
A40 = Gpu("NVIDIA A40", 46068 / 1024)
L40S = Gpu("NVIDIA L40S", 46068 / 1024)
H100 = Gpu("NVIDIA H100 80GB HBM3", 81559 / 1024)
RTX_3090 = Gpu("NVIDIA GeForce RTX 3090", 24.0)


def resources(**given: Any) -> Resources:
    return Resources.model_validate(given)


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        (A100, "A100"),
        (A100, "A100-80GB"),
        (A100, "a100 80gb pcie"),
        (A100_SXM, "A100-40GB"),
        (A100_SXM, "A100-SXM"),
        (A40, "A40"),
        (A40, "A40-48GB"),
        (H100, "H100-80GB"),
        (H100, "H100-SXM"),
        (RTX_3090, "RTX3090"),
        (RTX_3090, "RTX 3090"),
        (RTX_3090, "RTX3090-24GB"),
    ],
)
def test_a_gpu_is_what_people_call_it(gpu: Gpu, name: str) -> None:
    assert is_a(gpu, name)


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        (L40S, "L4"),
        (L40S, "L40"),
        (Gpu("NVIDIA RTX A4000", 16.0), "A40"),
        (A100, "A100-40GB"),
        (A100, "A100-SXM"),
        (A40, "A40-24GB"),
        (A100, "H100"),
    ],
)
def test_a_gpu_is_no_other_with_a_similar_name(gpu: Gpu, name: str) -> None:
    assert not is_a(gpu, name)


def test_the_first_alternative_that_is_there_in_full_is_taken() -> None:
    asked = resources(accelerators="H100:2", any_of=[{"accelerators": "A100:4"}, {"accelerators": "A100:1"}])
    found = match(asked, [H100, A100, A100_SXM])
    assert found is not None
    assert (str(found.asked), found.place, found.memory_gib) == ("A100:1", 2, 40.0)


def test_what_is_not_there_is_named_beside_what_is() -> None:
    asked = resources(accelerators="H100:2", any_of=[{"accelerators": "A100:4"}])
    assert match(asked, [A40]) is None
    assert no_match(asked, [A40]) == "this machine has no H100:2 or A100:4; accelerators found: NVIDIA A40"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"cpus": "16+"}, "resources.cpus asks for 16; this machine has 8"),
        ({"memory": "128GB"}, "resources.memory asks for 128GB; this machine has 59.6 GiB"),
        ({"disk_size": "200GB"}, "resources.disk_size asks for 200GB; this machine has 93.1 GiB free"),
        ({"cpus": 8, "memory": "64GB", "disk_size": "100GB"}, None),
    ],
)
def test_a_shortage_is_said_with_its_numbers(asked: dict[str, Any], words: str | None) -> None:
    assert shortage(resources(**asked), HERE) == words

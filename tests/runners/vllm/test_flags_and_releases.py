"""Flags under every spelling, releases under every name, defaults by release."""

from __future__ import annotations

from typing import Any

import pytest

from recipes.spec import Engine as EngineSpec
from runners.engines.vllm import PLUGIN
from runners.engines.vllm.flags import read_flags, whole
from runners.engines.vllm.releases import Release, release
from tests.runners.vllm.building import assess, case, model


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.2.1.post1", (0, 2, 1)),
        ("v0.8.5", (0, 8, 5)),
        ("0.11.0rc2", (0, 11, 0)),
        ("0.33", (0, 33, 0)),
        ("0.32.0+cpu", (0, 32, 0)),
        ("main", None),
    ],
)
def test_releases(text: str, number: tuple[int, int, int] | None) -> None:
    assert release(text) == (Release(number) if number else None)


@pytest.mark.parametrize("version", ["1.4.0", "nightly", "0.1.7"])
def test_an_unknown_release_is_assumed_and_said(version: str) -> None:
    assessment = assess(version=version)
    assert [one.code for one in assessment.findings if one.level == "warn"] == ["assumption"]
    assert assessment.memory is not None


@pytest.mark.parametrize(
    ("version", "cuda"),
    [("0.2.1", "11.8"), ("0.5.4", "12.1"), ("0.8.5", "12.4"), ("0.12.0", "12.8"), ("0.33.0", "13.0"), ("main", None)],
)
def test_the_cuda_that_a_release_is_built_for(version: str, cuda: str | None) -> None:
    assert PLUGIN.cuda(version) == cuda


@pytest.mark.parametrize(
    ("value", "number"),
    [(4096, 4096), ("4096", 4096), ("32k", 32000), ("32K", 32768), ("25.6k", 25600), ("1M", 2**20), (True, None)],
)
def test_whole_numbers_are_read_as_vllm_reads_them(value: object, number: int | None) -> None:
    assert whole(value) == number


@pytest.mark.parametrize(
    "args",
    [
        {"tensor_parallel_size": 4, "quantization": "fp8", "compilation_config": {"cudagraph_mode": "NONE"}},
        {"tensor-parallel-size": "4", "q": "FP8", "compilation-config.cudagraph_mode": "NONE"},
        {"tp": 4, "--quantization": "fp8", "compilation_config": '{"cudagraph_mode": "NONE"}'},
    ],
)
def test_spellings(args: dict[str, Any]) -> None:
    flags = read_flags(EngineSpec(name="vllm", args=args))
    assert (flags.tensor_parallel_size, flags.quantization) == (4, "fp8")
    assert flags.compilation == {"cudagraph_mode": "NONE"}


def test_negated_flags_and_old_forms() -> None:
    args = {"no-enable-chunked-prefill": True, "limit_mm_per_prompt": "image=2,video=0", "max_model_len": "auto"}
    flags = read_flags(EngineSpec(name="vllm", args=args))
    assert flags.enable_chunked_prefill is False
    assert flags.limit_mm_per_prompt == {"image": 2, "video": 0}
    assert flags.max_model_len == -1


@pytest.mark.parametrize(
    ("version", "gpu", "slots"),
    [
        ("0.2.1", "A100-80GB", 256),
        ("0.8.1", "A100-80GB", 1024),
        ("0.8.5", "A100-80GB", 1024),
        ("0.10.0", "A100-80GB", 256),
        ("0.10.0", "H100-SXM", 1024),
        ("0.10.0", "L40S", 256),
        ("0.33.0", "RTX4090", 256),
    ],
)
def test_max_num_seqs_by_release_and_memory(version: str, gpu: str, slots: int) -> None:
    memory = assess(version=version, gpu=gpu).memory
    assert memory is not None
    assert memory.slots == slots


@pytest.mark.parametrize(("version", "share"), [("0.19.0", 0.9), ("0.20.0", 0.92)])
def test_the_default_utilization(version: str, share: float) -> None:
    memory = assess(version=version).memory
    assert memory is not None
    assert memory.budget_gib_per_gpu / memory.usable_gib_per_gpu == pytest.approx(share)


def test_every_code_that_is_emitted_is_explained() -> None:
    for code in ("tensor-parallel", "weights", "kv-cache", "max-model-len", "dtype", "quantization"):
        assert code in PLUGIN.explains
    assert case(model()).spec.name == PLUGIN.name


@pytest.mark.parametrize(
    ("version", "args", "quote"),
    [
        ("0.32.0", {"swap_space": 4}, "unrecognized arguments: --swap-space 4"),
        ("0.17.0", {"swap_space": 4}, None),
        ("0.9.2", {"kv_cache_memory_bytes": 2**30}, "unrecognized arguments: --kv-cache-memory-bytes 1073741824"),
        ("0.33.0", {"disable-log-requests": True}, "unrecognized arguments: --disable-log-requests"),
        ("0.33.0", {"a_flag_that_nobody_knows": 1}, None),
        ("0.33.0", {"tp": 2, "max_model_len": 4096, "enforce_eager": True, "chat_template": "x"}, None),
        ("0.2.1", {"max_model_len": 4096, "gpu_memory_utilization": 0.9}, None),
    ],
)
def test_flags_that_a_release_does_not_have(version: str, args: dict[str, Any], quote: str | None) -> None:
    found = [one.quote for one in assess(version=version, **args).findings if one.code == "flag"]
    assert found == ([quote] if quote else [])

"""Flags under every spelling, releases under every name, defaults by release."""

from __future__ import annotations

from typing import Any

import pytest

from recipes.spec import Engine as EngineSpec
from runners.engines.vllm import PLUGIN
from runners.engines.vllm.flags import read_flags, whole
from runners.engines.vllm.releases import Release, release
from tests.runners.vllm.building import assess, case, finding, model


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
        ("0.33.0", {"a_flag_that_nobody_knows": 1}, "unrecognized arguments: --a-flag-that-nobody-knows 1"),
        ("0.33.0", {"max_model": 4096, "O": 3, "no_enable_prefix_caching": True}, None),
        ("0.33.0", {"compilation_config.level": 3, "uds": "x"}, None),
        ("0.33.0", {"tp": 2, "max_model_len": 4096, "enforce_eager": True, "chat_template": "x"}, None),
        ("0.2.1", {"max_model_len": 4096, "gpu_memory_utilization": 0.9}, None),
    ],
)
def test_flags_that_a_release_does_not_have(version: str, args: dict[str, Any], quote: str | None) -> None:
    found = [one.quote for one in assess(version=version, **args).findings if one.code == "flag"]
    assert found == ([quote] if quote else [])


def test_a_flag_that_resembles_one_is_told_so() -> None:
    assert "did you mean enforce_eager?" in finding(assess(enforce_eagerly=True), "flag").suggestion


def test_of_a_release_that_nobody_knows_flags_are_only_doubted() -> None:
    found = finding(assess(version="99.0.0", a_flag_that_nobody_knows=1), "flag")
    assert found.level == "warn"


VALUES: list[tuple[str, dict[str, Any], str | None]] = [
    ("0.33.0", {"dtype": "banana"}, "argument --dtype: invalid choice: 'banana' (choose from"),
    ("0.2.1", {"dtype": "bf16"}, "argument --dtype: invalid choice: 'bf16'"),
    ("0.33.0", {"dtype": "half"}, None),
    ("0.33.0", {"gpu_memory_utilization": "abc"}, "argument --gpu-memory-utilization: invalid float value: 'abc'"),
    ("0.33.0", {"gpu_memory_utilization": "0.5"}, None),
    ("0.33.0", {"gpu_memory_utilization": 1.5}, "Input should be less than or equal to 1"),
    ("0.8.0", {"gpu_memory_utilization": 1.5}, "GPU memory utilization must be less than 1.0. Got 1.5."),
    ("0.33.0", {"gpu_memory_utilization": 0}, "Input should be greater than 0"),
    ("0.33.0", {"max_num_seqs": 0}, "Input should be greater than or equal to 1"),
    ("0.6.0", {"max_num_seqs": 0}, "integer division or modulo by zero"),
    ("0.33.0", {"max_num_seqs": 4.0}, "argument --max-num-seqs: invalid int value: '4.0'"),
    ("0.33.0", {"max_num_seqs": True}, "argument --max-num-seqs: expected one argument"),
    ("0.33.0", {"max_num_seqs": "8"}, None),
    ("0.33.0", {"max_model_len": "abc"}, "argument --max-model-len: invalid human_readable_int_or_auto value: 'abc'"),
    ("0.33.0", {"max_model_len": "4k", "max_num_batched_tokens": "8K"}, None),
    ("0.33.0", {"max_model_len": "auto"}, None),
    ("0.11.0", {"max_model_len": "auto"}, "argument --max-model-len: invalid human_readable_int value: 'auto'"),
    ("0.8.0", {"max_model_len": "4k"}, "argument --max-model-len: invalid int value: '4k'"),
    ("0.9.2", {"max_num_batched_tokens": "8K"}, "argument --max-num-batched-tokens: invalid int value: '8K'"),
    ("0.33.0", {"block_size": 17}, "No valid attention backend found for cuda with"),
    ("0.33.0", {"block_size": 48}, None),
    ("0.11.0", {"block_size": 17}, "argument --block-size: invalid choice: 17 (choose from"),
    ("0.6.0", {"block_size": 128}, "argument --block-size: invalid choice: 128 (choose from"),
    ("0.4.0", {"block_size": 128}, None),  # nobody read this release: one of its neighbours takes it
    ("0.33.0", {"kv_cache_dtype": "banana"}, "argument --kv-cache-dtype: invalid choice: 'banana'"),
    ("0.33.0", {"kv_cache_dtype": "turboquant_of_tomorrow"}, None),
    ("0.8.0", {"kv_cache_dtype": "bfloat16"}, "argument --kv-cache-dtype: invalid choice: 'bfloat16'"),
    ("0.8.0", {"kv_cache_dtype": "fp8_e5m2"}, None),
    (
        "0.8.4",
        {"max_num_batched_tokens": 100},
        "max_num_batched_tokens (100) must be greater than or equal to max_num_seqs (1024)",
    ),
    (
        "0.6.0",
        {"max_num_batched_tokens": 100},
        "max_num_batched_tokens (100) is smaller than max_model_len (8192).",
    ),
    ("0.33.0", {"max_num_batched_tokens": 100}, None),  # and max_num_seqs follows
]


@pytest.mark.parametrize(("version", "args", "quote"), VALUES)
def test_values_that_a_release_does_not_take(version: str, args: dict[str, Any], quote: str | None) -> None:
    env = {"VLLM_USE_V1": "0"} if version == "0.8.0" else {}
    found = [one for one in assess(version=version, env=env, **args).findings if one.level == "block"]
    assert [one.path for one in found] == [f"engine.args.{next(iter(args))}"] * (quote is not None)
    assert all(one.quote.startswith(quote or "-") for one in found)


def test_with_values_that_are_none_memory_is_not_told() -> None:
    assert assess(version="0.33.0", gpu_memory_utilization="abc").memory is None


def test_blocks_of_any_size_are_left_to_the_cpu() -> None:
    assert not any(
        one.path.endswith("block_size") for one in assess(gpu=None, version="0.33.0", block_size=17).findings
    )


@pytest.mark.parametrize(
    ("version", "words"), [("banana", "is no release number"), ("99.0.0", "is not among the releases")]
)
def test_what_is_no_known_release_is_said(version: str, words: str) -> None:
    found = finding(assess(version=version), "assumption")
    assert words in found.message
    assert (found.level, found.path) == ("warn", "engine.version")

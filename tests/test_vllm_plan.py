"""What recipe says of vLLM before it starts, against vLLM itself on the CPU. The first run installs it."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runners.engine import flags
from runners.engines.vllm import PLUGIN
from tests.conftest import Command
from tests.runners.vllm.building import assess, blocks, model
from tests.runners.vllm.test_cache import GEMMA3, MISTRAL, QWEN2, SMALL

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recipe" / "engines"
FREE_GB = shutil.disk_usage(Path.home()).free / 1e9
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not (sys.platform == "linux" and platform.machine() == "x86_64"),
        reason="vLLM's CPU build is for Linux on x86-64",
    ),
    pytest.mark.skipif(FREE_GB < 6, reason="vLLM needs 6 GB of disk"),
]


def installed() -> Path | None:
    folders = CACHE.glob(f"vllm-{PLUGIN.default_version}-*")
    return next((path / "bin" / "python" for path in folders if (path / ".complete").exists()), None)


@pytest.fixture
def python(recipe: Command) -> Path:
    """The Python of vLLM's own environment."""
    if installed() is None:
        recipe("up", "local-vllm-smoke", seconds=1400)
    found = installed()
    assert found is not None
    return found


def ask(python: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    script = HERE / "runners" / "vllm" / "in_vllm.py"
    ended = subprocess.run(
        [python, script], input=json.dumps(cases), capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return list(json.loads(ended.stdout))


def case(config: dict[str, Any], size: int, length: int) -> dict[str, Any]:
    return {"config": config, "tensor_parallel_size": size, "max_model_len": length}


def planned(config: dict[str, Any], size: int, length: int) -> Any:
    env = {"VLLM_CPU_KVCACHE_SPACE": "1"}
    facts = model(config)
    return assess(
        facts,
        None,
        version=PLUGIN.default_version or "",
        env=env,
        ram_gib=16,
        tensor_parallel_size=size,
        max_model_len=length,
    )


def test_every_division_of_heads_is_judged_as_by_vllm(python: Path) -> None:
    """Heads 1 to 16 and their groups over 1 to 8 ranks, with a vocabulary that divides and one that does not."""
    cases = [
        case(
            {
                **SMALL,
                "hidden_size": 16 * heads,
                "num_attention_heads": heads,
                "num_key_value_heads": grouped,
                "head_dim": 16,
                "num_hidden_layers": 1,
                "intermediate_size": inner,
                "vocab_size": vocabulary,
            },
            size,
            256,
        )
        for heads in range(1, 17)
        for size in range(1, 9)
        for grouped in range(1, heads + 1)
        if heads % grouped == 0
        for inner, vocabulary in ((840, 6720), (96, 512))
    ]
    answers = ask(python, cases)
    assert len(cases) == 800
    for given, answer in zip(cases, answers, strict=True):
        refusal = answer.get("refusal")
        found = blocks(planned(given["config"], given["tensor_parallel_size"], 256))
        assert bool(found) == (refusal is not None), (given, refusal)
        if refusal:  # vLLM's own sentence, word for word; a bare assertion has none.
            assert found[0].quote in refusal or found[0].quote.startswith("assert "), (given, refusal)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_cache_of_several_architectures_has_the_size_that_vllm_gives_it(python: Path, size: int) -> None:
    asked = [(config, length) for config in (SMALL, QWEN2, MISTRAL, GEMMA3) for length in (1000, 2048, 4096)]
    answers = ask(python, [case(config, size, length) for config, length in asked])
    for (config, length), answer in zip(asked, answers, strict=True):
        memory = planned(config, size, length).memory
        assert memory.kv_tokens == answer["kv_tokens"], (config["model_type"], length)


def test_a_length_that_is_too_great_is_refused_in_the_same_words(python: Path) -> None:
    (answer,) = ask(python, [case(SMALL, 1, 99999)])
    (found,) = blocks(planned(SMALL, 1, 99999))
    assert found.quote in answer["refusal"]


ARGS: list[dict[str, Any]] = [
    {},
    {"dtype": "banana"},
    {"dtype": "half"},
    {"gpu_memory_utilization": "abc"},
    {"gpu_memory_utilization": 1.5},
    {"gpu_memory_utilization": 0},
    {"max_num_seqs": 0},
    {"max_num_seqs": 4.0},
    {"max_num_batched_tokens": 0},
    {"max_num_batched_tokens": "4K"},
    {"max_num_batched_tokens": 100},
    {"max_num_batched_tokens": 100, "max_num_seqs": 101},
    {"max_num_batched_tokens": 100, "enable_chunked_prefill": False},
    {"max_model_len": "1k"},
    {"max_model_len": "abc"},
    {"max_model_len": "auto"},
    {"kv_cache_dtype": "banana"},
    {"block_size": "x"},
    {"quantization": "nonsense"},
    {"quantization": "awq"},
    {"quantization": "auto_gptq"},
    {"quantization": "moe_wna16"},
    {"quantization": "compressed-tensors"},
    {"quantization": "torchao"},
    {"quantization": "fp8"},
    {"quantization": "fp8_per_tensor"},
    {"quantization": "mxfp4"},
    {"quantization": "experts_int8"},
    {"quantization": "fbgemm_fp8"},
    {"quantization": "bitsandbytes"},
    {"a_flag_that_nobody_knows": 1},
    {"swap_space": 4},
    {"max_model": 512},
    {"no_enable_prefix_caching": True},
]


def test_flags_are_taken_and_refused_as_by_vllm(python: Path) -> None:
    answers = ask(python, [{"config": SMALL, "argv": flags(args)} for args in ARGS])
    for args, answer in zip(ARGS, answers, strict=True):
        refusal = re.sub(r"/--?[\w-]+(?=[:/])", "", answer.get("refusal", ""))  # other names of the same flag
        found = blocks(assess(model(SMALL), None, version=PLUGIN.default_version or "", ram_gib=16, **args))
        assert bool(found) == bool(refusal), (args, refusal)
        if found:  # A value behind a flag that it does not know is, to its parser, the name of a model.
            quote = found[0].quote
            assert (quote.rpartition(" ")[0] if "unrecognized" in quote else quote) in refusal, (args, refusal)


def test_a_server_on_two_ranks_logs_what_was_planned(python: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(GEMMA3))
    log = tmp_path / "engine.log"
    argv = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", tmp_path, "--skip-tokenizer-init"]
    argv += ["--load-format", "dummy", "--enforce-eager", "--max-model-len", "3000", "--tensor-parallel-size", "2"]
    env = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "0|1", "VLLM_NO_USAGE_STATS": "1"}
    env |= {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_HOST_IP": "127.0.0.1"} | env
    with log.open("w") as file:
        server = subprocess.Popen(
            [*map(str, argv), "--host", "127.0.0.1", "--port", "0"],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 300
        while not (found := re.search(r"KV cache size: ([\d,]+) tokens", log.read_text())):
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.5)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert planned(GEMMA3, 2, 3000).memory.kv_tokens == int(found[1].replace(",", ""))

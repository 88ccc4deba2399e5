"""The whole way on the real `transformers serve`, on the CPU. The first run on a machine installs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import time
import urllib.request
from math import prod
from pathlib import Path
from typing import Any

import psutil
import pytest

from provisioners.accelerators import Machine
from recipes.catalogue import builtin_model
from recipes.spec import Engine as EngineSpec
from runners import registry
from runners.case import Case, Demand
from runners.engine import LaunchRequest
from runners.modelfacts.read import facts_in
from tests.conftest import Command
from tests.runners.engines.environments import python_of

NEEDS_GB = 3
pytestmark = [
    pytest.mark.vllm,  # as slow as vLLM to install: it brings PyTorch
    pytest.mark.timeout(1200),
    pytest.mark.skipif(shutil.disk_usage(Path.home()).free < NEEDS_GB * 1e9, reason=f"it needs {NEEDS_GB} GB of disk"),
]
ON_TRANSFORMERS = (
    "engine.name=transformers",
    *(f"engine.args.{name}=null" for name in ("ctx_size", "parallel", "threads")),
)


def settings(*more: str) -> list[str]:
    return [part for setting in (*ON_TRANSFORMERS, *more) for part in ("--set", setting)]


def result_of(recipe: Command) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((recipe.run_folder() / "result.json").read_text())
    return result


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_the_whole_way_on_transformers(recipe: Command, api: str) -> None:
    ended = recipe("up", "local-smoke", *settings(f"workload.api={api}", "workload.seed=1"), seconds=1100)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = result_of(recipe)
    assert result["outcome"]["status"] == "completed"
    assert result["release"]["state"] == "gone"
    assert result["documents"] == {"done": 3, "total": 3, "unit": "document"}
    assert result["requests"]["failed"] == 0
    rows = [json.loads(line) for line in (recipe.run_folder() / "requests.jsonl").read_text().splitlines()]
    assert all(row["output_tokens"] > 0 and row["prompt_tokens"] > 0 and row["ttft_s"] > 0 for row in rows)
    for kind in ("prompt_tokens", "output_tokens"):
        assert result["throughput"][kind] == sum(row[kind] for row in rows)
    assert "lighthouse" in ended.stdout


def test_a_paged_cache_that_is_bounded_serves_too(recipe: Command) -> None:
    batching = ("engine.args.continuous_batching=true", "engine.args.cb_num_blocks=64", "engine.args.cb_block_size=32")
    ended = recipe("up", "local-smoke", *settings(*batching, "engine.args.cb_max_batch_tokens=512"), seconds=1100)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert result_of(recipe)["documents"] == {"done": 3, "total": 3, "unit": "document"}


def test_a_flag_that_it_does_not_know_ends_with_its_own_words(recipe: Command) -> None:
    ended = recipe("up", "local-smoke", *settings("engine.args.swap_space=4"), seconds=1100)
    assert ended.returncode == 6, ended.stdout + ended.stderr
    assert "No such option '--swap-space'." in ended.stdout
    assert result_of(recipe)["outcome"]["phase"] == "launch"


def test_a_port_without_a_key_is_never_opened_to_the_internet(recipe: Command) -> None:
    ended = recipe("plan", "local-smoke", *settings("engine.expose=true"))
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "asks for no key" in ended.stdout + ended.stderr


HIDDEN, INNER, LAYERS, HEADS, VOCABULARY = 1024, 4096, 16, 16, 32000
PROMPT = "word " * 1200
GIB = 2**30


def large_model(folder: Path) -> Path:
    """A folder of 0.6 GiB, all zeros, that takes no room on the disk; with the tokenizer of the model that ships."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(builtin_model("lead") / name, folder)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "rms_norm_eps": 1e-5,
        "vocab_size": VOCABULARY, "max_position_embeddings": 8192, "dtype": "bfloat16", "tie_word_embeddings": False,
        "rope_theta": 10000.0, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens": (VOCABULARY, HIDDEN), "lm_head": (VOCABULARY, HIDDEN), "model.norm": (HIDDEN,)}
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        shapes |= {f"{layer}.self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"}
        shapes |= {f"{layer}.mlp.{name}_proj": (INNER, HIDDEN) for name in ("gate", "up")}
        shapes |= {f"{layer}.mlp.down_proj": (HIDDEN, INNER)}
        shapes |= {f"{layer}.{name}_layernorm": (HIDDEN,) for name in ("input", "post_attention")}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * prod(shape)
        header[f"{name}.weight"] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder


def resident_gib(model: Path, spec: EngineSpec, log: Path) -> tuple[float, int]:
    """RAM of the server after a long prompt, and the prompt's tokens."""
    engine = registry.engine("transformers")
    request = LaunchRequest(
        spec=spec,
        python=python_of("transformers"),
        onhost=Path(),
        model_path=str(model),
        served_name="x",
        port="0",
        key="",
        accelerated=False,
    )
    launch = engine.launch(request)
    assert launch
    body = {"model": engine.served_name(str(model), "x"), "prompt": PROMPT, "max_tokens": 2, "temperature": 0}
    with log.open("wb") as file:
        process = subprocess.Popen(launch.argv, env={**os.environ, **launch.env}, stdout=file, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 600
        while not (url := re.search(r"Uvicorn running on (http://[\d.:]+) ", log.read_text())):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < end
            time.sleep(0.1)
        asked = urllib.request.Request(
            f"{url[1]}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=300) as answer:
            usage = json.load(answer)["usage"]
        return psutil.Process(process.pid).memory_info().rss / GIB, usage["prompt_tokens"]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("args", [{}, {"dtype": "float32"}])
def test_the_server_takes_the_ram_that_was_planned(tmp_path: Path, args: dict[str, Any]) -> None:
    model, spec = large_model(tmp_path / "model"), EngineSpec.model_validate({"name": "transformers", "args": args})
    found, tokens = resident_gib(model, spec, tmp_path / "engine.log")
    demand = Demand(longest_request_tokens=tokens, mean_request_tokens=tokens, concurrency=1)
    case = Case(spec=spec, version="", model=facts_in(model), machine=Machine(ram_gib=24), demand=demand)
    memory = registry.engine("transformers").assess(case).memory
    assert memory
    used = memory.weights_gib_per_gpu + memory.activation_gib_per_gpu + memory.other_gib_per_gpu
    assert used + tokens * memory.kv_bytes_per_token / GIB == pytest.approx(found, rel=0.2)

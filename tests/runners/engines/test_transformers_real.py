"""The whole way on the real `transformers serve`, on the CPU. The first run on a machine installs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command

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
    assert result["documents"] == {"done": 3, "total": 3}
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
    assert result_of(recipe)["documents"] == {"done": 3, "total": 3}


def test_a_flag_that_it_does_not_know_ends_with_its_own_words(recipe: Command) -> None:
    ended = recipe("up", "local-smoke", *settings("engine.args.swap_space=4"), seconds=1100)
    assert ended.returncode == 6, ended.stdout + ended.stderr
    assert "No such option '--swap-space'." in ended.stdout
    assert result_of(recipe)["outcome"]["phase"] == "launch"


def test_a_port_without_a_key_is_never_opened_to_the_internet(recipe: Command) -> None:
    ended = recipe("plan", "local-smoke", *settings("engine.expose=true"))
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "asks for no key" in ended.stdout + ended.stderr

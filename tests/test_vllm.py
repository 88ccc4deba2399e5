"""The same way on real vLLM on the CPU. The first run on a machine installs it."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import Command

TEXTS = Path(__file__).parents[1] / "recipes" / "texts"
NEEDS_GB = 6
FREE_GB = shutil.disk_usage(Path.home()).free / 1e9
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not (sys.platform == "linux" and platform.machine() == "x86_64"),
        reason="vLLM's CPU build is for Linux on x86-64",
    ),
    pytest.mark.skipif(FREE_GB < NEEDS_GB, reason=f"vLLM needs {NEEDS_GB} GB of disk"),
]


def test_the_whole_way_on_vllm(recipe: Command) -> None:
    # Long enough for several of its lines of averages, which come once a second.
    texts = [path.read_text() for path in sorted(TEXTS.glob("*.txt"))]
    (recipe.cwd / "long.txt").write_text("\n\n".join(texts * 16))
    inputs = f"workload.inputs=[long.txt, '{TEXTS}/*.txt']"
    ended = recipe("up", "local-vllm-smoke", "--set", inputs, seconds=1400)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    folder = recipe.run_folder()
    result = json.loads((folder / "result.json").read_text())
    assert result["release"]["state"] == "gone"
    assert result["documents"] == {"done": 4, "total": 4, "unit": "document"}
    requests = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    for kind in ("prompt_tokens", "output_tokens"):
        assert sum(row[kind] for row in requests) == result["throughput"][kind]
        assert result["throughput"]["engine_counters"][kind] == result["throughput"][kind]
    log_lines = [line for line in (folder / "engine.log").read_text().splitlines() if "Avg prompt throughput" in line]
    assert log_lines, "vLLM wrote its line of averages"
    assert {peak["source"] for peak in result["throughput"]["peak_at"]} == {"requests", "metrics", "log"}
    rows = [json.loads(line) for line in (folder / "telemetry.jsonl").read_text().splitlines()]
    samples = [row for row in rows if row["source"] == "engine"]
    assert samples
    assert all(sample["kv_usage"] is not None for sample in samples)


IMPOSSIBLE = [
    ("engine.args.max_model_len=99999", "max-model-len", "User-specified max_model_len (99999) is greater than"),
    (
        "engine.tensor_parallel_size=3",
        "tensor-parallel",
        "Total number of attention heads (5) must be divisible by tensor parallel size (3).",
    ),
    ("engine.args.swap_space=4", "flag", "unrecognized arguments: --swap-space"),
]


@pytest.mark.parametrize(("setting", "code", "cause"), IMPOSSIBLE)
def test_what_cannot_work_is_refused_in_the_engines_own_words(
    recipe: Command, setting: str, code: str, cause: str
) -> None:
    ended = recipe("plan", "local-vllm-smoke", "--set", setting, "--json")
    assert ended.returncode == 3, ended.stdout + ended.stderr
    (plan,) = json.loads(ended.stdout)["plans"]
    quotes = [finding.get("quote", "") for finding in plan["findings"] if finding["code"] == code]
    assert any(quote.startswith(cause) for quote in quotes), quotes


@pytest.mark.parametrize(("setting", "code", "cause"), IMPOSSIBLE)
def test_a_launch_that_cannot_work_ends_with_the_engines_own_words(
    recipe: Command, setting: str, code: str, cause: str
) -> None:
    ended = recipe("up", "local-vllm-smoke", "--set", setting, "--force", code, seconds=1400)
    assert ended.returncode == 6, ended.stdout + ended.stderr
    assert cause in ended.stdout
    assert "next " in ended.stdout
    result = json.loads((recipe.run_folder() / "result.json").read_text())
    assert (result["outcome"]["status"], result["outcome"]["phase"]) == ("failed", "launch")
    assert result["release"]["state"] == "gone"

"""What `recipe plan` of a 70B model costs: `python benchmarks/planning.py [--runs N]`.

The Hub and RunPod are emulated on loopback; the model has the shapes of Llama-2-70B in 15 files, of which only the
first kilobytes are there. Cold: how often the Hub is asked, and for how much. Warm: CPU seconds beside `hf --help`,
in turn, so that a noisy machine is noisy for both; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
sys.path.insert(0, str(ROOT))

from tests.emulators.configs import LLAMA_70B  # noqa: E402
from tests.emulators.hub import Beginning, Hub, hub_emulator  # noqa: E402
from tests.emulators.runpod import emulated  # noqa: E402

RECIPE, RIVAL = "recipe plan 2xA100-airoboros-70b", "hf --help"
REPO, SHARDS, WEIGHT_BYTES = "jondurbin/airoboros-l2-70b-3.1.2", 15, 137_953_296_384
GOAL_S, GOAL_REQUESTS, GOAL_BYTES = 0.2, 6, 1_000_000


def publish(hub: Hub) -> None:
    """The model, as far as a plan looks at it; its tokenizer is the small one that ships with recipe."""
    weights = {
        f"model-{i:05d}-of-{SHARDS:05d}.safetensors": Beginning(b"", WEIGHT_BYTES // SHARDS)
        for i in range(1, SHARDS + 1)
    }
    tokenizer = (ROOT / "recipes/models/lead/tokenizer.json").read_bytes()
    hub.push(REPO, {**weights, "config.json": json.dumps(LLAMA_70B).encode(), "tokenizer.json": tokenizer})


def cpu_seconds(command: str, env: dict[str, str]) -> float:
    """User and system time of one call, its children included."""
    program, *arguments = command.split()
    before = os.times()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([BIN / program, *arguments], **quiet, env=env, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder, hub_emulator() as hub, emulated(Path(folder)) as runpod:
        publish(hub)
        env = {**os.environ, **runpod.env, "HF_ENDPOINT": hub.url, "XDG_CACHE_HOME": folder, "RECIPE_HOME": folder}
        cpu_seconds(RECIPE, env)
        ranges = [request.range for request in hub.requests]
        print(f"cold    {len(hub.requests)} requests to the Hub, parts of files: {', '.join(filter(None, ranges))}")
        print(f"        goal: {GOAL_REQUESTS} at most, RunPod's catalogue included, none above {GOAL_BYTES:,} bytes")
        times: dict[str, list[float]] = {RECIPE: [], RIVAL: []}
        for _ in range(runs):
            for command, found in times.items():
                found.append(cpu_seconds(command, env))
    ours, theirs = (statistics.median(found) for found in times.values())
    print(
        f"warm    {RECIPE}: {ours:.3f} CPU s; {RIVAL}: {theirs:.3f}; difference {ours - theirs:+.3f}, goal {GOAL_S:+}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

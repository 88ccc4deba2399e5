"""Is the engine kept busy? `python benchmarks/busy.py [llamacpp] [vllm] [--documents N]`: real engines on the CPU.

`recipe up` with `concurrency: auto` summarises many documents with the small model that ships with recipe. From
telemetry.jsonl, once a second, and from the engine's own log (vLLM's line of averages) is told in what share of the
drive phase as many requests ran as the engine has slots, while work was left: until the last chunk was sent. Nobody
is compared with: the limit is 1, the goal 0.95.

vLLM counts what runs when those that a step ended have left, and before the next step takes others in: with answers of
a few tokens it is seldom seen full, however many wait. So a look at which others waited counts as one at a busy engine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECIPE = Path(sys.executable).parent / "recipe"
ENGINES = {
    "llamacpp": ("local-smoke", 4, ("engine.args.parallel=4", "engine.args.ctx_size=4096")),
    "vllm": ("local-vllm-smoke", 8, ("engine.args.max_num_seqs=8",)),
}
"""The recipe, the engine's slots, and how they are set."""
GOAL = 0.95


def texts(folder: Path, documents: int) -> str:
    """Documents of some pages each, all different."""
    own = "\n\n".join(path.read_text() for path in sorted((ROOT / "recipes" / "texts").glob("*.txt")))
    for number in range(documents):
        parts = [f"This is part {part} of volume {number}. {own}" for part in range(6 + number % 5)]
        (folder / f"volume-{number:02d}.txt").write_text("\n\n".join(parts))
    return f"workload.inputs=['{folder}/*.txt']"


def run(name: str, documents: int) -> None:
    recipe, slots, settings = ENGINES[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sets = [f"--set={setting}" for setting in (texts(folder, documents), "workload.concurrency=auto", *settings)]
        env = {**os.environ, "RECIPE_HOME": str(folder / "home")}
        ended = subprocess.run([RECIPE, "up", recipe, *sets], env=env, capture_output=True, text=True, cwd=folder)
        if ended.returncode:
            sys.exit(ended.stdout + ended.stderr)
        (run_folder,) = (folder / "home" / "runs").iterdir()
        report(name, slots, run_folder)


def report(name: str, slots: int, folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    requests, samples = _rows(folder / "requests.jsonl"), _rows(folder / "telemetry.jsonl")
    starts = [datetime.fromisoformat(row["started_at"]) for row in requests]
    until = max(start for start, row in zip(starts, requests, strict=True) if row["level"] == 1)
    drive_s = next(phase["seconds"] for phase in result["phases"] if phase["name"] == "drive")
    worked_s = (until - min(starts)).total_seconds()
    held = [row for row in samples if min(starts) < datetime.fromisoformat(row["at"]) <= until]
    print(
        f"\n{name}: {slots} slots, {len(requests)} requests, drive phase {drive_s:.1f} s, {worked_s:.1f} s of it with"
    )
    print("chunks left to send; limit", json.dumps(result["concurrency"]))
    _share("telemetry.jsonl", [(row["running"], row["waiting"]) for row in held], slots)
    lines = [m for line in (folder / "engine.log").read_text().splitlines() if (m := _LINE.search(line))]
    if lines:
        within = lines[1 : 1 + int(worked_s)]  # the first covers the time before
        _share("the engine's log", [(int(m["running"]), int(m["waiting"])) for m in within], slots)


_LINE = re.compile(r"Running: (?P<running>\d+) reqs, Waiting: (?P<waiting>\d+) reqs")


def _share(source: str, looks: list[tuple[float, float]], slots: int) -> None:
    full = sum(running >= slots for running, _ in looks) / max(1, len(looks))
    fed = sum(running >= slots or waiting > 0 for running, waiting in looks) / max(1, len(looks))
    least = min(running for running, _ in looks)
    print(
        f"  {source:18} of {len(looks)} looks {full:6.1%} saw all slots running, and {fed:6.1%} these or others waiting"
    )
    print(f"  {'':18} ({'ok' if fed >= GOAL else 'below the goal'}); at least {least:g} ran")


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("engines", nargs="*", choices=[*ENGINES, []], default=list(ENGINES))
    parser.add_argument("--documents", type=int, default=20)
    options = parser.parse_args()
    for name in options.engines or ENGINES:
        run(name, options.documents)


if __name__ == "__main__":
    main()

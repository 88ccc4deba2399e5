"""How near forecasts come after one run: `python benchmarks/forecast.py [--recipe NAME] [--rounds N]`.

A run of the recipe as it is, then forecasts of other sizes beside what they take, on this machine. Between them the
first run is made again: by how much it changed is how much the machine did.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.runners.forecast.inputs import texts  # noqa: E402

RECIPE = Path(sys.executable).parent / "recipe"
OTHER_SIZES: dict[str, dict[str, object]] = {
    "larger": {},
    "one by one, shorter answers": {"workload.concurrency": 1, "workload.max_tokens": 24},
    "longer chunks": {"workload.chunk_size": 1000},
}
GOAL = 0.25


def asked(home: Path, *arguments: str) -> dict[str, Any]:
    """What a command prints as JSON."""
    env = {**os.environ, "RECIPE_HOME": str(home)}
    ended = subprocess.run([RECIPE, *arguments, "--json"], env=env, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def seconds_of(result: dict[str, Any]) -> tuple[float, float]:
    """Of the drive, and of everything from the lease on."""
    phases = {phase["name"]: phase["seconds"] for phase in result["phases"] if phase["name"] != "plan"}
    return phases["drive"], sum(phases.values())


def one_round(recipe: str, folder: Path, seed: int) -> list[float]:
    texts(folder / "texts", random.Random(seed))
    before, _ = seconds_of(asked(folder, "up", recipe)["runs"][0])
    errors = []
    for name, changes in OTHER_SIZES.items():
        settings = {"workload.inputs": f"[{folder}/texts/*.txt]", **changes}
        options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        forecast = asked(folder, "plan", recipe, *options)["plans"][0]["forecast"]
        likely_drive = next(p["seconds"]["likely"] for p in forecast["phases"] if p["name"] == "drive")
        likely = forecast["total_seconds"]["likely"]
        drive, total = seconds_of(asked(folder, "up", recipe, *options)["runs"][0])
        drifted = seconds_of(asked(folder, "up", recipe)["runs"][0])[0] / before - 1
        print(
            f"{name:<30} drive {likely_drive:7.2f} {drive:7.2f} {drive / likely_drive - 1:+6.0%}   "
            f"total {likely:7.2f} {total:7.2f} {total / likely - 1:+6.0%}   the machine {drifted:+.0%}"
        )
        errors.append(abs(total / likely - 1))
    return errors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="local-smoke")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    errors = []
    print(f"{'':<30} {'likely, took, error, in seconds':<38}")
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            errors += one_round(options.recipe, Path(folder), number)
    within = sum(error <= GOAL for error in errors)
    print(f"total: median error {statistics.median(errors):.0%}, {within} of {len(errors)} within {GOAL:.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

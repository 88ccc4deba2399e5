"""Start-up, in CPU seconds, side by side with `hf --help`: `python benchmarks/startup.py [--runs N]`.

Each command is run in turn, so that a noisy machine is noisy for all of them; medians are compared. Commands that are
not installed beside this Python are left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
RIVAL = "hf --help"
COMMANDS = ["recipe --help", "recipe validate 2xA100-airoboros-70b", "recipe list", RIVAL, "sky --help"]
GOALS = {"recipe --help": 1 / 3, "recipe validate 2xA100-airoboros-70b": 1.0}


def cpu_seconds(command: str) -> float:
    """User and system time of one call, its children included."""
    program, *arguments = command.split()
    before = os.times()
    subprocess.run([BIN / program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    commands = [command for command in COMMANDS if (BIN / command.split()[0]).exists()]
    times: dict[str, list[float]] = {command: [] for command in commands}
    for _ in range(runs + 1):
        for command in commands:
            times[command].append(cpu_seconds(command))
    # The first round warms the disk cache.
    medians = {command: statistics.median(values[1:]) for command, values in times.items()}
    print(f"{'command':<42} {'CPU s':>7} {'÷ ' + RIVAL:>12} {'goal':>6}")
    for command, median in medians.items():
        goal = f"{GOALS[command]:.2f}" if command in GOALS else ""
        print(f"{command:<42} {median:>7.3f} {median / medians[RIVAL]:>12.2f} {goal:>6}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

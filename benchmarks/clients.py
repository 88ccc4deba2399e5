"""Clients of a stream of tokens, side by side: `python benchmarks/clients.py [--streams N …] [--runs N]`.

An engine double with as many slots as there are streams sends a token every 20 ms, the first after 200 ms; prompts have
11.5 kB, answers 64 tokens. The clients take turns on it, each in a process of its own, so that a noisy machine is noisy
for all of them. CPU is the client's own, while it is under load, for each streamed token; the error of the TTFT is the
moment at which the client saw the first piece of text, less the moment at which the server says that it sent it. Shown
are medians of the runs. Rivals that are not installed beside this Python get an environment of their own, kept.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.emulators.slots import SlotsDouble, slots_double  # noqa: E402

RIVALS = {"openai": "3.52.0", "aiohttp": "3.14.5", "httpx": "0.28.1"}
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recipe" / "benchmarks"
ROUNDS = 4
CPU_GOAL = 1 / 10
"""Of openai's."""
ERROR_GOAL_MS = 2.0


@dataclass(frozen=True)
class Measured:
    """One client in one run."""

    cpu_us: float
    """For each streamed token."""
    cpu_ms: float
    """For each request."""
    error_p50_ms: float
    error_p99_ms: float


def python_for(rival: str) -> tuple[Path, str]:
    """A Python that has this rival, and its version."""
    try:
        return Path(sys.executable), version(rival)
    except PackageNotFoundError:
        folder = CACHE / f"{rival}-{RIVALS[rival]}"
    python = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"{rival}=={RIVALS[rival]}"], check=True)
        (folder / ".complete").touch()
    return python, RIVALS[rival]


def measure(client: str, python: Path, double: SlotsDouble, streams: int, rounds: int) -> Measured:
    name, _, loop = client.partition("+")
    script = Path(__file__).with_name("stream_clients.py")
    env = {**os.environ, "PYTHONPATH": str(ROOT)} if name == "ours" else None
    double.reset()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        words = [python, script, name, double.url, streams, rounds, out, *([loop] if loop else [])]
        subprocess.run(list(map(str, words)), check=True, env=env)
        found = json.loads(out.read_text())
    sent = {row["digest"]: row["first_sent_s"] for row in double.requests()}
    answers = found["answers"]
    errors = [1000 * (answer["first_s"] - sent[answer["digest"]]) for answer in answers]
    pieces = sum(answer["pieces"] for answer in answers)
    percentiles = statistics.quantiles(errors, n=100, method="inclusive")
    cpu_us = 1e6 * found["cpu_s"]
    return Measured(cpu_us / pieces, cpu_us / 1000 / len(answers), percentiles[49], percentiles[98])


def median(runs: list[Measured]) -> Measured:
    return Measured(*(statistics.median(getattr(one, name) for one in runs) for name in Measured.__dataclass_fields__))


def report(streams: int, found: dict[str, Measured], names: dict[str, str]) -> bool:
    """One line for each client; whether ours kept the goals, as far as its rivals were there."""
    print(f"\n{streams} streams")
    print(
        f"{'client':<16} {'µs CPU/token':>13} {'÷ openai':>9} {'ms CPU/request':>15} {'TTFT error p50':>15} {'p99':>8}"
    )
    openai = found.get("openai")
    for client, one in found.items():
        ratio = f"{one.cpu_us / openai.cpu_us:.3f}" if openai else ""
        error = f"{one.error_p50_ms:>15.2f} {one.error_p99_ms:>8.1f}"
        print(f"{names[client]:<16} {one.cpu_us:>13.1f} {ratio:>9} {one.cpu_ms:>15.2f} {error}")
    ours = found["ours"]
    rivals = [one for client, one in found.items() if not client.startswith("ours")]
    kept = {
        f"CPU per token at most {CPU_GOAL:g} of openai's": not openai or ours.cpu_us <= CPU_GOAL * openai.cpu_us,
        f"TTFT error p50 at most {ERROR_GOAL_MS:g} ms": streams > 256 or ours.error_p50_ms <= ERROR_GOAL_MS,
        "p99 at most half of the best rival's": all(ours.error_p99_ms <= one.error_p99_ms / 2 for one in rivals),
    }
    for goal, good in kept.items():
        print(f"goal: {goal}: {'kept' if good else 'missed'}")
    return all(kept.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[64, 256], metavar="N")
    parser.add_argument("--runs", type=int, default=3, help="of which the medians are shown")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="requests of each stream")
    parser.add_argument("--clients", nargs="+", default=["ours", *RIVALS], choices=["ours", "ours+uvloop", *RIVALS])
    given = parser.parse_args()
    pythons, names = {}, {}
    for client in given.clients:
        here = (Path(sys.executable), "")
        python, release = here if client.startswith("ours") else python_for(client)
        pythons[client], names[client] = python, f"{client} {release}".strip()
    kept = True
    for streams in given.streams:
        runs: dict[str, list[Measured]] = {client: [] for client in given.clients}
        settings = ("--slots", str(streams), "--ttft", "0.2", "--per-token", "0.02", "--tokens", "64")
        with slots_double(*settings, "--metrics", "none") as double:
            for _ in range(given.runs):
                for client in given.clients:
                    runs[client].append(measure(client, pythons[client], double, streams, given.rounds))
        kept = report(streams, {client: median(one) for client, one in runs.items()}, names) and kept
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

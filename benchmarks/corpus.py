"""A corpus of very many documents, and a client that is killed half-way: `python benchmarks/corpus.py [--documents N]`.

`recipe up` in a process of its own against an engine that answers at once (tests/emulators/slots.py), three times:
undisturbed; killed by SIGKILL when half of the answers are on disk; and once more after that. Printed are what the
client took of memory at most (Linux), when its first answer was on disk, its CPU time per request, and how often the
engine was asked for what was on disk when the client was killed: never, if all is well. Summaries are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.emulators.slots import SlotsDouble, slots_double  # noqa: E402

TOKENIZER = ROOT / "recipes/models/lead/tokenizer.json"
WORDS = ("river", "mountain", "letter", "night", "sister", "father", "creature", "light", "eyes", "hand", "voice")
LAUNCH = sha256(b"Hello").hexdigest()[:16]
GOALS = "goals: at most 200 MB, a first answer within seconds, nothing asked twice, the same summaries"


@dataclass(frozen=True)
class Run:
    """One client, from its start to its end."""

    folder: Path
    wall_s: float
    first_s: float | None
    peak_mb: float
    cpu_s: float


def make_corpus(folder: Path, documents: int, sentences: int) -> None:
    folder.mkdir()
    for number in range(documents):
        chance = random.Random(number)
        lines = [f"In {number} it says {' '.join(chance.choices(WORDS, k=12))}." for _ in range(sentences)]
        (folder / f"{number:06d}.txt").write_text("\n\n".join(lines))


def make_recipe(path: Path, url: str) -> None:
    sizes = {"chunk_size": 400, "chunk_overlap": 32, "max_tokens": 64, "temperature": 0}
    inputs = {"inputs": ["texts/*.txt"], "prompt": "Sum up: {{ prompt }}", "tokenizer": str(TOKENIZER)}
    engine = {"name": "openai", "url": f"{url}/v1"}
    data = {"name": "corpus", "model": {"served_name": "double"}, "engine": engine, "workload": {**inputs, **sizes}}
    path.write_text(yaml.safe_dump(data))


def up(recipe: Path, home: Path, *options: str, kill_at: int | None = None) -> Run:
    """Run to the end, or until so many answers are on disk."""
    before = set((home / "runs").glob("*"))
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "runners.cli", "up", str(recipe), "--json", *options],
        cwd=ROOT,
        env={**os.environ, "RECIPE_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder, first_s, peak_mb, cpu_s = None, None, 0.0, 0.0
    while process.poll() is None:
        peak_mb, cpu_s = max(peak_mb, _peak_mb(process.pid)), max(cpu_s, _cpu_s(process.pid))
        folder = folder or next(iter(set((home / "runs").glob("*")) - before), None)
        if folder is not None and (first_s is None or kill_at is not None):
            answers = _answers(folder)
            if answers and first_s is None:
                first_s = time.monotonic() - began
            if kill_at is not None and answers >= kill_at:
                process.kill()
        time.sleep(0.05 if first_s is None else 0.3)
    assert folder is not None, f"recipe up ended with {process.returncode}"
    if kill_at is None and process.returncode != 0:
        raise SystemExit(f"recipe up ended with {process.returncode}: see {folder}")
    return Run(folder, time.monotonic() - began, first_s, peak_mb, cpu_s)


def _answers(folder: Path) -> int:
    path = folder / "answers.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _peak_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def summaries(run: Run) -> dict[str, str]:
    found = (run.folder / "outputs").glob("*.json")
    return {path.name: json.loads(path.read_text())["summary"] for path in found}


def asked(engine: SlotsDouble, since: int) -> tuple[list[str], int]:
    """The prompts since then but for the launch's own, and how many requests there were in all."""
    rows = engine.requests()
    return [row["digest"] for row in rows[since:] if row["digest"] != LAUNCH], len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--sentences", type=int, default=60, help="of each document")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as base, slots_double("--zero", "--slots", "64", "--tokens", "40") as engine:
        home, recipe = Path(base) / "home", Path(base) / "corpus.yaml"
        make_corpus(Path(base) / "texts", options.documents, options.sentences)
        make_recipe(recipe, engine.url)
        whole = up(recipe, home)
        prompts, seen = asked(engine, 0)
        killed = up(recipe, home, "--fresh", kill_at=len(prompts) // 2)
        kept = _answers(killed.folder)
        before, seen = asked(engine, seen)
        again = up(recipe, home)
        after, _ = asked(engine, seen)
        rows = [("undisturbed", whole, prompts), ("killed at half", killed, before), ("again", again, after)]
        show([(name, run, len(digests)) for name, run, digests in rows])
        repeated = len(after) - (len(prompts) - kept)
        print(f"on disk at the kill: {kept:,} answers; asked for again of these: {repeated:,}")
        print(f"asked for twice by one client: {max(Counter(after).values()) - 1}")
        print(f"the same {len(summaries(whole)):,} summaries: {summaries(whole) == summaries(again)}")
        print(GOALS)


def show(rows: list[tuple[str, Run, int]]) -> None:
    print(f"{'client':<16}{'requests':>10}{'wall s':>9}{'first s':>9}{'peak MB':>9}{'CPU ms/request':>16}")
    for name, run, requests in rows:
        cells: list[Any] = [
            f"{run.first_s or 0:.1f}",
            f"{run.peak_mb:.0f}",
            f"{1000 * run.cpu_s / max(1, requests):.2f}",
        ]
        print(f"{name:<16}{requests:>10,}{run.wall_s:>9.1f}{cells[0]:>9}{cells[1]:>9}{cells[2]:>16}")


if __name__ == "__main__":
    main()

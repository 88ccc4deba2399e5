"""The experiment log with 100,000 runs: `python benchmarks/ledger.py [--runs N] [--rounds N]`.

Each command is a process of its own, start-up included: wall and CPU seconds, the median of the rounds, all commands in
turn so that a noisy machine is noisy for all. The rival is a process of the same Python that finds the same twenty runs
in one SQLite table of JSON documents with json_extract, and prints their lines.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECIPE = Path(sys.executable).parent / "recipe"
sys.path.insert(0, str(ROOT))

from runners.ledger import Ledger  # noqa: E402
from tests.emulators.many_runs import synthetic  # noqa: E402

GOAL_S = 0.3
LISTS = {
    "newest": "runs",
    "sorted": "runs --sort -cost",
    "filtered": "runs --model 70b --gpu a100 --engine vllm --status failed --since 2025-01-01 --min-cost 1 "
    "--sort -output-tok/s",
    "tagged": "runs --tag nightly --tag paper",
    "lost": "runs --status lost",
}
"""These have to be there within the goal."""
OTHERS = {
    "by day": "runs --by day",
    "by tag": "runs --by tag",
    "compare": "compare vllm-lead llamacpp-lead --json",
    "report": "report {last} --json",
    "all, table": "runs --limit {count}",
    "all, JSON": "runs --limit {count} --json",
}
_TAGGED = "EXISTS (SELECT 1 FROM json_each(result, '$.tags') WHERE value = '{}')"
_FIELD = "json_extract(result, '$.{}')".format
RIVAL = """
import json, sqlite3, sys
path, where, order = sys.argv[1:]
db = sqlite3.connect(path)
rows = db.execute(f"SELECT result FROM runs WHERE {where} ORDER BY {order} LIMIT 20")
for (text,) in rows:
    r = json.loads(text)
    print(r["run_id"], r["outcome"]["status"], r["cost"]["total_usd"], r["throughput"]["output_tokens_per_s"])
"""
RIVALS = {
    "newest": ("1", f"{_FIELD('started_at')} DESC"),
    "sorted": ("1", f"{_FIELD('cost.total_usd')} DESC"),
    "filtered": (
        f"{_FIELD('model.identifier')} LIKE '%70b%' AND {_FIELD('offer.accelerator')} LIKE '%a100%' "
        f"AND {_FIELD('engine.name')} = 'vllm' AND {_FIELD('outcome.status')} = 'failed' "
        f"AND {_FIELD('started_at')} >= '2025-01-01' AND {_FIELD('cost.total_usd')} >= 1",
        f"{_FIELD('throughput.output_tokens_per_s')} DESC",
    ),
    "tagged": (f"{_TAGGED.format('nightly')} AND {_TAGGED.format('paper')}", f"{_FIELD('started_at')} DESC"),
}


def one_table(path: Path, results: Iterable[dict[str, Any]]) -> None:
    """What the rival looks through."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE runs (run_id TEXT PRIMARY KEY, result TEXT NOT NULL)")
        rows = ((result["run_id"], json.dumps(result, ensure_ascii=False)) for result in results)
        db.executemany("INSERT INTO runs VALUES (?, ?)", rows)
        db.commit()


def seconds(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Wall, and user and system time of one call."""
    before, began = os.times(), time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, env=env, check=True)
    wall, after = time.monotonic() - began, os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def prepared(home: Path, count: int) -> list[str]:
    """The log, a folder for each run (result.json in the last one), and the rival's table; every id."""
    took = time.process_time()
    added = Ledger(home).insert_all(synthetic(count), origin="synthetic")
    print(f"{added:,} runs written in {time.process_time() - took:.1f} s of CPU, ", end="")
    one_table(home / "rival.db", synthetic(count))
    run_ids = []
    for result in synthetic(count):
        run_ids.append(result["run_id"])
        (home / "runs" / result["run_id"]).mkdir(parents=True)
    (home / "runs" / run_ids[-1] / "result.json").write_text(json.dumps(result), encoding="utf-8")
    print(f"{(home / 'ledger.db').stat().st_size / 1e6:,.0f} MB\n")
    return run_ids


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        last = prepared(home, options.runs)[-1]
        env = {**os.environ, "RECIPE_HOME": folder}
        commands: dict[tuple[str, str], list[str]] = {}
        for name, words in {**LISTS, **OTHERS}.items():
            filled = words.format(count=options.runs, last=last)
            commands["recipe", name] = [str(RECIPE), *filled.split()]
        for name, (where, order) in RIVALS.items():
            commands["rival", name] = [sys.executable, "-c", RIVAL, str(home / "rival.db"), where, order]
        times: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in commands}
        for _ in range(options.rounds + 1):
            for key, command in commands.items():
                times[key].append(seconds(command, env))
    print_table(times)
    return 0


def print_table(times: dict[tuple[str, str], list[tuple[float, float]]]) -> None:
    """The first round warms the disk cache, and does not count."""

    def middle(key: tuple[str, str], pick: Callable[[tuple[float, float]], float]) -> float:
        return statistics.median(pick(one) for one in times[key][1:])

    print(f"{'':<12} {'wall s':>8} {'CPU s':>8} {'goal':>6} {'rival CPU s':>12} {'rival ÷ recipe':>15}  recipe …")
    for name, words in {**LISTS, **OTHERS}.items():
        wall, cpu = (middle(("recipe", name), lambda one, i=i: one[i]) for i in (0, 1))  # type: ignore[misc]
        goal = f"{GOAL_S:.2f}" if name in LISTS else ""
        rival = middle(("rival", name), lambda one: one[1]) if name in RIVALS else None
        compared = f"{rival:>12.3f} {rival / cpu:>15.1f}" if rival else f"{'':>28}"
        print(f"{name:<12} {wall:>8.3f} {cpu:>8.3f} {goal:>6} {compared}  {words}")


if __name__ == "__main__":
    sys.exit(main())

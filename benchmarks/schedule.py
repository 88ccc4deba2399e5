"""Ten documents on an engine of so many slots: `python benchmarks/schedule.py [--slots 16 64] [--chunks N …]`.

Three ways through the same client, in turn, on the same server (tests/emulators/slots.py, in a process of its own,
whose requests take 0.1 s + 64 ± 19 tokens of 10 ms):

- recipe: its drive phase, which knows nothing of the slots but what the server's metrics say;
- barriers: a level of all documents after the other, with as many requests under way as there are slots;
- one by one: a document after the other, each level by level, with 20 connections, as the reference's script does.

Printed are the time for everything over the lower bound (all requests' times evenly on all slots), and the mean time
to a finished document, also over that with barriers. `--simulate` adds what a simulation of the same orders says, at
once, for other numbers of documents and chunks.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from provisioners.masking import Mask  # noqa: E402
from runners.client import Client, Endpoint, open_transport  # noqa: E402
from runners.drive import Measured, drive  # noqa: E402
from runners.launch import Running  # noqa: E402
from runners.plan import Plan  # noqa: E402
from runners.run_folder import RunFolder  # noqa: E402
from runners.telemetry import EngineLog, TelemetryFile  # noqa: E402
from runners.workloads.summarize.documents import Document  # noqa: E402
from tests.emulators.drives import plan_over, prose  # noqa: E402
from tests.emulators.slots import SlotsDouble, slots_double  # noqa: E402
from tests.runners.schedule import simulation  # noqa: E402

CHUNKS = (60, 80, 100, 120, 140, 160, 180, 200, 220, 240)
CHUNK_TOKENS = 1500
SENTENCES_A_CHUNK = 56
REFERENCE_CONNECTIONS = 20
WAYS = ("recipe", "barriers", "one by one")
GOALS = "goals: recipe ≤ 1.10 × the lower bound, and ≤ 0.60 × the mean time with barriers"


@dataclass(frozen=True)
class Result:
    """Seconds from the first request on."""

    makespan_s: float
    mean_s: float
    bound_s: float
    limit: str = ""


async def by_recipe(plan: Plan, url: str, home: Path) -> tuple[list[float], str]:
    """When each document was finished, on time.monotonic's clock, and the limit at the end."""
    folder, measured = RunFolder.create(home, "bench"), Measured()
    log = EngineLog(folder.path / "engine.log", plan.engine, Mask())
    try:
        async with open_transport() as transport:
            running = Running(Endpoint(url, "double"), None, log, plan)
            await drive(
                plan,
                running,
                transport,
                folder,
                measured,
                lambda _: None,
                lambda: None,
                TelemetryFile(folder.path / "telemetry.jsonl"),
            )
    finally:
        log.close()
    offset = time.monotonic() - time.time()
    assert measured.concurrency is not None
    return [path.stat().st_mtime + offset for path in measured.outputs], str(measured.concurrency["limit_at_end"])


async def by_barriers(plan: Plan, url: str, at_once: int) -> list[float]:
    """All documents' requests of a level, then all of the next."""
    ended: list[float] = []
    async with open_transport() as transport:
        ask = _asker(plan, Client(transport, Endpoint(url, "double"), plan.recipe.workload), at_once)

        async def level(chunks: list[str]) -> list[str]:
            joined = "\n".join(await asyncio.gather(*map(ask, chunks)))
            if len(chunks) > 1:
                return _cut(plan, joined)
            ended.append(time.monotonic())
            return []

        texts = [_chunks(plan, document) for document in plan.prepared.documents]
        while texts:
            texts = [chunks for chunks in await asyncio.gather(*map(level, texts)) if chunks]
    return ended


async def one_by_one(plan: Plan, url: str) -> list[float]:
    ended = []
    async with open_transport() as transport:
        client = Client(transport, Endpoint(url, "double"), plan.recipe.workload)
        ask = _asker(plan, client, REFERENCE_CONNECTIONS)
        for document in plan.prepared.documents:
            chunks = _chunks(plan, document)
            while True:
                joined = "\n".join(await asyncio.gather(*map(ask, chunks)))
                if len(chunks) == 1:
                    break
                chunks = _cut(plan, joined)
            ended.append(time.monotonic())
    return ended


def _asker(plan: Plan, client: Client, at_once: int) -> Callable[[str], Awaitable[str]]:
    free = asyncio.Semaphore(at_once)

    async def ask(text: str) -> str:
        async with free:
            return (await client.complete(plan.prepared.prompt(text))).text.strip()

    return ask


def _chunks(plan: Plan, document: Document) -> list[str]:
    read = document.read()
    return [read(start, end) for start, end in zip(document.starts, document.ends, strict=True)]


def _cut(plan: Plan, text: str) -> list[str]:
    splitter = plan.prepared.splitter
    return [text] if splitter.counter.count(text) < splitter.chunk_size else splitter.split(text)


def measure(way: str, plan: Plan, double: SlotsDouble, slots: int) -> Result:
    double.reset()
    limit = ""
    with tempfile.TemporaryDirectory() as home:
        if way == "recipe":
            ended, limit = asyncio.run(by_recipe(plan, double.url, Path(home)))
        elif way == "barriers":
            ended = asyncio.run(by_barriers(plan, double.url, slots))
        else:
            ended = asyncio.run(one_by_one(plan, double.url))
    rows = double.requests()
    first = min(row["arrived_s"] for row in rows)
    assert all(row["status"] == "done" for row in rows)
    bound = sum(row["last_sent_s"] - row["admitted_s"] for row in rows) / slots
    return Result(max(row["last_sent_s"] for row in rows) - first, statistics.fmean(ended) - first, bound, limit)


def compare(chunks: Sequence[int], slots: int, rounds: int) -> None:
    behaviour = ("--slots", str(slots), "--ttft", "0.1", "--per-token", "0.01", "--tokens", "64", "--spread", "0.3")
    texts = {f"{i:02d}": prose(f"volume {i}", n * SENTENCES_A_CHUNK).replace(". ", ".\n") for i, n in enumerate(chunks)}
    workload = {"chunk_size": CHUNK_TOKENS, "chunk_overlap": 0, "max_tokens": 300, "concurrency": "auto", "retries": 3}
    with tempfile.TemporaryDirectory() as folder, slots_double(*behaviour) as double:
        plan = plan_over(Path(folder), texts, url=f"{double.url}/v1", workload=workload)
        found = {way: [measure(way, plan, double, slots) for _ in range(rounds)] for way in WAYS}
    barriers = statistics.median(result.mean_s for result in found["barriers"])
    begun = sum(document.chunks for document in plan.prepared.documents)
    print(f"\n{slots} slots, {len(chunks)} documents, {begun} chunks; medians of {rounds}")
    print(f"{'':12} {'all (s)':>9} {'÷ bound':>9} {'mean (s)':>9} {'÷ barriers':>11}  limit at the end")
    for way, results in found.items():
        whole = statistics.median(result.makespan_s for result in results)
        over = statistics.median(result.makespan_s / result.bound_s for result in results)
        mean = statistics.median(result.mean_s for result in results)
        print(f"{way:12} {whole:9.1f} {over:9.3f} {mean:9.1f} {mean / barriers:11.2f}  {results[-1].limit}")


CASES = {
    "10 × 47 chunks": [47] * 10,
    "10 × 84 chunks": [84] * 10,
    "10 × 300 chunks": [300] * 10,
    "10 of 7 to 160": [12, 47, 84, 30, 160, 47, 7, 95, 20, 61],
    "40 × 5, and 300": [5] * 40 + [300],
    "300 × 1, 3 × 47": [1] * 300 + [47] * 3,
}


def simulate() -> None:
    print(f"\n{'simulated':16} {'slots':>5} {'÷ bound':>9} {'÷ barriers':>11}  barriers ÷ bound   (means of 5)")
    for name, sizes in CASES.items():
        for slots in (16, 64):
            ended = {}
            for policy in ("barriers", "schedule"):
                ended[policy] = [
                    simulation.simulate(
                        [simulation.document(n, chance=random.Random(f"{seed}/{i}")) for i, n in enumerate(sizes)],
                        slots,
                        policy,
                    )
                    for seed in range(5)
                ]
            over = {policy: statistics.fmean(e.makespan for e in runs) for policy, runs in ended.items()}
            mean = {policy: statistics.fmean(e.mean_s for e in runs) for policy, runs in ended.items()}
            print(
                f"{name:16} {slots:5} {over['schedule']:9.3f} {mean['schedule'] / mean['barriers']:11.2f}"
                f"  {over['barriers']:16.3f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--slots", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--chunks", type=int, nargs="+", default=list(CHUNKS), help="of each document")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--simulate", action="store_true")
    options = parser.parse_args()
    print(GOALS)
    for slots in options.slots:
        compare(options.chunks, slots, options.rounds)
    if options.simulate:
        simulate()


if __name__ == "__main__":
    main()

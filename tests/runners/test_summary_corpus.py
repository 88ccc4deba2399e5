"""A corpus of many thousands of documents: in little memory, with the first answer soon, and nothing quadratic."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, cast

import pytest

from recipes.errors import WorkloadFailed
from runners.client import Client, Endpoint, Transport
from runners.workloads.summarize import documents, plugin
from runners.workloads.summarize.documents import Document, names_of
from runners.workloads.summarize.outputs import Outputs
from tests.conftest import Command
from tests.emulators.slots import SlotsDouble, slots_double
from tests.runners.summaries import Bench, Oracle, prose, summarise

ROOT = Path(__file__).parents[2]
DOCUMENTS = 10_000


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def corpus(folder: Path, documents: int) -> None:
    """Most of one request; each tenth of several chunks."""
    folder.mkdir()
    words = ["river", "mountain", "letter", "sister", "father", "light", "voice", "hand"]
    for number in range(documents):
        choose = random.Random(number)
        sentences = (" ".join(choose.choices(words, k=9)) for _ in range(60 if number % 10 == 0 else 5))
        (folder / f"{number:05d}.txt").write_text("\n\n".join(f"In {number} {sentence}." for sentence in sentences))


@pytest.fixture(scope="module")
def engine() -> Iterator[SlotsDouble]:
    with slots_double("--slots", "64", "--ttft", "0.005", "--per-token", "0.0002", "--tokens", "20") as double:
        yield double


def _peak_mb(pid: int) -> float:
    """So far; ru_maxrss would also hold the peak of the process that started it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return float((status.partition("VmHWM:")[2].split() or ["0"])[0]) / 1024


@pytest.mark.real
def test_ten_thousand_documents_take_little_memory_and_the_first_answer_comes_within_seconds(
    recipe: Command, tmp_path: Path, engine: SlotsDouble
) -> None:
    corpus(tmp_path / "texts", DOCUMENTS)
    workload = {
        "inputs": ["texts/*.txt"],
        "tokenizer": str(ROOT / "recipes/models/lead"),
        "chunk_size": 448,
        "max_tokens": 64,
        "concurrency": 64,
    }
    served = {
        "engine": {"name": "openai", "url": f"{engine.url}/v1"},
        "model": {"repo": "o/m", "served_name": "double"},
    }
    (tmp_path / "corpus.yaml").write_text(json.dumps({"name": "corpus", "workload": workload, **served}))
    began = time.monotonic()
    with recipe.start("up", str(tmp_path / "corpus.yaml"), "--json") as up:
        peak_mb = 0.0
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(up.communicate)
            while not ended.done():
                peak_mb = max(peak_mb, _peak_mb(up.pid))
                wait([ended], timeout=0.1)
        said, told = ended.result()
    assert up.returncode == 0, told
    (result,) = json.loads(said)["runs"]
    assert (result["documents"]["done"], result["documents"]["total"]) == (DOCUMENTS, DOCUMENTS)
    asked = engine.requests()
    first_answer_s = min(request["last_sent_s"] for request in asked) - began
    print(f"peak {peak_mb:.0f} MB; first answer after {first_answer_s:.1f} s; {len(asked):,} requests")
    assert 0 < peak_mb <= 200
    assert first_answer_s < 30, "also on a machine that does other things"


def test_documents_are_begun_as_there_is_room_and_the_shortest_first(bench: Bench) -> None:
    bench.write(**{f"d{n:03d}": prose(n, 1 + n % 40) for n in range(200)})
    prepared = bench.prepare(max_tokens=30, max_levels=30)
    begun: list[str] = []
    original = plugin._Drive._tree

    async def telling(drive: Any, document: Document, outlook: Any) -> Any:
        begun.append(document.id)  # before its text is read in a thread, of which another may be quicker
        return await original(drive, document, outlook)

    async def main() -> int:
        """How many were begun while the first answers are still held back."""
        oracle = Oracle(lambda prompt: "A few words.")
        oracle.held[""] = asyncio.Event()
        driving = asyncio.create_task(summarise(prepared, oracle, bench.outputs))
        async with asyncio.timeout(60):
            while oracle.most < 4:
                await asyncio.sleep(0.001)
        for _ in range(100):
            await asyncio.sleep(0.001)
        early = len(begun)
        oracle.held[""].set()
        await driving
        return early

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugin._Drive, "_tree", telling)
        assert asyncio.run(main()) < 40, "of 200 documents, on 4 slots"
    chunks = {document.id: document.chunks for document in prepared.documents}
    assert sorted(begun) == sorted(chunks)
    assert [chunks[name] for name in begun[:40]] == sorted(chunks.values())[:40]


def test_what_is_not_written_yet_does_not_pile_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that is slower than the engine."""
    monkeypatch.setattr(plugin, "_MOST_UNWRITTEN", 5)
    bench.write(**{f"d{n:03d}": f"Text {n}." for n in range(100)})
    prepared = bench.prepare()
    oracle, original = Oracle(lambda prompt: "It."), Outputs.write
    ahead, written = [], []

    def slowly(outputs: Outputs, name: str, data: Any) -> Path:
        time.sleep(0.005)
        written.append(name)
        ahead.append(len(oracle.asked) - len(written))
        return original(outputs, name, data)

    monkeypatch.setattr(Outputs, "write", slowly)
    asyncio.run(summarise(prepared, oracle, bench.outputs, at_once=2))
    assert len(written) == 100
    assert max(ahead) < 35


def test_the_requests_of_a_long_document_are_made_as_they_get_their_turn(bench: Bench) -> None:
    bench.write(long=prose(1, 6000))
    prepared = bench.prepare(max_tokens=30)
    assert prepared.documents[0].chunks > 1000
    tasks = []

    def answer(prompt: str) -> str:
        tasks.append(len(asyncio.all_tasks()))
        return "A few words."

    asyncio.run(summarise(prepared, Oracle(answer), bench.outputs))
    assert max(tasks) < 300 < prepared.documents[0].chunks


def test_what_is_planned_of_a_document_does_not_grow_with_its_text(bench: Bench) -> None:
    bench.write(long=prose(1, 3000))
    (document,) = bench.prepare().documents
    kept = pickle.dumps(document)
    assert len(kept) < 20 * document.chunks + 1000 < document.characters / 3


@pytest.mark.parametrize("in_memory", [1 << 24, 0])
@pytest.mark.parametrize("change", ["rewritten", "gone", "no text any more"])
def test_a_document_that_changed_since_it_was_planned_fails_alone(
    bench: Bench, change: str, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_IN_MEMORY", in_memory)
    bench.write(changed=prose(1, 30), same=prose(2, 30))
    prepared = bench.prepare()
    path = bench.folder / "changed.txt"
    match change:
        case "rewritten":
            path.write_text(prose(3, 30))
        case "gone":
            path.unlink()
        case _:
            path.write_bytes(b"\xff" * path.stat().st_size)
    oracle = Oracle(lambda _: "A few words.")
    with pytest.raises(WorkloadFailed) as caught:
        asyncio.run(summarise(prepared, oracle, bench.outputs))
    assert caught.value.message.startswith(f"1 of 2 documents failed: changed.txt: {path} ")
    assert ("cannot be read any more" if change == "gone" else "has changed since") in caught.value.message
    assert [output.name[:4] for output in bench.outputs.iterdir()] == ["same"]


def test_a_document_that_was_only_touched_is_the_same(bench: Bench) -> None:
    bench.write(book="Short.")
    prepared = bench.prepare()
    os.utime(bench.folder / "book.txt", (1, 1))
    assert asyncio.run(summarise(prepared, Oracle(lambda _: "It."), bench.outputs)).outputs["book"]["summary"] == "It."


CHANGES: dict[str, dict[str, Any]] = {
    "chunk_size": {"chunk_size": 100},
    "overlap": {"chunk_overlap": 10},
    "separators": {"separators": "sentences"},
    "strategy": {"strategy": "pairwise"},
    "prompt": {"prompt": "In short: {{ prompt }}"},
    "max_tokens": {"max_tokens": 20},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_output_is_of_use_only_where_the_same_would_be_asked(bench: Bench, change: dict[str, Any]) -> None:
    bench.write(book=prose(1, 40))

    def key(folder: str, **workload: Any) -> str:
        prepared = bench.prepare(**{"max_levels": 30, **workload})
        # A real client's key, which is made of the sampling as well.
        client = Client(cast(Transport, None), Endpoint("http://127.0.0.1:9", "served"), prepared.recipe.workload)
        oracle = Oracle(lambda _: "A few words.")
        oracle.key = client.key  # type: ignore[method-assign]
        return asyncio.run(summarise(prepared, oracle, bench.folder / folder)).taken.keys["book.txt"]

    first = key("first")
    os.utime(bench.folder / "book.txt", (1, 1))
    assert key("again", concurrency=7) == first
    assert key("changed", **change) != first
    bench.write(book=prose(2, 40))
    assert key("rewritten") != first


@pytest.mark.parametrize("in_memory", [1 << 24, 0])
@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_every_kind_of_line_end_is_one_character(
    bench: Bench, end: str, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a file that is not held in memory."""
    monkeypatch.setattr(documents, "_IN_MEMORY", in_memory)
    text = prose(2, 40)
    (bench.folder / "book.txt").write_bytes(text.replace("\n", end).encode())
    oracle = Oracle(lambda _: "A few words.")
    work = asyncio.run(summarise(bench.prepare(), oracle, bench.outputs))
    leaves = [node["source"] for node in work.outputs["book"]["tree"]["nodes"] if node["level"] == 1]
    assert len(leaves) > 2
    assert {f"Summarize: {text[leaf['start'] : leaf['end']]}" for leaf in leaves} <= set(oracle.asked)


def test_ten_thousand_names_are_told_apart_at_once(bench: Bench) -> None:
    """The same name in two folders, ten thousand times: a second would be plenty."""
    paths = [Path(f"/{folder}/{number}.txt") for number in range(DOCUMENTS) for folder in ("a", "b")]
    began = time.process_time()
    names = names_of([*paths, Path("/c/alone.txt")])
    assert time.process_time() - began < 2
    assert len(set(names)) == 2 * DOCUMENTS + 1
    assert names[-1] == "alone.txt"


def test_the_first_free_number_of_a_name_is_not_looked_for_from_the_beginning_each_time(tmp_path: Path) -> None:
    tries = 0

    class Counting(type(tmp_path)):  # type: ignore[misc]
        def hardlink_to(self, target: Any) -> None:
            nonlocal tries
            tries += 1
            super().hardlink_to(target)

    outputs = Outputs(Counting(tmp_path), [tmp_path / f"x-{n:04d}.json" for n in range(500)])
    names = [outputs.write("x", {"summary": str(n)}).name for n in range(300)]
    assert names == [f"x-{n:04d}.json" for n in range(500, 800)]
    assert tries == 300
    outputs.write("y", {"summary": ""})
    again = Outputs(Counting(tmp_path))
    assert again.write("x", {"summary": "new"}).name == "x-0000.json"


def test_a_name_as_long_as_a_file_may_have_still_gets_an_output(bench: Bench) -> None:
    bench.write(**{"ü" * 120: "A short text."})
    work = asyncio.run(summarise(bench.prepare(), Oracle(lambda _: "It."), bench.outputs))
    (name,) = (path.name for path in work.taken.outputs)
    assert name.startswith("ü" * 50)
    assert name.endswith("-analysis-owner_model-7b-0000.json")

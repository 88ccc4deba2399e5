"""A client that is killed has lost nothing that was answered: `recipe up` again asks only for what is not on disk."""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Command, eventually, processes_of, whole_rows
from tests.emulators.slots import SlotsDouble, slots_double

pytestmark = pytest.mark.real
TOKENIZER = Path(__file__).parents[1] / "recipes/models/lead/tokenizer.json"
ENGINE = ("--slots", "4", "--ttft", "0.02", "--per-token", "0.001", "--tokens", "20")
LAUNCH = sha256(b"Hello").hexdigest()[:16]
"""The prompt that shows that an engine is ready."""
WORDS = ["river", "mountain", "letter", "sister", "father", "light", "voice", "hand"]


def texts(folder: Path, documents: int) -> None:
    """Documents of several chunks, of which no two are alike."""
    folder.mkdir()
    for number in range(documents):
        words = random.Random(number).choices(WORDS, k=540)
        sentences = [f"In {number} {' '.join(words[i : i + 9])}." for i in range(0, len(words), 9)]
        (folder / f"{number:03d}.txt").write_text("\n\n".join(sentences))


def rows(folder: Path) -> list[dict[str, Any]]:
    """The run's own answers that are on disk."""
    return [row for row in whole_rows(folder / "answers.jsonl") if "from" not in row]


def summaries(folder: Path) -> dict[str, str]:
    return {path.name: json.loads(path.read_text())["summary"] for path in (folder / "outputs").glob("*-analysis-*")}


@dataclass
class Bench:
    """A recipe over some texts, against an engine that tells what it was asked."""

    recipe: Command
    engine: SlotsDouble
    file: Path
    seen: int = 0

    def start(self, *options: str) -> tuple[subprocess.Popen[str], Path]:
        """A run in its own process, and its folder."""
        before = set(self.recipe.run_folders())
        process = self.recipe.start("up", str(self.file), *options)
        (folder,) = eventually(lambda: set(self.recipe.run_folders()) - before, what="the run's folder")
        return process, folder

    def killed(self, *options: str, at: int) -> Path:
        """A run that is killed when it has so many answers of its own on disk, and waits for others; its folder."""
        self.engine.admit(1 + at)  # the launch asks as well
        process, folder = self.start(*options)
        eventually(lambda: len(rows(folder)) >= at, what=f"{at} answers")
        process.kill()
        process.communicate()
        self.engine.admit(None)
        return folder

    def up(self, *options: str) -> tuple[dict[str, Any], Path]:
        """A run to its end: its result and its folder."""
        ended = self.recipe("up", str(self.file), "--json", *options)
        assert ended.returncode == 0, ended.stderr
        (result,) = json.loads(ended.stdout)["runs"]
        return result, self.recipe.home / "runs" / result["run_id"]

    def asked(self) -> Counter[str]:
        """How often the engine was asked for each prompt since the last look."""
        found = self.engine.requests()[self.seen :]
        self.seen += len(found)
        return Counter(row["digest"] for row in found if row["digest"] != LAUNCH)


@pytest.fixture(scope="module")
def engine() -> Iterator[SlotsDouble]:
    with slots_double(*ENGINE) as double:
        yield double


@pytest.fixture
def bench(recipe: Command, engine: SlotsDouble, tmp_path: Path) -> Bench:
    texts(tmp_path / "texts", 6)
    settings = {"inputs": ["texts/*.txt"], "prompt": "Sum up: {{ prompt }}", "tokenizer": str(TOKENIZER)}
    sizes = {"chunk_size": 300, "chunk_overlap": 16, "max_tokens": 64, "temperature": 0, "concurrency": 4}
    data = {
        "name": "books",
        "model": {"served_name": "double"},
        "engine": {"name": "openai", "url": f"{engine.url}/v1"},
        "workload": {**settings, **sizes},
    }
    file = tmp_path / "books.yaml"
    file.write_text(yaml.safe_dump(data))
    engine.reset()
    return Bench(recipe, engine, file)


def test_half_of_the_answers_are_not_asked_for_again(bench: Bench) -> None:
    _, undisturbed = bench.up()
    whole = bench.asked()
    half = whole.total() // 2
    first = bench.killed("--fresh", at=half)
    kept = rows(first)
    assert len(kept) == half
    bench.asked()
    result, second = bench.up()
    again = bench.asked()
    assert summaries(second) == summaries(undisturbed)
    assert again.total() == whole.total() - len(kept), "exactly what was not on disk"
    assert max(again.values()) == 1
    assert result["taken_over"][0]["run_id"] == first.name
    assert result["requests"]["ok"] == again.total()
    assert result["documents"] == {**result["documents"], "done": 6, "total": 6}


def test_kills_at_any_moment_and_as_many_as_there_may_be(bench: Bench) -> None:
    """No answer that was on disk when its client died is asked for by any later client."""
    answered: set[str] = set()
    chance = random.Random(7)
    for _ in range(4):
        folder = bench.killed(at=chance.randint(1, 9))
        own = {row["key"] for row in rows(folder)}
        assert not own & answered
        answered |= own
    _, last = bench.up()
    own = {row["key"] for row in rows(last)}
    assert not own & answered
    asked = bench.asked()
    _, undisturbed = bench.up("--fresh")
    assert summaries(last) == summaries(undisturbed)
    # What is asked twice was under way when its client died: at most as many as there are slots, four times.
    assert asked.total() - bench.asked().total() <= 4 * 4


def test_a_completed_run_is_measured_anew_and_fresh_asks_for_all(bench: Bench) -> None:
    bench.up()
    whole = bench.asked()
    result, _ = bench.up()
    assert bench.asked() == whole
    assert result["taken_over"] == []
    bench.killed(at=8)
    bench.asked()
    bench.up("--fresh")
    assert bench.asked() == whole


def test_what_was_changed_is_asked_for_and_nothing_else(bench: Bench) -> None:
    first = bench.killed(at=12)
    kept = {row["document"] for row in rows(first)}
    changed = first.parents[2] / "texts" / min(kept)
    changed.write_text(changed.read_text().replace("In 0", "Out of nought"))
    bench.asked()
    result, second = bench.up()
    again = {row["document"] for row in rows(second)}
    assert min(kept) in again
    assert result["taken_over"][0]["answers"] > 0
    slip = json.loads((second / "outputs" / "000-analysis-double-0000.json").read_text())["buck_slip"]
    assert slip["length_of_sample_text_in_characters"] == len(changed.read_text())


@pytest.mark.parametrize("change", ["temperature=0.5", "max_tokens=63", "prompt='In short: {{ prompt }}'"])
def test_other_sampling_or_another_prompt_takes_nothing_over(bench: Bench, change: str) -> None:
    bench.killed(at=8)
    bench.asked()
    result, _ = bench.up("--set", f"workload.{change}")
    assert result["taken_over"] == []
    assert bench.asked().total() == result["requests"]["ok"]


def test_of_two_at_once_neither_takes_over_from_the_other(bench: Bench) -> None:
    bench.engine.admit(1 + 5)
    process, first = bench.start()
    eventually(lambda: len(rows(first)) == 5, what="five answers")
    other, second = bench.start()  # what it takes over it knows before it has a folder
    bench.engine.admit(None)
    for one in (process, other):
        out, err = one.communicate(timeout=150)
        assert one.returncode == 0, err + out
    for folder in (first, second):
        assert json.loads((folder / "result.json").read_text())["taken_over"] == []
    assert summaries(first) == summaries(second)


def test_torn_rows_and_rows_that_are_missing_cost_no_more_than_themselves(bench: Bench) -> None:
    first = bench.killed(at=10)
    answers = (first / "answers.jsonl").read_bytes()
    lines = answers.splitlines(keepends=True)[:10]
    (first / "answers.jsonl").write_bytes(b"".join(lines[:9]) + lines[9][:-20])
    (first / "requests.jsonl").write_bytes(b"")  # as if the client had died before it could write any
    for path in (first / "outputs").iterdir():
        path.unlink()
    bench.asked()
    result, second = bench.up()
    assert result["taken_over"] == [{"run_id": first.name, "answers": 9, "documents": 0}]
    assert len(whole_rows(second / "answers.jsonl")) == bench.asked().total() + 9


def test_people_are_told_what_is_taken_over(bench: Bench) -> None:
    first = bench.killed(at=10)
    ended = bench.recipe("up", str(bench.file))
    assert f"goes on from what {first.name} had; recipe up --fresh would not" in ended.stderr
    assert f"of {first.name}" in next(line for line in ended.stdout.splitlines() if line.startswith("taken over"))


def test_the_real_engine_is_asked_for_the_rest_and_the_summary_is_the_same(recipe: Command, tmp_path: Path) -> None:
    lines = [f"Part {n} of the report begins with a plain sentence. It goes on for a while.\n\n" for n in range(900)]
    (tmp_path / "book.txt").write_text("".join(lines))
    bench = Bench(recipe, None, Path("local-smoke"))  # type: ignore[arg-type]
    inputs = ("--set", f"workload.inputs=[{tmp_path}/book.txt]")
    whole, undisturbed = bench.up(*inputs)
    process, first = bench.start("--fresh", *inputs)
    eventually(lambda: len(rows(first)) >= 5, what="five answers")
    process.kill()
    process.communicate()
    eventually(lambda: processes_of(recipe.home) == [], what="the end of the killed client's engine")
    kept = len(rows(first))
    result, second = bench.up(*inputs)
    assert 5 <= kept < whole["requests"]["ok"]
    assert result["requests"]["ok"] == whole["requests"]["ok"] - kept
    assert result["taken_over"] == [{"run_id": first.name, "answers": kept, "documents": 0}]
    counted = result["throughput"]["engine_counters"]
    assert counted["output_tokens"] == result["throughput"]["output_tokens"], "the engine did no more than was measured"
    assert summaries(second) == summaries(undisturbed)

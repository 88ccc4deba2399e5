"""What an earlier client of a run has on disk is not paid for again; the run ends as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from recipes.errors import WorkloadFailed
from runners.plan import Plan
from runners.records import RequestRecord
from runners.run_folder import RecordFile, RunFolder
from tests.emulators.drives import driven, plan_over, prose
from tests.emulators.engine import EngineDouble, Fault, Refuse, Say

TEXTS = {"a": prose("Geneva", 24), "b": prose("Ingolstadt", 24)}


class Bench:
    """One run's folder, and drives of it by one client after the other."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.folder = RunFolder.create(base / "home", "test")
        self.asked: list[list[str]] = []
        """The prompts of each drive."""

    def plan(self, texts: Mapping[str, str] = TEXTS, **workload: Any) -> Plan:
        return plan_over(self.base / "texts", texts, workload=workload)

    def drive(self, plan: Plan | None = None, *, fails_at: int | None = None, fault: Fault | None = None) -> Any:
        """Drive once; from request number `fails_at` on, the engine answers no more."""
        faults = {} if fails_at is None else {n: fault or Refuse(500) for n in range(fails_at, 500)}
        engine = EngineDouble(faults=faults)
        try:
            return driven(plan or self.plan(), engine, self.folder)
        finally:
            self.asked.append([asked.prompt for asked in engine.asked])

    def dies(self, plan: Plan | None = None, *, after: int) -> None:
        """A client that gets so many answers and no more."""
        with pytest.raises(WorkloadFailed):
            self.drive(plan, fails_at=after + 1)

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder.path / name).read_text().splitlines()]

    def summaries(self) -> dict[str, str]:
        return {path.name: json.loads(path.read_text())["summary"] for path in self.folder.outputs.glob("*.json")}

    @property
    def ids(self) -> list[str]:
        return [row["id"] for row in self.rows("answers.jsonl")]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def whole(tmp_path: Path) -> Bench:
    """The same work, done by one client that lives."""
    made = Bench(tmp_path / "whole")
    made.drive()
    return made


@pytest.mark.parametrize("after", [1, 2, 5, 9])
def test_a_run_that_goes_on_asks_only_for_what_it_has_not(bench: Bench, whole: Bench, after: int) -> None:
    bench.dies(after=after)
    kept = len(bench.ids)
    measured, _ = bench.drive()
    assert bench.summaries() == whole.summaries()
    assert len(bench.ids) == len(set(bench.ids)), "no answer was had twice"
    assert set(bench.ids) == set(whole.ids)
    assert measured.resumed == kept == after
    assert len(bench.asked[1]) == len(whole.asked[0]) - kept
    assert len(measured.records) == len(bench.asked[1]), "what was measured is what this client saw"


def test_clients_may_die_again_and_again(bench: Bench, whole: Bench) -> None:
    for _ in range(3):
        bench.dies(after=2)
    assert len(bench.ids) == 6
    bench.drive()
    assert bench.summaries() == whole.summaries()
    assert sorted(bench.ids) == sorted(whole.ids)


def test_a_run_that_was_done_asks_for_nothing_and_writes_nothing_again(bench: Bench) -> None:
    bench.drive()
    before = {path: path.stat().st_mtime_ns for path in bench.folder.outputs.iterdir()}
    measured, _ = bench.drive()
    assert bench.asked[1] == []
    assert {path: path.stat().st_mtime_ns for path in bench.folder.outputs.iterdir()} == before
    assert sorted(measured.outputs) == sorted(before), "they count as done"
    assert len(bench.rows("documents.jsonl")) == 2


def test_a_document_that_was_done_is_not_written_twice(bench: Bench) -> None:
    first = bench.plan({"a": TEXTS["a"]})
    bench.drive(first)
    measured, _ = bench.drive()
    assert {row["document"] for row in bench.rows("documents.jsonl")} == {"a.txt", "b.txt"}
    assert len(bench.summaries()) == len(measured.outputs) == 2
    assert not any("Geneva" in prompt for prompt in bench.asked[1])


def test_an_output_that_is_gone_is_written_again_from_its_answers(bench: Bench, whole: Bench) -> None:
    bench.drive()
    for path in bench.folder.outputs.iterdir():
        path.unlink()
    bench.drive()
    assert bench.asked[1] == []
    assert bench.summaries() == whole.summaries()


def test_a_client_that_died_between_an_output_and_its_note_leaves_one_output(bench: Bench, whole: Bench) -> None:
    bench.drive()
    (bench.folder.path / "documents.jsonl").write_text("")
    bench.drive()
    assert bench.asked[1] == []
    assert bench.summaries() == whole.summaries()


CHANGED: Mapping[str, dict[str, Any]] = {
    "prompt": {"prompt": "In short: {{ prompt }}"},
    "temperature": {"temperature": 0.5},
    "max_tokens": {"max_tokens": 63},
    "seed": {"seed": 7},
    "api": {"api": "chat"},
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_what_an_answer_depends_on_is_asked_again_when_it_changes(bench: Bench, change: dict[str, Any]) -> None:
    bench.dies(after=3)
    measured, _ = bench.drive(bench.plan(**change))
    assert measured.resumed == 0
    assert len(bench.summaries()) == 2
    again = Bench(bench.base / "again")
    again.drive(again.plan(**change))
    assert len(bench.asked[1]) == len(again.asked[0])


@pytest.mark.parametrize("change", [{"concurrency": 7}, {"retries": 3}, {"request_timeout": "9s"}], ids=str)
def test_what_an_answer_does_not_depend_on_changes_nothing(bench: Bench, change: dict[str, Any]) -> None:
    bench.dies(after=3)
    measured, _ = bench.drive(bench.plan(**change))
    assert measured.resumed == 3


def test_a_text_that_changed_meanwhile_is_asked_for_anew(bench: Bench) -> None:
    bench.dies(after=3)
    bench.drive(bench.plan({"a": prose("Chamounix", 24), "b": TEXTS["b"]}))
    assert any("Chamounix" in prompt for prompt in bench.asked[1])
    assert not any("Geneva" in json.dumps(summary) for summary in bench.summaries().values())


def test_an_empty_answer_is_asked_for_again(bench: Bench) -> None:
    with pytest.raises(WorkloadFailed):
        bench.drive(fails_at=3, fault=Say("  "))
    assert [row["text"] for row in bench.rows("answers.jsonl")].count("") >= 1
    measured, _ = bench.drive()
    assert measured.resumed == 2
    assert len(bench.summaries()) == 2


def test_how_far_a_resumed_run_is_never_exceeds_what_is_expected_and_ends_there(bench: Bench) -> None:
    bench.drive(bench.plan({"a": TEXTS["a"]}))
    bench.dies(after=4)
    _, shown = bench.drive()
    assert all(event.done <= event.expected for event in shown)
    assert shown[-1].done == shown[-1].expected
    assert shown[-1].documents_done == shown[-1].documents == 2


ANSWER = "Ein Satz über Österreich, 漢字 und 🙂."


def record(number: int) -> RequestRecord:
    return RequestRecord(
        id=f"a/1/{number}",
        document="a",
        level=1,
        index=number,
        status="ok",
        tries=1,
        started_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


def write(folder: RunFolder, numbers: Sequence[int]) -> None:
    file = RecordFile(folder)
    for number in numbers:
        file.write(record(number), f"{number}: {ANSWER}", f"key-{number}")
        file.document_done(f"document-{number}", folder.outputs / f"{number}.json")
    file.close()


def answers(folder: RunFolder) -> dict[str, str]:
    """What is found for the requests that `write` writes."""
    found = folder.earlier().answers
    asked = {f"a/1/{n}": found.find(f"a/1/{n}", f"key-{n}") for n in range(4)}
    return {name: kept.text for name, kept in asked.items() if kept}


def expected(*numbers: int) -> dict[str, str]:
    return {f"a/1/{n}": f"{n}: {ANSWER}" for n in numbers}


def test_without_files_there_is_nothing_earlier(tmp_path: Path) -> None:
    earlier = RunFolder.create(tmp_path, "demo").earlier()
    assert (earlier.answers.find("a/1/0", "key-0"), earlier.outputs, earlier.records) == (None, {}, ())


def test_a_row_that_was_cut_off_anywhere_is_passed_over_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    whole = RunFolder.create(tmp_path, "demo")
    write(whole, [0, 1])
    files = {name: (whole.path / name).read_bytes() for name in ("answers.jsonl", "requests.jsonl", "documents.jsonl")}
    rows = files["answers.jsonl"].splitlines(keepends=True)
    for length in range(len(rows[1]) + 1):
        folder = RunFolder.create(tmp_path, "cut")
        for name, content in files.items():
            first, second = content.splitlines(keepends=True)
            (folder.path / name).write_bytes(first + second[:length])
        is_whole = length >= len(rows[1]) - 1
        assert answers(folder) == expected(*([0, 1] if is_whole else [0]))
        write(folder, [2])
        assert answers(folder) == expected(*([0, 1, 2] if is_whole else [0, 2]))
        assert folder.earlier().records[-1] == record(2)
        for name in files:
            *_, last = (folder.path / name).read_bytes().splitlines()
            assert json.loads(last)


@pytest.mark.parametrize(
    "junk",
    [
        b"null\n",
        b"[]\n",
        b"17\n",
        b"{}\n",
        b'{"id": "a/1/1", "text": "no key"}\n',
        b"\xff\xfe\n",
        b"\n",
        b"\0" * 512,
    ],
)
def test_a_row_that_is_none_is_passed_over(tmp_path: Path, junk: bytes) -> None:
    folder = RunFolder.create(tmp_path, "demo")
    write(folder, [0])
    for name in ("answers.jsonl", "documents.jsonl", "requests.jsonl"):
        with (folder.path / name).open("ab") as file:
            file.write(junk)
    write(folder, [1])
    assert answers(folder) == expected(0, 1)
    assert [one.id for one in folder.earlier().records] == ["a/1/0", "a/1/1"]


def test_an_output_counts_only_if_it_is_there(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "demo")
    write(folder, [0, 1])
    (folder.outputs / "1.json").write_text("{}")
    earlier = folder.earlier()
    assert earlier.output_of("document-0", "") is None
    found = earlier.output_of("document-1", "")
    assert found is not None
    assert found.path == folder.outputs / "1.json"


def test_the_latest_answer_of_an_id_and_key_counts(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "demo")
    file = RecordFile(folder)
    for text in ("the first", "the second"):
        file.write(record(0), text, "key-0")
    file.write(record(0), None, "key-0")
    file.close()
    assert answers(folder) == {"a/1/0": "the second"}

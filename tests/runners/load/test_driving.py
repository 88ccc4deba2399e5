"""The load against the engine double: who is under way when, what counts, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from recipes import catalogue
from recipes.errors import WorkloadFailed
from recipes.spec import Recipe
from runners.client import Client, Endpoint, open_transport
from runners.records import RequestRecord
from runners.schedule.concurrency import Concurrency
from runners.schedule.schedule import Schedule
from runners.text.tokens import TokenCounter
from runners.workload import Means
from runners.workloads.load import PLUGIN
from runners.workloads.load.plugin import Prepared
from tests.emulators.engine import EngineDouble, Fault, Refuse

LEAD = TokenCounter.from_path(catalogue.ROOT / "models" / "lead")
SHORT = {"input_tokens": 16, "output_tokens": 4}
UNKNOWN = Refuse(400, "Unrecognized request argument supplied: ignore_eos")


@dataclass
class Taken:
    records: list[RequestRecord] = field(default_factory=list)
    expected: int = 0
    done: list[str] = field(default_factory=list)

    def answered(self, id: str, key: str) -> str | None:  # noqa: A002
        raise AssertionError("a load takes no earlier answer")

    def output_of(self, document: str, key: str = "") -> Path | None:
        raise AssertionError("a load takes no earlier output")

    def record(self, record: RequestRecord, text: str | None, key: str) -> None:
        self.records.append(record)

    def expect(self, requests: int) -> None:
        self.expected += requests

    def document_done(self, document: str, output: Path, key: str = "") -> None:
        self.done.append(document)


def prepared(*, workload: dict[str, Any] | None = None, **traffic: Any) -> Prepared:
    settings = {"name": "load", **(workload or {}), "traffic": {"synthetic": SHORT, "warmup": 0, **traffic}}
    recipe = Recipe.model_validate({"name": "test", "model": {"repo": "owner/model"}, "workload": settings})
    found: Prepared = PLUGIN.prepare(recipe, LEAD)
    return found


@dataclass
class Bench:
    outputs: Path
    taken: Taken = field(default_factory=Taken)

    def run(
        self,
        engine: EngineDouble,
        what: Prepared,
        beside: Callable[[EngineDouble], Awaitable[None]] | None = None,
    ) -> dict[str, Any]:
        """Drive it, with something else going on beside it; returns load.json."""

        async def main() -> None:
            async with engine, open_transport() as transport:
                endpoint = Endpoint(engine.url, "served", "sk-secret")
                client = Client(transport, endpoint, what.recipe.workload)
                means = Means(client, Schedule(Concurrency(1)), endpoint, self.outputs, self.taken)
                async with asyncio.TaskGroup() as group:
                    group.create_task(PLUGIN.drive(what, means))
                    if beside:
                        group.create_task(_awaited(beside(engine)))

        asyncio.run(main())
        return self.output()

    def fail(self, engine: EngineDouble, what: Prepared) -> WorkloadFailed:
        with pytest.raises(ExceptionGroup) as caught:
            self.run(engine, what)
        (error,) = caught.value.exceptions
        assert isinstance(error, WorkloadFailed)
        return error

    def output(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.outputs / "load.json").read_text())
        return found


async def _awaited(work: Awaitable[None]) -> None:
    await work


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def lines(tmp_path: Path) -> str:
    """A file of prompts without a length of their own, for which nothing is tried before the first point."""
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"Prompt {number}.\n" for number in range(50)))
    return str(path)


def words(prompt: str) -> str:
    return "one two three four"


def test_a_closed_loop_has_so_many_under_way_and_no_more(bench: Bench, lines: str) -> None:
    async def look(engine: EngineDouble) -> None:
        engine.gate.clear()
        await engine.until_running(3)
        for _ in range(50):
            await asyncio.sleep(0)
        engine.gate.set()

    engine = EngineDouble(answer=words)
    found = bench.run(engine, prepared(concurrency=3, requests=12, prompts=lines), look)
    assert engine.most_running == 3
    assert [record.index for record in sorted(bench.taken.records, key=lambda r: r.index)] == list(range(12))
    assert {record.document for record in bench.taken.records} == {"concurrency=3"}
    assert (bench.taken.expected, bench.taken.done) == (12, ["concurrency=3"])
    assert found["points"][0]["requests"]["ok"] == 12


def test_an_open_loop_does_not_wait_for_answers(bench: Bench, lines: str) -> None:
    async def look(engine: EngineDouble) -> None:
        engine.gate.clear()
        await engine.until_running(25)
        engine.gate.set()

    engine = EngineDouble(answer=words)
    found = bench.run(engine, prepared(rate=500, requests=25, prompts=lines), look)
    point = found["points"][0]
    assert point["requests"]["ok"] == 25
    assert engine.most_running == 25
    assert point["arrivals"]["asked_per_s"] == 500


def test_points_follow_one_another_with_prompts_that_are_never_the_same(bench: Bench) -> None:
    engine = EngineDouble(answer=words)
    found = bench.run(engine, prepared(concurrency=[1, 2, 4], requests=10, warmup=5))
    assert [point["name"] for point in found["points"]] == ["concurrency=1", "concurrency=2", "concurrency=4"]
    assert [record.document for record in bench.taken.records] == [
        name for name in ("concurrency=1", "concurrency=2", "concurrency=4") for _ in range(10)
    ]
    prompts = [asked.prompt for asked in engine.asked]
    assert len(prompts) == len(set(prompts)) == 35


def test_warm_up_counts_nowhere(bench: Bench) -> None:
    engine = EngineDouble(answer=words)
    found = bench.run(engine, prepared(concurrency=2, requests=6, warmup=9))
    assert len(engine.asked) == 15
    assert len(bench.taken.records) == found["points"][0]["requests"]["ok"] == 6


def test_the_length_of_answers_is_asked_for_where_the_engine_knows_how(bench: Bench) -> None:
    engine = EngineDouble(answer=words)
    found = bench.run(engine, prepared(concurrency=1, requests=3))
    assert {(asked.body["max_tokens"], asked.body["ignore_eos"]) for asked in engine.asked} == {(4, True)}
    assert found["length_forced"]
    assert found["points"][0]["short_answers"] == 3, "the double does not keep to it, and that is told"


def test_an_endpoint_that_does_not_know_the_wish_is_asked_without(bench: Bench) -> None:
    engine = EngineDouble(answer=words, faults={1: UNKNOWN})
    found = bench.run(engine, prepared(concurrency=1, requests=3, warmup=2))
    assert ["ignore_eos" in asked.body for asked in engine.asked] == [True, *[False] * 5]
    assert not found["length_forced"]
    assert found["points"][0]["requests"] == {"ok": 3, "failed": 0, "retried": 0, "truncated": 0, "asked": 3}


def test_the_wish_is_not_made_for_prompts_without_a_length(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("One.\nTwo.\n")
    engine = EngineDouble(answer=words)
    bench.run(engine, prepared(prompts=str(tmp_path / "prompts.txt"), concurrency=1, requests=4))
    assert [asked.prompt for asked in engine.asked] == ["One.", "Two.", "One.", "Two."]
    assert not any("ignore_eos" in asked.body for asked in engine.asked)


def test_conversations_are_sent_whole(bench: Bench, tmp_path: Path) -> None:
    told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": told, "max_tokens": 3}) + "\n")
    engine = EngineDouble(answer=words)
    what = prepared(workload={"api": "chat"}, prompts=str(tmp_path / "chat.jsonl"), concurrency=1, requests=2)
    bench.run(engine, what)
    assert [(asked.path, asked.body["messages"]) for asked in engine.asked] == [("/v1/chat/completions", told)] * 3
    assert "prompt" not in engine.asked[0].body


def test_a_failed_request_is_counted_once_and_the_load_goes_on(bench: Bench) -> None:
    faults: dict[int, Fault] = {5: Refuse(503, "busy"), 9: Refuse(400, "no")}
    engine = EngineDouble(answer=words, faults=faults)
    found = bench.run(engine, prepared(concurrency=2, requests=40))
    assert found["points"][0]["requests"] == {"ok": 38, "failed": 2, "retried": 0, "truncated": 0, "asked": 40}
    assert len(engine.asked) == 41, "a load does not try again unless it is told to"
    assert [record.error for record in bench.taken.records if record.error] == ["HTTP 503: busy", "HTTP 400: no"]


def test_a_point_of_nothing_but_failures_ends_the_load_early(bench: Bench) -> None:
    engine = EngineDouble(answer=words, faults={n: Refuse(500, "out of memory") for n in range(2, 5000)})
    error = bench.fail(engine, prepared(concurrency=[4, 8], requests=3000))
    assert "concurrency=4: all of" in error.message
    assert "HTTP 500: out of memory" in error.message
    assert len(engine.asked) < 60
    assert bench.output()["points"][0]["requests"]["ok"] == 0


def test_an_endpoint_that_answers_nothing_fails_before_anything_is_measured(bench: Bench) -> None:
    engine = EngineDouble(answer=words, faults={n: Refuse(401, "who are you?") for n in range(1, 99)})
    error = bench.fail(engine, prepared(concurrency=1))
    assert "the warm-up failed: HTTP 401: who are you?" in error.message
    assert bench.taken.records == []


def test_a_point_may_end_with_the_time_and_waits_for_what_is_under_way(bench: Bench, lines: str) -> None:
    async def look(engine: EngineDouble) -> None:
        engine.gate.clear()
        await engine.until_running(3)
        await asyncio.sleep(0.5)  # more than the point's time, which had begun before
        engine.gate.set()

    engine = EngineDouble(answer=words)
    found = bench.run(engine, prepared(concurrency=3, duration="0.4s", prompts=lines), look)
    point = found["points"][0]
    assert (point["requests"]["ok"], point["requests"]["failed"]) == (3, 0)
    assert len(engine.asked) == 3, "nothing is sent after the time"
    assert point["seconds"] >= 0.5 - 0.01


def test_the_sweep_stops_at_saturation_and_says_why(bench: Bench) -> None:
    """By failures, which no slow machine makes more or fewer; what else saturates is a matter of the figures."""
    second = range(42, 82)  # after the try before the first point, and its 40
    engine = EngineDouble(answer=words, faults={number: Refuse(503, "busy") for number in second if number % 2})
    found = bench.run(engine, prepared(concurrency=[1, 4, 16, 64], requests=40, stop_at_saturation=True))
    assert [point["name"] for point in found["points"]] == ["concurrency=1", "concurrency=4"]
    assert (found["knee"], found["saturated_at"]) == ("concurrency=1", "concurrency=4")
    why = "saturated: 20 of 40 requests failed"
    assert found["last"] == {"point": "concurrency=4", "why": why, "skipped": 2}


def test_figures_are_the_same_from_the_records_alone(bench: Bench) -> None:
    what = prepared(rate=[100, 200], requests=20, slo={"ttft": "1s"})
    found = bench.run(EngineDouble(answer=words), what)
    again = PLUGIN.figures(what, bench.taken.records)
    assert again is not None
    assert json.loads(json.dumps(again["points"])) == found["points"]


def test_what_an_earlier_client_measured_is_not_overwritten(bench: Bench) -> None:
    (bench.outputs / "load.json").write_text("{}")
    bench.run(EngineDouble(answer=words), prepared(concurrency=1, requests=2))
    assert (bench.outputs / "load-1.json").read_text() == "{}"
    assert bench.output()["kind"] == "load"


def test_a_great_many_requests_are_made_as_they_are_sent() -> None:
    what = prepared(concurrency=8, requests=100_000_000)
    assert PLUGIN.estimate(what).requests == 100_000_000
    assert what.prompts.ask(99_999_999).prompt != what.prompts.ask(99_999_998).prompt

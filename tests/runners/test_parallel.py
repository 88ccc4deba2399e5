"""Several runs at once, each on a machine of its own: none waits for, stops or hides another."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Finding, MayStillBill
from provisioners.journal import Journal
from recipes.errors import EngineFailed, NoMachine, Refused
from recipes.load import LoadedRecipe
from runners.cli import running
from runners.ledger import Ledger
from runners.plan import Plan
from runners.run_folder import RunFolder
from tests.emulators.engine import EngineDouble
from tests.emulators.gathering import Gathering
from tests.emulators.provisioner import COMMAND, ProvisionerDouble, Trouble, hang, plan_of, stumble

Planning = Callable[[LoadedRecipe, object], Awaitable[Plan]]
NAMES = ("a", "b", "c", "d", "e", "f")


class Bench:
    """Runs recipes at once; `planned` is what happens when a recipe is planned: by its name, and which time it is."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, monkeypatch
        self.home = folder / "home"
        self.provisioners = {name: ProvisionerDouble() for name in NAMES}
        self.planned: dict[tuple[str, int], Trouble] = {}
        self.findings: dict[str, list[Finding]] = {}
        self.planned_so_far: list[str] = []
        monkeypatch.setenv("RECIPE_HOME", str(self.home))

    def run(self, *names: str, parallel: int = 20, as_json: bool = True) -> int:
        async def run() -> int:
            async with asyncio.timeout(60), EngineDouble() as engine:
                plans = {name: self._plan(name, f"{engine.url}/v1") for name in names}
                self._patch.setattr(running, "make_plan", self._planning(plans))
                runs = running.Runs(as_json=as_json, parallel=parallel)
                return await runs.run_all(tuple(plan.loaded for plan in plans.values()))

        return asyncio.run(run())

    def _plan(self, name: str, url: str) -> Plan:
        findings = self.findings.get(name, ())
        return plan_of(self.provisioners[name], self._folder, url, name=name, findings=findings)

    def _planning(self, plans: dict[str, Plan]) -> Planning:
        async def make_plan(loaded: LoadedRecipe, _: object, **__: object) -> Plan:
            name = loaded.recipe.name
            self.planned_so_far.append(name)
            await stumble(self.planned.get((name, self.planned_so_far.count(name))))
            return plans[name]

        return make_plan

    def each(self, place: str, trouble: Trouble, names: Sequence[str] = NAMES) -> None:
        for name in names:
            self.provisioners[name].trouble[place] = trouble

    def created(self) -> list[str]:
        return [name for name, provisioner in self.provisioners.items() if "create" in provisioner.calls]

    def let_go(self) -> bool:
        """Whether whatever was created has been let go."""
        calls = [provisioner.calls for provisioner in self.provisioners.values()]
        return all(("create" in made) == (made[-1:] == ["destroy"]) for made in calls)

    def wish_to_stop(self, name: str) -> None:
        """As `recipe down` does it."""
        RunFolder.find(self.home, name).wish_to_stop()
        signal.raise_signal(signal.SIGUSR1)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def documents(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["runs"]
    return found


def results(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, int]]:
    return [(run["recipe"], run["exit_code"]) for run in documents(capsys)]


def signals(*numbers: signal.Signals) -> Callable[[], Awaitable[None]]:
    """Comes while the place would take forever."""

    async def come() -> None:
        for number in numbers:
            signal.raise_signal(number)  # to this thread: two that wait for another one would become one
            await asyncio.sleep(0)
        await hang()

    return come


def test_all_begin_together(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Each waits for all others at its machine's door, so that one after the other would never end."""
    gathering = Gathering(len(NAMES))
    bench.each("create", gathering.meet)
    assert bench.run(*NAMES) == 0
    assert results(capsys) == [(name, 0) for name in NAMES]
    assert bench.let_go()


@pytest.mark.parametrize("parallel", [2, 5])
def test_no_more_run_at_once_than_are_allowed(bench: Bench, capsys: pytest.CaptureFixture[str], parallel: int) -> None:
    gathering = Gathering(parallel)
    bench.each("create", gathering.pass_by)
    assert bench.run(*NAMES, parallel=parallel) == 0
    assert gathering.most == parallel
    assert results(capsys) == [(name, 0) for name in NAMES]


def test_one_at_a_time_is_one_after_the_other(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    gathering = Gathering(1)
    bench.each("create", gathering.pass_by)
    assert bench.run("a", "b", "c", parallel=1) == 0
    assert gathering.most == 1


def test_machines_that_would_be_shared_are_used_in_turn(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    gathering = Gathering(1)
    bench.each("create", gathering.pass_by)
    bench.provisioners["b"].at_once = False
    assert bench.run("a", "b", "c") == 0
    assert gathering.most == 1


def test_nothing_is_rented_before_every_plan_has_passed(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.findings["c"] = [Finding(level="block", code="context", message="does not fit")]
    assert bench.run("a", "b", "c") == 3
    assert bench.created() == []
    document = json.loads(capsys.readouterr().out)
    assert (document["runs"], [plan["recipe"] for plan in document["refused"]]) == ([], ["c"])


def test_the_results_are_in_the_order_of_the_recipes_whoever_ends_first(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    last_first = asyncio.Event()

    async def wait() -> None:
        await last_first.wait()

    bench.provisioners["a"].trouble["create"] = wait
    bench.provisioners["c"].on_call = lambda name: last_first.set() if name == "destroy" else None
    assert bench.run("a", "b", "c") == 0
    assert results(capsys) == [("a", 0), ("b", 0), ("c", 0)]


@pytest.mark.parametrize("trouble", [NoMachine("sold out"), ZeroDivisionError("a slip"), OSError("no disk")], ids=repr)
def test_one_that_fails_stops_no_other(
    bench: Bench, capsys: pytest.CaptureFixture[str], trouble: BaseException
) -> None:
    bench.provisioners["a"].trouble["create"] = trouble
    code = bench.run("a", "b", "c")
    assert results(capsys) == [("a", code), ("b", 0), ("c", 0)]
    assert code in (1, 4)


def test_one_that_hangs_keeps_no_other_from_its_end(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    ended = 0

    async def until_the_others_have_ended() -> None:
        while ended < 2:
            await asyncio.sleep(0)

    def count(name: str) -> None:
        nonlocal ended
        ended += name == "destroy"

    bench.provisioners["a"].trouble["host"] = until_the_others_have_ended
    for name in ("b", "c"):
        bench.provisioners[name].on_call = count
    assert bench.run("a", "b", "c") == 0


@pytest.mark.parametrize("first", ["a", "b"])
def test_of_several_failures_the_first_recipes_counts_whoever_ends_first(bench: Bench, first: str) -> None:
    """The same command has the same exit code, whatever the timing."""
    ended = asyncio.Event()
    for name, error in (("a", EngineFailed("no engine")), ("b", NoMachine("sold out"))):

        async def fail(name: str = name, error: Exception = error) -> None:
            if name != first:
                await ended.wait()
            raise error

        bench.provisioners[name].trouble["host"] = fail
    bench.provisioners[first].on_call = lambda call: ended.set() if call == "destroy" else None
    assert bench.run("a", "b") == EngineFailed.exit_code


@pytest.mark.parametrize("billing", NAMES[:3])
def test_what_still_bills_outweighs_every_other_end(
    bench: Bench, capsys: pytest.CaptureFixture[str], billing: str
) -> None:
    bench.provisioners[billing].release = MayStillBill("it is still listed", COMMAND)
    bench.provisioners["b"].trouble["host"] = EngineFailed("no engine")
    assert bench.run("a", "b", "c") == 9
    assert COMMAND in capsys.readouterr().err


def test_a_run_that_raises_does_not_hide_how_the_others_ended(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a result cannot be written, what still bills elsewhere is told all the same, on a screen as in JSON."""
    usual = RunFolder.write_json

    def full(folder: RunFolder, name: str, data: Any) -> Path:
        if name == "result.json" and folder.run_id.startswith("a-"):
            raise OSError("No space left on device")
        return usual(folder, name, data)

    monkeypatch.setattr(RunFolder, "write_json", full)
    bench.provisioners["b"].release = MayStillBill("it is still listed", COMMAND)
    assert bench.run("a", "b", "c", as_json=False) == 9
    said = capsys.readouterr()
    assert COMMAND in said.out + said.err
    assert "c-" in said.out
    assert "No space left" in said.err
    assert bench.let_go()


def test_a_machine_that_still_bills_without_a_result_is_told_beside_the_others(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = RunFolder.write_json

    def full(folder: RunFolder, name: str, data: Any) -> Path:
        if name == "result.json" and folder.run_id.startswith("a-"):
            raise OSError("No space left on device")
        return usual(folder, name, data)

    monkeypatch.setattr(RunFolder, "write_json", full)
    bench.provisioners["a"].release = MayStillBill("it is still listed", COMMAND)
    assert bench.run("a", "b") == 9
    said = capsys.readouterr()
    assert COMMAND in said.err
    assert [run["recipe"] for run in json.loads(said.out)["runs"]] == ["b"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_all_and_lets_all_go(
    bench: Bench, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    gathering = Gathering(3)
    bench.each("ready_for", gathering.meet_and(hang))
    bench.provisioners["b"].trouble["ready_for"] = gathering.meet_and(signals(number))
    assert bench.run("a", "b", "c") == 130
    assert results(capsys) == [("a", 130), ("b", 130), ("c", 130)]
    assert bench.let_go()
    assert all("fetch" in bench.provisioners[name].calls for name in ("a", "b", "c")), "what there is is collected"


def test_a_second_signal_skips_the_collecting_of_all(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.each("fetch", hang)
    gathering = Gathering(2)
    bench.provisioners["a"].trouble["ready_for"] = gathering.meet_and(hang)
    bench.provisioners["b"].trouble["ready_for"] = gathering.meet_and(signals(signal.SIGINT, signal.SIGINT))
    assert bench.run("a", "b") == 130
    assert bench.let_go()


def test_a_signal_begins_no_further_run(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.each("ready_for", signals(signal.SIGINT))
    assert bench.run(*NAMES, parallel=2) == 130
    assert bench.created() == ["a", "b"]
    assert results(capsys) == [("a", 130), ("b", 130)]


def test_a_signal_while_a_later_run_is_planned_begins_it_no_more(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_KEPT_PLANS", 1)
    planning = asyncio.Event()

    async def signal_while_planned() -> None:
        await planning.wait()
        await signals(signal.SIGINT)()

    async def plan_slowly() -> None:
        planning.set()
        for _ in range(200):
            await asyncio.sleep(0)

    bench.provisioners["a"].trouble["ready_for"] = signal_while_planned
    bench.planned["b", 2] = plan_slowly
    assert bench.run("a", "b", "c", parallel=2) == 130
    assert bench.created() == ["a"]
    assert bench.let_go()


def test_a_signal_before_the_first_is_leased_rents_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.planned["b", 1] = signals(signal.SIGTERM)
    assert bench.run("a", "b") == 130
    said = capsys.readouterr()
    assert "nothing was rented" in said.err
    assert bench.created() == []


def test_a_later_run_that_cannot_be_planned_any_more_stops_no_other(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_KEPT_PLANS", 1)
    bench.planned["b", 2] = Refused("the text is gone")
    assert bench.run("a", "b", "c") == 3
    said = capsys.readouterr()
    assert [run["recipe"] for run in json.loads(said.out)["runs"]] == ["a", "c"]
    assert "the text is gone" in said.err


def test_each_of_very_many_is_planned_when_its_turn_comes(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_KEPT_PLANS", 2)
    assert bench.run("a", "b", "c", "d") == 0
    assert sorted(bench.planned_so_far) == ["a", "b", "c", "c", "d", "d"]


def test_one_may_be_ended_without_the_others(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    gathering = Gathering(3)
    others = asyncio.Event()

    async def wish() -> None:
        bench.wish_to_stop("b")
        await wait()

    async def wait() -> None:
        await others.wait()

    bench.each("ready_for", gathering.meet_and(wait))
    bench.provisioners["a"].trouble["ready_for"] = gathering.meet_and(wish)
    bench.provisioners["b"].on_call = lambda name: others.set() if name == "destroy" else None
    assert bench.run("a", "b", "c") == 130
    assert results(capsys) == [("a", 0), ("b", 130), ("c", 0)]


def test_the_ledger_and_the_journal_hold_all_of_them(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.each("create", Gathering(len(NAMES)).meet)
    bench.run(*NAMES)
    found = documents(capsys)
    ledger = Ledger(bench.home)
    assert sorted((row["run_id"], row["status"]) for row in ledger.runs()) == sorted(
        (run["run_id"], "completed") for run in found
    )
    journal = Journal(ledger.path)
    assert journal.open_leases() == []
    names = {run["lease"]["name"] for run in found}
    assert len(names) == len(NAMES)
    assert {journal.state(name) for name in names} == {"gone"}
    with closing(sqlite3.connect(ledger.path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        ends = db.execute("SELECT count(*) FROM events WHERE event = 'run-ended'").fetchone()
    assert ends == (len(NAMES),)


def test_what_each_run_writes_lies_in_a_folder_of_its_own(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.run(*NAMES)
    for run in documents(capsys):
        folder = bench.home / "runs" / run["run_id"]
        assert json.loads((folder / "result.json").read_text()) == run
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        assert {event["run_id"] for event in events if "run_id" in event} == {run["run_id"]}


def test_in_a_pipe_each_line_names_its_run(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("a", "b", "c", as_json=False) == 0
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line]
    assert all(line[:3] in ("[a]", "[b]", "[c]") for line in lines)
    for name in ("a", "b", "c"):
        phases = [line.split()[1] for line in lines if line.startswith(f"[{name}]") and " done " in line]
        assert phases == ["plan", "provision", "prepare", "launch", "drive", "collect", "release"]
    ends = [line for line in said.out.splitlines() if "done in" in line]
    assert [line[:2] for line in ends] == ["a-", "b-", "c-"]

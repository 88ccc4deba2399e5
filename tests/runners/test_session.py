"""Whatever happens in a run, its machine is let go exactly once, and the result says how it went."""

from __future__ import annotations

import asyncio
import errno
import json
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import MayStillBill
from provisioners.files import write_whole
from provisioners.journal import Journal
from provisioners.masking import Mask
from recipes.errors import (
    EngineFailed,
    HostCommandFailed,
    MayStillBillError,
    NoMachine,
    RecipeError,
    UsageError,
    WorkloadFailed,
)
from runners import clock, watching
from runners import session as session_module
from runners.clock import Clock
from runners.engine import EngineSample
from runners.engines.openai import OpenAIEndpoint
from runners.events import Event, RunStarted
from runners.ledger import Ledger
from runners.run_folder import RunFolder
from runners.session import Session
from runners.telemetry import EngineLog
from tests.emulators.engine import EngineDouble
from tests.emulators.leaps import Leaps
from tests.emulators.provisioner import COMMAND, ProvisionerDouble, Trouble, hang, plan_of, stumble

PLACES = {"create": "provision", "host": "provision", "ready_for": "prepare"}
PLACES |= {"launch": "launch", "drive": "drive", "fetch": "collect"}
EXPECTED: Mapping[str, type[RecipeError]] = {
    "provision": NoMachine,
    "prepare": HostCommandFailed,
    "launch": EngineFailed,
    "drive": WorkloadFailed,
    "collect": HostCommandFailed,
}
FULL = OSError(errno.ENOSPC, "No space left on device")
each_place = pytest.mark.parametrize("place", PLACES)


class Bench:
    """Runs a session against doubles; `trouble` is by place: the provisioner's methods, launch and drive."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base, self.home, self.monkeypatch = folder, folder / "home", monkeypatch
        self.provisioner = ProvisionerDouble()
        self.trouble = self.provisioner.trouble
        self.ledger = Ledger(self.home)
        self.folder = RunFolder.create(self.home, "test")
        self.session: Session
        monkeypatch.setattr(watching, "_EVERY_S", 3600.0)  # however long the run takes, what is called is the same
        for name in ("launch", "drive"):
            monkeypatch.setattr(session_module, name, self._after_trouble(name, getattr(session_module, name)))

    def _after_trouble(self, name: str, usual: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any) -> Any:
            await stumble(self.trouble.get(name))
            return await usual(*arguments)

        return call

    def run(self, *listeners: Callable[[Event], None], **settings: Any) -> dict[str, Any]:
        async def run() -> dict[str, Any]:
            async with asyncio.timeout(120), EngineDouble() as engine:
                plan = plan_of(self.provisioner, self.base, f"{engine.url}/v1", **settings)
                self.session = Session(plan, self.folder, Clock(), self.ledger, {}, *listeners)
                return await self.session.run()

        return asyncio.run(run())

    def interrupted(self, times: int = 1) -> Callable[[], Awaitable[None]]:
        """A signal comes, so many times, while the place would take forever."""

        async def interrupted() -> None:
            for _ in range(times):
                asyncio.get_running_loop().call_soon(self.session.interrupt, "SIGINT")
            await hang()

        return interrupted

    def fill_disk(self) -> None:
        """What is written into the folder while the run goes on meets a full disk, its result too."""
        names = ("events.jsonl", "install.log", "engine.log", "telemetry.jsonl", "requests.jsonl", "answers.jsonl")
        for name in (*names, "bug.log"):
            (self.folder.path / name).symlink_to("/dev/full")
        self.monkeypatch.setattr("runners.run_folder.write_whole", self._write)

    def _write(self, path: Path, content: str) -> None:
        if path.name == "result.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_whole(path, content)

    @property
    def destroyed(self) -> int:
        return self.provisioner.calls.count("destroy")

    @property
    def state(self) -> str | None:
        entry = Journal(self.ledger.path).of_run(self.folder.run_id)
        return entry.state if entry else None

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder.path / "events.jsonl").read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_a_run_that_succeeds_lets_go_once(bench: Bench) -> None:
    result = bench.run()
    assert (result["outcome"]["status"], result["exit_code"], result["warnings"]) == ("completed", 0, [])
    assert bench.provisioner.calls == ["create", "host", "ready_for", "fetch", "destroy"]
    assert (bench.state, result["release"]["state"]) == ("gone", "gone")
    assert [phase["name"] for phase in result["phases"]][-1] == "release"
    assert json.loads((bench.folder.path / "result.json").read_text()) == result


@each_place
def test_a_failure_lets_go_once_and_is_told(bench: Bench, place: str) -> None:
    bench.trouble[place] = EXPECTED[PLACES[place]]("it went wrong", advice="mend it")
    result = bench.run()
    row = {"status": "failed", "phase": PLACES[place], "error": "it went wrong", "advice": "mend it"}
    assert result["outcome"] == row
    assert result["exit_code"] == EXPECTED[PLACES[place]].exit_code
    # Who could not create says so; then there is nothing to destroy.
    assert (bench.destroyed, bench.state) == (0 if place == "create" else 1, "gone")


@each_place
def test_a_bug_lets_go_once_and_leaves_its_traceback(bench: Bench, place: str) -> None:
    bench.trouble[place] = ZeroDivisionError("a slip")
    result = bench.run()
    assert result["outcome"]["phase"] == PLACES[place]
    assert "a bug in recipe: ZeroDivisionError: a slip" in result["outcome"]["error"]
    assert "ZeroDivisionError" in (bench.folder.path / "bug.log").read_text()
    assert (bench.destroyed, result["exit_code"]) == (1, 1)


@each_place
def test_a_full_disk_lets_go_once_and_is_no_bug(bench: Bench, place: str) -> None:
    bench.trouble[place] = FULL
    result = bench.run()
    assert "No space left" in result["outcome"]["error"]
    assert "disk is full" in result["outcome"]["advice"]
    assert result["exit_code"] == EXPECTED[PLACES[place]].exit_code
    assert (bench.destroyed, bench.state) == (1, "gone")


@each_place
@pytest.mark.parametrize("trouble", [FULL, ZeroDivisionError("a slip")], ids=["full", "bug"])
def test_a_disk_that_stays_full_lets_go_once(bench: Bench, place: str, trouble: Trouble) -> None:
    bench.trouble[place] = trouble
    bench.fill_disk()
    with pytest.raises(UsageError, match=r"No space left.*the machine is gone, proven: it is not listed any more"):
        bench.run()
    assert (bench.destroyed, bench.state) == (1, "gone")


def test_answers_that_cannot_be_written_end_the_drive_and_let_go(bench: Bench) -> None:
    (bench.folder.path / "requests.jsonl").symlink_to("/dev/full")
    result = bench.run()
    assert (result["outcome"]["phase"], result["exit_code"]) == ("drive", WorkloadFailed.exit_code)
    assert "No space left" in result["outcome"]["error"]
    assert (bench.destroyed, bench.state) == (1, "gone")


def test_a_ledger_that_cannot_be_written_is_no_bug_and_lets_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Journal, "created", full)
    result = bench.run()
    assert result["exit_code"] == NoMachine.exit_code
    assert "database or disk is full" in result["outcome"]["error"]
    assert (bench.destroyed, bench.state) == (1, "gone")


@pytest.mark.parametrize("error", [ZeroDivisionError("a slip"), BrokenPipeError("nobody reads")])
def test_a_listener_that_fails_changes_nothing(bench: Bench, error: Exception) -> None:
    def fail(event: Event) -> None:
        raise error

    assert bench.run(fail)["exit_code"] == 0
    assert bench.destroyed == 1
    assert bench.events()[-1]["event"] == "run-ended"


def test_the_lease_is_in_the_journal_before_it_is_asked_for(bench: Bench) -> None:
    seen: dict[str, str | None] = {}
    bench.provisioner.on_call = lambda name: seen.update({name: bench.state})
    bench.run()
    states = (seen["create"], seen["host"], seen["ready_for"], seen["destroy"], bench.state)
    assert states == ("intended", "created", "reached", "releasing", "gone")


@each_place
def test_a_signal_ends_the_phase_and_lets_go(bench: Bench, place: str) -> None:
    bench.trouble[place] = bench.interrupted()
    result = bench.run()
    assert result["outcome"] == {"status": "interrupted", "phase": PLACES[place], "error": "SIGINT"}
    assert (result["exit_code"], bench.destroyed, bench.state) == (130, 1, "gone")
    assert ("fetch" in bench.provisioner.calls) is (place not in ("create", "host"))


def test_a_signal_before_the_first_step_rents_nothing(bench: Bench) -> None:
    def on_event(event: Event) -> None:
        if isinstance(event, RunStarted):
            bench.session.interrupt("SIGTERM")

    result = bench.run(on_event)
    assert (result["outcome"]["status"], result["exit_code"]) == ("interrupted", 130)
    assert bench.provisioner.calls == []


def test_a_second_signal_skips_the_collecting(bench: Bench) -> None:
    bench.trouble |= {"drive": bench.interrupted(times=2), "fetch": hang}
    result = bench.run()
    assert (result["outcome"]["phase"], result["exit_code"]) == ("drive", 130)
    assert "fetch" not in bench.provisioner.calls
    assert (bench.destroyed, bench.state) == (1, "gone")


def test_a_second_signal_cuts_the_collecting_short(bench: Bench) -> None:
    bench.trouble |= {"drive": bench.interrupted(), "fetch": bench.interrupted()}
    result = bench.run()
    assert (result["outcome"]["phase"], result["exit_code"]) == ("drive", 130)
    assert (bench.destroyed, bench.state) == (1, "gone")


def test_signals_do_not_stop_the_letting_go(bench: Bench) -> None:
    ended = []

    async def slow() -> None:
        for _ in range(3):
            asyncio.get_running_loop().call_soon(bench.session.interrupt, "SIGINT")
            await asyncio.sleep(0)
        ended.append(True)

    bench.trouble["destroy"] = slow
    result = bench.run()
    assert (result["outcome"]["status"], result["exit_code"], ended) == ("interrupted", 130, [True])
    assert (bench.destroyed, bench.state) == (1, "gone")


@each_place
def test_a_lease_that_is_not_proven_gone_is_what_matters(bench: Bench, place: str) -> None:
    bench.trouble[place] = ZeroDivisionError("a slip")
    bench.provisioner.release = MayStillBill("it is still listed", COMMAND)
    result = bench.run()
    release = {"state": "may-still-bill", "proof": "", "reason": "it is still listed", "command": COMMAND}
    assert (result["release"], result["exit_code"]) == ({"name": result["lease"]["name"], **release}, 9)
    assert bench.state == "may-still-bill"


@pytest.mark.parametrize("error", [ConnectionError("no route"), ZeroDivisionError("a slip"), asyncio.CancelledError()])
def test_a_release_that_raises_may_still_bill(bench: Bench, error: BaseException) -> None:
    bench.trouble["destroy"] = error
    result = bench.run()
    assert (result["exit_code"], result["release"]["state"]) == (9, "may-still-bill")
    assert type(error).__name__ in result["release"]["reason"]
    assert result["release"]["command"] == COMMAND
    assert (bench.destroyed, bench.state) == (1, "may-still-bill")


def test_without_a_result_the_command_that_ends_the_billing_is_still_told(bench: Bench) -> None:
    bench.provisioner.release = MayStillBill("it is still listed", COMMAND)
    bench.fill_disk()
    with pytest.raises(MayStillBillError, match="it is still listed") as raised:
        bench.run()
    assert (raised.value.advice, raised.value.exit_code) == (COMMAND, 9)
    assert bench.state == "may-still-bill"


@pytest.mark.parametrize("place", ["create", "host", "fetch"])
def test_a_phase_that_outlasts_its_deadline_fails(bench: Bench, place: str) -> None:
    bench.trouble[place] = hang
    phase = PLACES[place]
    result = bench.run(limits={"deadlines": {phase: "0.1s"}})
    assert result["outcome"]["error"] == f"{phase} did not end within limits.deadlines.{phase}"
    assert result["exit_code"] == EXPECTED[phase].exit_code
    assert (bench.destroyed, bench.state) == (1, "gone")


@pytest.mark.parametrize("place", ["create", "host", "fetch"])
def test_a_timeout_of_the_provisioners_own_is_not_the_deadline(bench: Bench, place: str) -> None:
    bench.trouble[place] = TimeoutError("the provider did not answer")
    result = bench.run()
    assert "the provider did not answer" in result["outcome"]["error"]
    assert "limits." not in result["outcome"]["error"] + result["outcome"]["advice"]
    assert (result["exit_code"], bench.destroyed) == (EXPECTED[PLACES[place]].exit_code, 1)


@pytest.mark.parametrize(("price", "storage"), [(3600.0, 0.0), (600.0, 3000.0)])
def test_a_drive_stops_before_it_costs_more_than_it_may(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, price: float, storage: float
) -> None:
    """A second costs a dollar: the drive ends after 48, and the collecting after half of what is left then."""
    leaps = Leaps(monkeypatch, clock)
    bench.trouble |= {"drive": lambda: leaps.on_and_hang(48), "fetch": lambda: leaps.on_and_hang(6)}
    result = bench.run(price=price, storage=storage, limits={"max_cost": 60})
    assert result["outcome"]["error"] == "drive did not end within limits.max_cost"
    assert result["exit_code"] == WorkloadFailed.exit_code
    assert any("collect did not end within limits.max_cost" in warning for warning in result["warnings"])
    assert 48 < result["cost"]["total_usd"] <= 60
    assert result["cost"]["storage_usd"] == pytest.approx(result["cost"]["total_usd"] * storage / 3600, rel=1e-6)
    assert bench.destroyed == 1


def test_what_failed_first_counts_and_a_later_failure_is_a_warning(bench: Bench) -> None:
    bench.trouble |= {"drive": WorkloadFailed("the work failed"), "fetch": HostCommandFailed("no such host")}
    result = bench.run()
    assert (result["outcome"]["phase"], result["outcome"]["error"]) == ("drive", "the work failed")
    assert result["warnings"] == ["collect: no such host"]
    assert (result["exit_code"], bench.destroyed) == (WorkloadFailed.exit_code, 1)


def test_a_machine_that_there_never_was_costs_nothing(bench: Bench) -> None:
    bench.trouble["create"] = NoMachine("sold out")
    result = bench.run(price=3600.0)
    assert (result["cost"]["total_usd"], result["cost"]["billed_seconds"]) == (0, 0)
    assert {phase["usd"] for phase in result["phases"]} == {0.0}


def test_a_machine_that_may_have_been_there_is_counted(bench: Bench) -> None:
    bench.trouble["create"] = ConnectionError("the answer was lost")
    assert bench.run(price=3600.0)["cost"]["total_usd"] > 0


@pytest.mark.parametrize("error", [ValueError("odd"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"), FULL])
def test_metrics_that_cannot_be_read_leave_a_gap(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    read = 0

    def metrics(_: object, text: str) -> EngineSample:
        nonlocal read
        read += 1
        if read == 1:
            raise error
        return EngineSample(running=1.0)

    monkeypatch.setattr(OpenAIEndpoint, "metrics_path", "/metrics")
    monkeypatch.setattr(OpenAIEndpoint, "metrics", metrics)
    assert bench.run()["outcome"]["status"] == "completed"
    assert read >= 2, "at the beginning and at the end, and in a long run between them"
    rows = map(json.loads, (bench.folder.path / "telemetry.jsonl").read_text().splitlines())
    running = [row["running"] for row in rows if row["source"] == "engine"]
    assert 1 <= len(running) <= read - 1
    assert set(running) == {1.0}


def test_telemetry_that_cannot_be_written_does_not_end_the_drive(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenAIEndpoint, "metrics_path", "/metrics")
    monkeypatch.setattr(OpenAIEndpoint, "metrics", lambda *_: EngineSample(running=1.0))
    (bench.folder.path / "telemetry.jsonl").symlink_to("/dev/full")
    assert bench.run()["outcome"]["status"] == "completed"


def test_an_engine_log_that_cannot_be_written_is_closed_without_a_word() -> None:
    log = EngineLog(Path("/dev/full"), OpenAIEndpoint(), Mask())
    with pytest.raises(OSError, match="No space left"):
        log.feed(b"a line\n")
    log.close()

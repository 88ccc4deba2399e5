"""What an exception of a phase means to whoever reads the result."""

from __future__ import annotations

import asyncio
import errno
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from provisioners import acquire
from provisioners.contract import Clearance, Lease, MayStillBill, Observed, Order
from provisioners.masking import Mask
from recipes.errors import (
    EngineFailed,
    ExitCode,
    HostCommandFailed,
    NoCapacity,
    NoMachine,
    RecipeError,
    Refused,
    WorkloadFailed,
)
from runners import clock, watching
from runners import session as session_module
from runners.clock import Clock
from runners.failures import FAILURE_IN, failure, kept
from runners.ledger import Ledger
from runners.outcome import Failed, exit_code
from runners.run_folder import RunFolder
from runners.session import Session
from tests.emulators.drives import plan_over, prose
from tests.emulators.engine import EngineDouble
from tests.emulators.leaps import Leaps
from tests.emulators.provisioner import COMMAND, ProvisionerDouble, hang

SECRET = "hf_a_secret_token"
MASK = Mask([SECRET])
PHASES = ("provision", "prepare", "launch", "drive", "collect")
KNOWN: Mapping[type[RecipeError], int] = {
    Refused: 3,
    NoMachine: 4,
    NoCapacity: 4,
    HostCommandFailed: 5,
    EngineFailed: 6,
    WorkloadFailed: 7,
}
EXIT_IN = {"provision": 4, "prepare": 5, "launch": 6, "drive": 7, "collect": 5}
each_phase = pytest.mark.parametrize("phase", PHASES)


@each_phase
@pytest.mark.parametrize("kind", KNOWN, ids=lambda kind: kind.__name__)
def test_a_known_error_keeps_its_words_and_its_exit_code_in_any_phase(
    tmp_path: Path, kind: type[RecipeError], phase: str
) -> None:
    failed = failure(kind("it went wrong", advice="mend it"), phase, MASK, tmp_path)
    assert failed == Failed(phase, "it went wrong", "mend it", ExitCode(KNOWN[kind]))
    assert exit_code(failed) == KNOWN[kind]
    assert list(tmp_path.iterdir()) == []


@each_phase
@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), sqlite3.OperationalError("database or disk is full")],
    ids=["os-error", "sqlite"],
)
def test_a_disk_that_is_full_is_the_phases_own_failure(tmp_path: Path, error: Exception, phase: str) -> None:
    failed = failure(error, phase, MASK, tmp_path)
    assert (failed.phase, failed.exit_code) == (phase, EXIT_IN[phase])
    assert "disk" in failed.advice
    assert "bug" not in failed.error


@each_phase
@pytest.mark.parametrize("error", [ZeroDivisionError("a slip"), KeyError("port"), AssertionError()])
def test_anything_else_is_a_bug_with_its_traceback_on_disk(tmp_path: Path, error: Exception, phase: str) -> None:
    failed = failure(error, phase, MASK, tmp_path)
    assert failed.exit_code == ExitCode.BUG
    assert failed.error.startswith("a bug in recipe: ")
    assert type(error).__name__ in failed.error
    assert str(tmp_path / "bug.log") in failed.advice
    assert type(error).__name__ in (tmp_path / "bug.log").read_text()


def test_a_second_bug_is_added_to_the_first(tmp_path: Path) -> None:
    failure(ZeroDivisionError("the first"), "drive", MASK, tmp_path)
    failure(ZeroDivisionError("the second"), "collect", MASK, tmp_path)
    log = (tmp_path / "bug.log").read_text()
    assert log.index("the first") < log.index("the second")


def test_of_a_group_of_tasks_the_first_error_counts(tmp_path: Path) -> None:
    inner = ExceptionGroup("inner", [HostCommandFailed("pip failed"), ZeroDivisionError("later")])
    group = ExceptionGroup("outer", [inner, OSError("last")])
    failed = failure(group, "prepare", MASK, tmp_path)
    assert (failed.error, failed.exit_code) == ("pip failed", ExitCode.HOST_COMMAND)


@pytest.mark.parametrize(
    "error",
    [EngineFailed(f"401 for {SECRET}"), OSError(f"cannot write {SECRET}"), ValueError(f"bad {SECRET}")],
    ids=["known", "os-error", "bug"],
)
def test_no_secret_is_in_what_is_told_or_kept(tmp_path: Path, error: Exception) -> None:
    failed = failure(error, "launch", MASK, tmp_path)
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert SECRET not in failed.error + failed.advice + written
    assert "***" in failed.error


def test_an_advice_is_masked_as_well(tmp_path: Path) -> None:
    failed = failure(EngineFailed("refused", advice=f"curl -H 'Bearer {SECRET}'"), "launch", MASK, tmp_path)
    assert SECRET not in failed.advice


def test_a_traceback_that_cannot_be_kept_is_told_instead(tmp_path: Path) -> None:
    advice = kept(f"Traceback: {SECRET}\nZeroDivisionError", MASK, tmp_path / "missing")
    assert "ZeroDivisionError" in advice
    assert SECRET not in advice


def test_every_phase_that_can_fail_has_a_failure() -> None:
    """Those with a deadline of their own, and keeping the engine, whose limits are the run's."""
    assert {phase: int(kind.exit_code) for phase, kind in FAILURE_IN.items()} == {**EXIT_IN, "keep": 6}


PLACES = {"ready_for": "prepare", "launch": "launch", "drive": "drive"}


class Bench:
    """A session against doubles: something goes wrong at a place, and the provider has its own word on the machine."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base = base
        self.provisioner = ProvisionerDouble()
        self._patch = monkeypatch
        monkeypatch.setattr(watching, "_EVERY_S", 3600.0)  # who asks is the failure, however long the run takes

    def goes_wrong(self, place: str, error: Exception) -> None:
        if place in ("launch", "drive"):

            async def fail(*_: object) -> None:
                raise error

            self._patch.setattr(session_module, place, fail)
        else:
            self.provisioner.trouble[place] = error

    def run(self, *, env: Mapping[str, str] | None = None, **settings: Any) -> dict[str, Any]:
        async def run() -> dict[str, Any]:
            async with asyncio.timeout(180), EngineDouble() as engine:
                url, texts = f"{engine.url}/v1", {"a": prose("Geneva", 2)}
                plan = plan_over(self.base, texts, url=url, provisioner=self.provisioner, **settings)
                offers = tuple(replace(plan.offer, id=f"offer-{n}") for n in range(2))
                plan = replace(plan, offers=offers)
                self.folder = RunFolder.create(self.base / "home", "test")
                return await Session(plan, self.folder, Clock(), Ledger(self.base / "home"), env or {}).run()

        return asyncio.run(run())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("state", ["stopped", "failed", "gone"])
def test_a_machine_that_was_taken_away_is_the_cause_of_what_failed_on_it(
    bench: Bench, place: str, state: Literal["stopped", "failed", "gone"]
) -> None:
    bench.provisioner.observed = Observed(state=state, message="pod k3j9 is EXITED")
    bench.goes_wrong(place, HostCommandFailed("the connection was lost", advice="look into the log"))
    result = bench.run()
    assert result["exit_code"] == NoMachine.exit_code
    outcome = result["outcome"]
    assert outcome["phase"] == PLACES[place]
    assert "taken away" in outcome["error"]
    assert "pod k3j9 is EXITED" in outcome["error"]
    assert "the connection was lost" in outcome["error"], "what was seen first is kept"
    assert bench.provisioner.calls.count("observe") == 1
    assert bench.provisioner.calls[-1] == "destroy"
    assert result["release"]["state"] == "gone"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("state", ["running", "starting", "unknown"])
def test_a_machine_that_is_there_is_not_blamed(
    bench: Bench, place: str, state: Literal["running", "starting", "unknown"]
) -> None:
    bench.provisioner.observed = Observed(state=state, message="pod k3j9 is RUNNING")
    bench.goes_wrong(place, HostCommandFailed("pip failed", advice="look into the log"))
    result = bench.run()
    assert (result["outcome"]["error"], result["outcome"]["advice"]) == ("pip failed", "look into the log")
    assert result["exit_code"] == HostCommandFailed.exit_code


@pytest.mark.parametrize(
    "trouble", [ConnectionError("no route"), ZeroDivisionError("a slip"), asyncio.CancelledError()]
)
def test_a_provider_that_does_not_say_changes_nothing(bench: Bench, trouble: BaseException) -> None:
    bench.provisioner.trouble["observe"] = trouble
    bench.goes_wrong("drive", WorkloadFailed("3 of 3 documents failed"))
    result = bench.run()
    assert (result["outcome"]["error"], result["exit_code"]) == ("3 of 3 documents failed", 7)


def test_a_provider_that_never_answers_does_not_keep_the_machine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_PATIENCE_S", 0.05)
    bench.provisioner.trouble["observe"] = hang
    bench.goes_wrong("drive", WorkloadFailed("3 of 3 documents failed"))
    assert bench.run()["exit_code"] == 7
    assert bench.provisioner.calls[-1] == "destroy"


def test_nobody_is_asked_about_a_machine_that_did_its_work(bench: Bench) -> None:
    assert bench.run()["exit_code"] == 0
    assert "observe" not in bench.provisioner.calls


def test_a_machine_of_our_own_is_not_taken_away(bench: Bench) -> None:
    bench.provisioner.billable = False
    bench.goes_wrong("drive", WorkloadFailed("3 of 3 documents failed"))
    assert bench.run()["exit_code"] == 7
    assert "observe" not in bench.provisioner.calls


def test_from_a_machine_that_is_not_there_nothing_is_collected(bench: Bench) -> None:
    """It would only take time: nobody answers."""
    bench.provisioner.observed = Observed(state="gone", message="pod k3j9 is TERMINATED")
    bench.provisioner.trouble["fetch"] = hang
    bench.goes_wrong("drive", WorkloadFailed("3 of 3 documents failed"))
    assert bench.run()["exit_code"] == NoMachine.exit_code
    assert "fetch" not in bench.provisioner.calls


PROVIDERS_KEY = "rpa_the_providers_own_key"


def test_the_providers_key_is_in_nothing_that_the_run_leaves(bench: Bench) -> None:
    """Also where the provider, or somebody in between, repeats it."""
    bench.provisioner.secrets = ("PROVIDER_KEY",)
    bench.provisioner.observed = Observed(state="gone", message=f"401 for Bearer {PROVIDERS_KEY}")
    bench.provisioner.release = MayStillBill(f"502: Authorization: Bearer {PROVIDERS_KEY}", COMMAND)
    bench.goes_wrong("drive", WorkloadFailed(f"refused {PROVIDERS_KEY}"))
    result = bench.run(env={"PROVIDER_KEY": PROVIDERS_KEY})
    assert PROVIDERS_KEY not in json.dumps(result)
    assert leaks(bench.base / "home") == []


def test_the_providers_key_is_not_in_what_is_told_of_a_refusal(bench: Bench) -> None:
    bench.provisioner = Sparse(secrets=("PROVIDER_KEY",))
    bench.provisioner.refusals, bench.provisioner.words = 1, f"502: Authorization: Bearer {PROVIDERS_KEY}"
    assert bench.run(env={"PROVIDER_KEY": PROVIDERS_KEY})["exit_code"] == 0
    assert leaks(bench.base / "home") == []


def leaks(folder: Path) -> list[str]:
    """The files that hold the provider's key."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in paths if PROVIDERS_KEY.encode() in path.read_bytes()]


class Sparse(ProvisionerDouble):
    """Has no capacity for so many questions."""

    refusals: int = 0
    words: str = "sold out"
    on_refusal: Callable[[], None] = staticmethod(lambda: None)
    """Called when whoever asked has gone on as far as it can."""

    async def create(self, order: Order, clearance: Clearance) -> Lease:
        if self.refusals:
            self.refusals -= 1
            self.orders.append(order)
            asyncio.get_running_loop().call_soon(self.on_refusal)
            raise NoCapacity(f"{order.offer.id}: {self.words}")
        return await super().create(order, clearance)


def test_offers_are_tried_in_turn_and_each_refusal_is_told(bench: Bench) -> None:
    bench.provisioner = Sparse()
    bench.provisioner.refusals = 1
    result = bench.run()
    assert (result["exit_code"], result["offer"]["id"]) == (0, "offer-1")
    events = (bench.folder.path / "events.jsonl").read_text()
    assert "offer-0: sold out" in events
    assert bench.provisioner.calls.count("destroy") == 1


def test_no_capacity_anywhere_costs_nothing_and_says_what_to_do(bench: Bench) -> None:
    bench.provisioner = Sparse()
    bench.provisioner.refusals = 100
    result = bench.run(price=3600.0)
    assert (result["exit_code"], result["outcome"]["phase"]) == (4, "provision")
    assert "resources.retry" in result["outcome"]["advice"]
    assert (result["cost"]["total_usd"], result["lease"]) == (0, None)
    assert "destroy" not in bench.provisioner.calls


def test_with_patience_the_offers_are_asked_for_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acquire, "_ROUND_PAUSE_S", 0.001)
    bench.provisioner = Sparse()
    bench.provisioner.refusals = 5
    result = bench.run(resources={"provisioner": "local", "retry": "1h"})
    assert (result["exit_code"], result["offer"]["id"]) == (0, "offer-1")
    assert [order.offer.id for order in bench.provisioner.orders] == ["offer-0", "offer-1"] * 3


def test_patience_ends_with_the_reason(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    leaps = Leaps(monkeypatch, acquire, clock)
    bench.provisioner = Sparse()
    bench.provisioner.refusals = 10**6
    bench.provisioner.on_refusal = lambda: leaps.on(8)  # two offers make a round, and 15 s pass before the next
    result = bench.run(resources={"provisioner": "local", "retry": "70s"})
    assert result["exit_code"] == 4
    assert 2 < len(bench.provisioner.orders) <= 10
    assert "sold out" in result["outcome"]["error"], "the reason, and not a deadline"


def test_waiting_for_capacity_spends_nothing_of_what_the_run_may_cost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At this price the run may have its machine for half a minute; it waits for longer, and has none meanwhile."""
    monkeypatch.setattr(acquire, "_ROUND_PAUSE_S", 50)
    leaps = Leaps(monkeypatch, clock)
    bench.provisioner = Sparse()
    bench.provisioner.refusals = 2
    bench.provisioner.on_refusal = lambda: leaps.on(25)
    result = bench.run(resources={"provisioner": "local", "retry": "1h"}, price=3600.0, limits={"max_cost": 30})
    assert (result["exit_code"], len(bench.provisioner.orders)) == (0, 3)
    assert 0 < result["cost"]["total_usd"] < 30

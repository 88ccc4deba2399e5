"""A run whose client died goes on with another: the same machine, the same engine, its price and its deadline."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from provisioners.contract import MayStillBill
from recipes.errors import NoMachine, UsageError, WorkloadFailed
from runners.launch import ENGINE
from runners.telemetry.host import SAMPLER
from tests.emulators.engine import Refuse
from tests.emulators.forsaken import AGO_S, Bench
from tests.emulators.provisioner import COMMAND, hang


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_nothing_is_created_and_the_machine_is_let_go_at_the_end(bench: Bench) -> None:
    entry = bench.dies()
    result = bench.run(adopted=entry)
    assert (result["outcome"]["status"], result["exit_code"]) == ("completed", 0)
    changing = [call for call in bench.machine.calls if call != "observe"]  # a slow client looks at it meanwhile
    assert changing == ["host", "ready_for", "fetch", "destroy"]
    assert bench.machine.orders == []
    assert bench.journal.state(entry.lease.name) == "gone"
    assert result["release"] == {"name": entry.lease.name, "state": "gone", "proof": "it is not listed any more"}


def test_the_work_goes_on_from_the_answers_on_disk(bench: Bench) -> None:
    entry = bench.dies(after=3)
    result = bench.run(adopted=entry)
    assert result["requests"]["resumed"] == 3
    assert result["documents"] == {"done": 1, "total": 1, "unit": "document"}
    assert bench.answered == result["requests"]["resumed"] + result["requests"]["ok"]
    ids = [json.loads(line)["id"] for line in (bench.folder.path / "answers.jsonl").read_text().splitlines()]
    assert len(ids) == len(set(ids))


def test_what_a_token_cost_counts_the_tokens_of_both_clients(bench: Bench) -> None:
    """The machine of both was one."""
    result = bench.run(adopted=bench.dies())
    rows = [json.loads(line) for line in (bench.folder.path / "requests.jsonl").read_text().splitlines()]
    tokens = sum(row["prompt_tokens"] for row in rows)
    assert tokens > result["throughput"]["prompt_tokens"], "a speed is what this client saw"
    cost = result["cost"]
    assert cost["usd_per_million_prompt_tokens"] == pytest.approx(cost["total_usd"] / tokens * 1e6, rel=1e-3)
    assert cost["useful_seconds"] > 0
    assert cost["useful_fraction"] < 0.1


def test_a_run_that_nobody_left_has_resumed_nothing(bench: Bench) -> None:
    result = bench.run()
    assert (result["requests"]["resumed"], result["lease"]["adopted"]) == (0, False)


def test_the_lease_keeps_its_name_its_price_and_its_deadline(bench: Bench) -> None:
    bench.limits = {"max_duration": "5h", "max_cost": 1000}
    entry = bench.dies()
    result = bench.run(adopted=entry, price=99.0)
    assert entry.lease.deadline is not None
    assert result["lease"] == {
        "name": entry.lease.name,
        "id": "id-1",
        "price_usd_per_h": 36.0,
        "storage_usd_per_h": 3.6,
        "deadline": entry.lease.deadline.isoformat(timespec="seconds"),
        "adopted": True,
    }
    assert result["cost"]["price_usd_per_h"] == 36.0
    (started,) = [event for event in bench.events() if event["event"] == "run-started"][-1:]
    assert started["deadline"] == entry.lease.deadline.isoformat(timespec="seconds")


def test_it_is_billed_from_its_creation_on(bench: Bench) -> None:
    """Also for the time in which nobody minded it."""
    entry = bench.dies()
    result = bench.run(adopted=entry)
    before, provision = result["phases"][:2]
    assert before["name"] == "before"
    assert entry.created_at is not None
    until_now = datetime.fromisoformat(provision["started_at"]) - entry.created_at
    assert before["seconds"] == pytest.approx(until_now.total_seconds(), abs=0.01)
    assert before["seconds"] >= AGO_S
    assert before["usd"] == pytest.approx(before["seconds"] * 39.6 / 3600, rel=1e-6)
    assert result["cost"]["billed_seconds"] >= AGO_S
    cost = result["cost"]
    assert cost["total_usd"] == pytest.approx(cost["billed_seconds"] * 0.011, rel=0.001)
    assert cost["storage_usd"] == pytest.approx(cost["total_usd"] / 11, rel=0.001)
    assert round(sum(phase["usd"] for phase in result["phases"]), 10) == cost["total_usd"]
    assert round(cost["useful_usd"] + sum(cost["idle_usd"].values()), 10) == cost["total_usd"]
    took = datetime.fromisoformat(result["ended_at"]) - datetime.fromisoformat(result["started_at"])
    assert round(sum(phase["seconds"] for phase in result["phases"]), 3) == took.total_seconds()
    assert [phase["name"] for phase in result["phases"][1:]] == [
        *("provision", "prepare", "launch", "drive", "collect", "release")
    ]


def test_a_machine_of_which_no_id_was_known_is_billed_from_its_intention_on(bench: Bench) -> None:
    entry = bench.dies()
    intended = datetime.now(UTC) - timedelta(seconds=AGO_S)
    entry = replace(entry, lease=replace(entry.lease, id=None), created_at=None, intended_at=intended)
    result = bench.run(adopted=entry)
    assert result["cost"]["billed_seconds"] >= AGO_S


def test_a_creation_that_took_long_was_billed_as_well(bench: Bench) -> None:
    """As that of a run whose client lives."""
    entry = bench.dies()
    assert entry.created_at is not None
    result = bench.run(adopted=replace(entry, intended_at=entry.created_at - timedelta(seconds=AGO_S)))
    assert result["cost"]["billed_seconds"] >= 2 * AGO_S


def test_figures_of_different_requests_say_so(bench: Bench) -> None:
    result = bench.run(adopted=bench.dies())
    counted, requests = result["cost"]["counted"], result["requests"]
    assert counted["requests"] > requests["ok"] + requests["failed"]
    assert counted["prompt_tokens"] > result["throughput"]["prompt_tokens"]
    (told,) = [warning for warning in result["warnings"] if "taken over" in warning]
    assert f"of all {counted['requests']:,}" in told


def test_the_engine_is_looked_for_where_it_listens(bench: Bench) -> None:
    entry = bench.dies()
    port = json.loads((bench.folder.path / "engine.json").read_text())["port"]
    bench.run(adopted=entry)
    ((name, command),) = [one for one in bench.machine.started if one[0] != SAMPLER]
    assert name == ENGINE
    assert f"--port {port}" in command
    assert bench.machine.forwarded == [port]
    assert bench.machine.ports_given == 0


def test_a_client_that_died_before_the_launch_has_left_no_port(bench: Bench) -> None:
    entry = bench.dies()
    (bench.folder.path / "engine.json").unlink()
    assert bench.run(adopted=entry)["exit_code"] == 0
    assert bench.machine.ports_given == 1


def test_the_engines_log_of_before_is_kept(bench: Bench) -> None:
    entry = bench.dies()
    (bench.folder.path / "engine.log").write_text("what the first client heard\n")
    bench.run(adopted=entry)
    assert (bench.folder.path / "engine.log.1").read_text() == "what the first client heard\n"
    assert (bench.folder.path / "engine.log").read_text() == "listening\n"


def test_further_clients_keep_every_log(bench: Bench) -> None:
    entry = bench.dies()
    for text in ("first", "second"):
        bench.forsaken()
        (bench.folder.path / "engine.log").write_text(text)
        bench.run(adopted=entry)
    kept = [(bench.folder.path / f"engine.log{end}").read_text() for end in (".1", ".2", "")]
    assert kept == ["first", "second", "listening\n"]


def test_the_ledger_tells_of_both_clients(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = bench.dies()
    begun = bench.ledger.run(bench.folder.run_id)
    assert begun is not None
    statuses: list[str] = []

    def on_call(_: str) -> None:
        row = bench.ledger.run(bench.folder.run_id)
        assert row is not None
        assert row["pid"] == os.getpid()
        statuses.append(row["status"])

    bench.machine.on_call = on_call
    bench.run(adopted=entry)
    assert set(statuses) == {"running"}
    (row,) = bench.ledger.runs()
    assert (row["run_id"], row["status"], row["started_at"]) == (entry.lease.run_id, "completed", begun["started_at"])


def test_what_the_run_was_is_not_written_anew(bench: Bench) -> None:
    entry = bench.dies()
    names = ("recipe.yaml", "resolved.json", "plan.json")
    for name in names:
        (bench.folder.path / name).write_text(f"{name} of the first client")
    bench.run(adopted=entry)
    assert [(bench.folder.path / name).read_text() for name in names] == [
        f"{name} of the first client" for name in names
    ]


def test_a_deadline_that_has_passed_lets_go_at_once(bench: Bench) -> None:
    entry = bench.dies()
    entry = replace(entry, lease=replace(entry.lease, deadline=datetime.now(UTC) - timedelta(seconds=1)))
    bench.machine.trouble["host"] = hang
    result = bench.run(adopted=entry)
    assert (result["outcome"]["phase"], result["exit_code"]) == ("provision", NoMachine.exit_code)
    assert "the lease's deadline" in result["outcome"]["error"]
    assert bench.machine.calls[-1] == "destroy"


@pytest.mark.parametrize("place", ["host", "ready_for"])
def test_a_machine_that_cannot_be_had_back_is_let_go(bench: Bench, place: str) -> None:
    entry = bench.dies()
    bench.machine.trouble[place] = NoMachine("it does not let us in", advice="mend it")
    result = bench.run(adopted=entry)
    assert (result["outcome"]["error"], result["exit_code"]) == ("it does not let us in", NoMachine.exit_code)
    assert result["cost"]["billed_seconds"] >= AGO_S, "it has been there, and has been billed"
    assert (bench.machine.calls.count("destroy"), bench.journal.state(entry.lease.name)) == (1, "gone")


def test_what_may_still_bill_after_an_adoption_is_what_matters(bench: Bench) -> None:
    entry = bench.dies()
    bench.machine.release = MayStillBill("it is still listed", COMMAND)
    result = bench.run(adopted=entry)
    assert (result["exit_code"], bench.journal.state(entry.lease.name)) == (9, "may-still-bill")


def test_work_that_fails_again_lets_go_and_keeps_its_answers(bench: Bench) -> None:
    entry = bench.dies(after=2)
    result = bench.run(adopted=entry, faults={n: Refuse(500) for n in range(4, 100)})  # one is the launch's
    assert result["exit_code"] == WorkloadFailed.exit_code
    assert (result["requests"]["resumed"], bench.answered) == (2, 4)
    assert bench.machine.calls[-1] == "destroy"


def test_of_two_clients_that_adopt_at_once_the_second_is_told_and_touches_nothing(bench: Bench) -> None:
    entry = bench.dies()
    bench.ledger.adopt(bench.folder.run_id, os.getpid())
    with pytest.raises(UsageError, match=f"by process {os.getpid()}"):
        bench.run(adopted=entry)
    assert bench.machine.calls == []
    assert bench.journal.state(entry.lease.name) == "reached"

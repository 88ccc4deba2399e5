"""What is going on, as one document."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runners.ongoing.overview import ENDED_SHOWN_S, overview
from tests.runners.ongoing.states import NOW, RUN, at, ended, found, lease, live, state


def run_of(**changes: Any) -> dict[str, Any]:
    (run,) = overview(state(found(**changes)))["runs"]
    return dict(run)


def test_what_grows_is_reckoned_up_to_now() -> None:
    run = run_of(live=live(at=at(2)))
    assert run["usd"] == pytest.approx(0.81 + 3.58 * 2 / 3600)
    assert run["left_s"] == pytest.approx(1378.5)
    assert run["seconds"] == 822.0
    assert run["phase"] == {"name": "drive", "started_at": at(240), "doing": "", "seconds": 240.0}
    assert run["client"] == "running"


def test_what_does_not_bill_does_not_grow() -> None:
    assert run_of(live=live(at=at(4), billing=False))["usd"] == 0.81


def test_a_client_that_writes_no_more_is_silent_and_one_without_a_process_is_gone() -> None:
    assert run_of(live=live(at=at(12)))["client"] == "silent"
    assert run_of(live=live(at=at(12)))["seen_s"] == 12.0
    gone = run_of(live=live(at=at(40)), lives=False, machine=lease())
    assert gone["client"] == "gone"
    assert gone["left_s"] is None
    assert gone["phase"]["seconds"] == 200.0, "nobody knows what happened after that"
    assert gone["usd"] == pytest.approx(0.6), "the journal knows since when its machine bills"
    assert gone["lease"]["id"] == "k3j9"


def test_a_run_without_live_json_is_shown_with_what_the_ledger_knows() -> None:
    run = run_of(live=None)
    assert (run["run_id"], run["phase"], run["usd"], run["gpus"]) == (RUN, None, None, [])
    assert run["seconds"] == 822.0


def test_the_totals_count_what_bills_now_and_what_began_today() -> None:
    yesterday = live(started_at=(NOW - timedelta(hours=7)).isoformat(), usd=50.0)
    other = lease("ssh", "other-20261121-000000-aaaa")
    document = overview(
        state(found(), found(run_id="b", live=yesterday), alone=[other], ended_today_usd=1.0, ended=[ended()])
    )
    assert document["usd_per_h"] == pytest.approx(3.58 * 2 + 3.6)
    assert document["usd_today"] == pytest.approx(1.0 + 0.81 + 3.58 * 0.5 / 3600)
    assert document["machines"][0]["run_id"] == "other-20261121-000000-aaaa"


def test_gpus_have_their_names_and_a_lost_one_says_why() -> None:
    first, second = run_of()["gpus"]
    assert (first["name"], first["utilization"], first["memory_total_mib"], first["power_limit_w"]) == (
        "A100 PCIe",
        0.92,
        81920,
        300,
    )
    assert second["throttle"] == ["sw_power_cap"]
    samples = live()["samples"]
    samples["host"]["gpus"] = samples["host"]["gpus"][:1]
    lost = run_of(live=live(samples=samples, lost_gpus=[{"index": 1, "why": "GPU is lost"}]))["gpus"]
    assert [gpu["lost"] for gpu in lost] == [None, "GPU is lost"]
    assert lost[1]["utilization"] is None


def test_what_a_sampler_said_long_ago_says_nothing_about_now() -> None:
    samples = live()["samples"]
    samples["host"]["at"] = at(60)
    run = run_of(live=live(samples=samples))
    assert run["host"] is None
    assert run["gpus"] == []


def test_runs_that_ended_are_told_of_for_some_minutes_the_newest_first() -> None:
    old = ended(run_id="old", ended_at=NOW - timedelta(seconds=ENDED_SHOWN_S + 1))
    new = ended(run_id="new", ended_at=NOW - timedelta(seconds=1))
    document = overview(state(ended=[ended(), new, old]))
    assert [run["run_id"] for run in document["ended"]] == ["new", "local-smoke-20261121-055000-aaaa"]
    assert document["ended"][0]["ago_s"] == 1.0
    only = overview(state(ended=[old], only="old"))
    assert [run["run_id"] for run in only["ended"]] == ["old"], "who asks for it is told, however long ago"


def test_a_run_that_was_lost_and_holds_no_machine_has_ended() -> None:
    document = overview(state(found(lives=False)))
    assert document["runs"] == []
    (run,) = document["ended"]
    assert (run["status"], run["phase"], run["usd"]) == ("lost", "drive", 0.81)
    assert overview(state(found(lives=False, live=live(at=at(ENDED_SHOWN_S + 60)))))["ended"] == []


def test_whatever_a_sample_holds_the_document_is_json() -> None:
    broken = live(warnings=["half \ud800 a character"], usd=float("nan"))
    broken["samples"]["host"]["cpu"] = float("inf")
    document = overview(state(found(live=broken)))
    json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    assert document["runs"][0]["usd"] is None
    assert document["runs"][0]["host"]["cpu"] is None


def test_nothing_at_all() -> None:
    document = overview(state())
    assert (document["runs"], document["machines"], document["ended"]) == ([], [], [])
    assert datetime.fromisoformat(document["at"]) == NOW.astimezone(UTC)

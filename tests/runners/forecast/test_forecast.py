"""The whole forecast: its phases, what it learns, and what can never be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioners.accelerators import Machine
from recipes.ranges import Range
from recipes.spec import digest_of
from runners.forecast.forecast import Situation, forecast
from runners.forecast.values import Forecast
from tests.runners.forecast.pasts import past, result, work
from tests.runners.forecast.situations import book, memory, situation

PHASES = ["provision", "prepare", "launch", "drive", "collect", "release"]


def seconds(found: Forecast, name: str) -> Range:
    return next(phase.seconds for phase in found.phases if phase.name == name)


def basis(found: Forecast, name: str) -> str:
    return next(phase.basis for phase in found.phases if phase.name == name)


def test_the_phases_are_those_of_a_result_without_the_plan() -> None:
    assert [phase.name for phase in forecast(situation()).phases] == PHASES


def test_dollars_are_the_price_of_the_seconds() -> None:
    found = forecast(situation())
    assert found.total_usd is not None
    assert found.total_usd.likely == pytest.approx(found.total_s.likely * 3.58 / 3600)
    free = situation()
    priceless = forecast(replace(free, offer=replace(free.offer, price_usd_per_h=None)))
    assert priceless.total_usd is None
    assert priceless.total_s == found.total_s


def test_the_disks_are_forecast_as_well() -> None:
    here = situation()
    with_disks = forecast(replace(here, offer=replace(here.offer, storage_usd_per_h=0.42)))
    assert with_disks.total_usd is not None
    assert with_disks.total_usd.likely == pytest.approx(with_disks.total_s.likely * 4.00 / 3600)


def test_the_published_book_is_of_that_order() -> None:
    """84 chunks at the published peaks (3,221 prompt and 157 output tokens/s) would take about five minutes."""
    found = forecast(situation(version="0.2.1", memory=memory()))
    levels = book(84).levels(350)
    at_the_peaks = sum(level.prompt_tokens / 3221 + level.output_tokens / 157 for level in levels)
    assert seconds(found, "drive").likely == pytest.approx(at_the_peaks, rel=0.4)


def test_the_cache_bounds_what_runs_at_once() -> None:
    full, tight = (
        forecast(situation(memory=memory(kv_tokens=tokens), workload={"concurrency": 64})) for tokens in (400_000, 8000)
    )
    assert seconds(tight, "drive").likely > 1.5 * seconds(full, "drive").likely


def test_what_is_there_needs_no_time() -> None:
    fresh = seconds(forecast(situation(installed=False)), "prepare").likely
    installed = seconds(forecast(situation(installed=True)), "prepare").likely
    ready = seconds(forecast(situation(installed=True, download_bytes=0)), "prepare").likely
    assert fresh >= installed > 100 > 1 > ready, "install and download go on at the same time"


def test_an_earlier_run_is_believed_and_narrows_the_range() -> None:
    here = situation(history=[past()], installed=False)
    before, after = forecast(replace(here, history=())), forecast(here)
    for name, took in (("provision", 100), ("prepare", 500), ("launch", 140), ("drive", 605)):
        assert seconds(after, name).likely == pytest.approx(took, rel=0.15), name
        assert "1 run" in basis(after, name) if name != "drive" else "measured in 1 run" in basis(after, name)
    for name in ("provision", "launch", "drive"):
        ratios = [seconds(one, name).high / seconds(one, name).low for one in (after, before)]
        assert ratios[0] < ratios[1], name
    three = forecast(replace(here, history=[past(run_id=str(n)) for n in range(3)]))
    assert seconds(three, "drive").high < seconds(after, "drive").high


def test_runs_of_other_engines_models_and_machines_tell_nothing_of_speed() -> None:
    other = situation(history=[past(offer={**result()["offer"], "accelerator": "L4", "id": "L4", "count": 2})])
    bare = forecast(replace(other, history=()))
    drive = seconds(forecast(other), "drive")
    assert "roofline (" in basis(forecast(other), "drive")
    assert "as before" in basis(forecast(other), "drive"), "but how long this model's answers are they do tell"
    assert drive.likely == pytest.approx(seconds(bare, "drive").likely, rel=0.3)
    assert seconds(forecast(other), "launch") == seconds(bare, "launch")


def test_answers_of_the_same_prompt_come_first() -> None:
    terse = [{**row, "output_tokens": row["requests"] * 20} for row in work()["levels"]]
    runs = [past(), past(run_id="terse", work=work(prompt=digest_of("builtin:summarize"), levels=terse))]
    found = forecast(situation(history=runs))
    assert found.output_tokens.likely < 30 * found.requests.likely


def test_a_machine_of_ones_own_keeps_what_was_installed() -> None:
    own = past(
        offer={"provider": "local", "id": "desk", "accelerator": None, "count": 0, "cpus": 8},
        engine={"name": "vllm", "version": "0.32.0", "parallel": [1, 1, 1], "args": {}},
        prepared={"installed": True, "downloaded_bytes": 0},
    )
    here = situation(
        engine_spec={"tensor_parallel_size": 1},
        machine=Machine(cpus=8),
        billable=False,
        download_bytes=0,
        history=[own],
    )
    desk = replace(here.offer, provider="local", id="desk", accelerator=None, count=0, cpus=8)
    again = forecast(replace(here, offer=desk))
    assert seconds(again, "prepare").likely < 1, "not the 500 s that installing took"
    elsewhere = forecast(replace(here, offer=replace(desk, id="lap")))
    assert seconds(elsewhere, "prepare").likely > 60


def test_an_endpoint_that_nobody_knows_is_a_wide_guess() -> None:
    found = forecast(situation(engine="openai", model=None, machine=Machine(), install_bytes=0, download_bytes=0))
    drive = seconds(found, "drive")
    assert "guess" in basis(found, "drive")
    assert drive.high > 20 * drive.low


RANGES = st.builds(
    dict,
    chunks=st.integers(1, 100),
    documents=st.integers(1, 8),
    max_tokens=st.integers(1, 2000),
    concurrency=st.integers(1, 64),
    kv_tokens=st.one_of(st.none(), st.integers(2000, 500_000)),
    price=st.one_of(st.none(), st.floats(0, 50)),
    runs=st.integers(0, 4),
)


def drawn(settings: dict[str, Any]) -> Situation:
    here = situation(
        workload={"max_tokens": settings["max_tokens"], "concurrency": settings["concurrency"]},
        work=book(settings["chunks"], documents=settings["documents"]),
        memory=memory(kv_tokens=settings["kv_tokens"]) if settings["kv_tokens"] else None,
        history=[past(run_id=str(n)) for n in range(settings["runs"])],
    )
    return replace(here, offer=replace(here.offer, price_usd_per_h=settings["price"]))


@given(RANGES)
def test_low_likely_and_high_are_in_order_and_phases_sum_up(settings: dict[str, Any]) -> None:
    found = forecast(drawn(settings))
    totals = [found.total_s, found.prompt_tokens, found.output_tokens, found.requests]
    for one in [*totals, *(phase.seconds for phase in found.phases)]:
        assert 0 <= one.low <= one.likely <= one.high
    for figure in ("low", "likely", "high"):
        of_phases = sum(getattr(phase.seconds, figure) for phase in found.phases)
        assert getattr(found.total_s, figure) == pytest.approx(of_phases)
    document = found.document()
    assert (document["total_usd"] is None) == (settings["price"] is None)


@given(RANGES, st.integers(1, 40), st.floats(0.2, 1.0))
def test_less_work_never_takes_longer(settings: dict[str, Any], more: int, share: float) -> None:
    whole = seconds(forecast(drawn({**settings, "chunks": settings["chunks"] + more})), "drive")
    fewer_chunks = seconds(forecast(drawn(settings)), "drive")
    shorter = seconds(forecast(drawn({**settings, "max_tokens": max(1, int(settings["max_tokens"] * share))})), "drive")
    assert fewer_chunks.likely <= whole.likely * (1 + 1e-9)
    assert shorter.likely <= fewer_chunks.likely * (1 + 1e-9)


@given(RANGES, st.integers(0, 500_000))
def test_more_memory_never_takes_longer(settings: dict[str, Any], more: int) -> None:
    tokens = settings["kv_tokens"] or 10_000
    less, larger = (
        seconds(forecast(drawn({**settings, "kv_tokens": one})), "drive").likely for one in (tokens, tokens + more)
    )
    assert larger <= less * (1 + 1e-9)


def test_a_model_that_an_earlier_run_brought_is_not_downloaded_again() -> None:
    desk = {"provider": "ssh", "id": "desk", "accelerator": "A100 PCIe 80GB", "count": 2, "cpus": None}
    here = situation(billable=False, history=[past(offer=desk)])
    own = replace(here, offer=replace(here.offer, provider="ssh", id="desk"))
    assert seconds(forecast(own), "prepare").likely < 2
    assert seconds(forecast(replace(own, billable=True, history=())), "prepare").likely > 100


def test_a_run_with_other_flags_does_not_say_how_fast_these_are() -> None:
    """In float32 the same work takes several times as long, whatever a run in 16 bits took."""
    runs = [past()]
    same, other = (forecast(situation(history=runs, engine_spec={"args": args})) for args in ({}, {"dtype": "float32"}))
    assert "measured in 1 run" in basis(same, "drive")
    assert "measured" not in basis(other, "drive")
    assert seconds(other, "drive").likely > 2 * seconds(same, "drive").likely
    unlike = forecast(situation(history=runs, engine_spec={"args": {"max_num_seqs": 64}}))
    assert "measured in 1 run" in basis(unlike, "drive"), "how many run at once is no matter of speed"


def test_what_little_is_known_of_is_a_wider_range() -> None:
    here = situation()
    unsure = forecast(replace(here, pace=replace(here.pace, unsure=3.0)))
    sure = forecast(here)
    assert seconds(unsure, "drive").likely == seconds(sure, "drive").likely
    assert seconds(unsure, "drive").high > 1.5 * seconds(sure, "drive").high
    assert seconds(unsure, "drive").low < 0.7 * seconds(sure, "drive").low


def test_weights_in_the_ram_are_named() -> None:
    found = forecast(situation(engine_spec={"args": {"cpu_offload_gb": 20}}))
    assert "40.0 GiB of weights from the RAM in each step" in basis(found, "drive")


def test_an_engine_and_a_provisioner_say_their_own_seconds() -> None:
    here = situation(download_bytes=0, install_bytes=0)
    slow = replace(here.pace, start_s=Range(1000, 2000, 3000))
    times = replace(here.phase_times, provision_s=Range(1, 2, 3), collect_s=Range(4, 5, 6), release_s=Range(7, 8, 9))
    found = forecast(replace(here, pace=slow, phase_times=times))
    assert seconds(found, "launch").likely > 2000
    assert [seconds(found, name).likely for name in ("provision", "collect", "release")] == [2, 5, 8]


def test_how_the_engine_starts_is_asked_of_runs_that_started_so() -> None:
    eager = {"name": "vllm", "version": "0.32.0", "parallel": [2, 1, 1], "args": {"enforce-eager": True}}
    phases = [{**phase, "seconds": 40.0} if phase["name"] == "launch" else phase for phase in result()["phases"]]
    runs = [past(engine=eager, phases=phases, run_id="eager"), past()]
    for args, took in (({}, 140), ({"enforce_eager": True}, 40)):
        assert seconds(forecast(situation(history=runs, engine_spec={"args": args})), "launch").likely == took

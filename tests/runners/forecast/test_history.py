"""What earlier runs say of the next."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.forecast.history import answer_tokens, calibrated, past_run, seconds_of
from runners.forecast.speed import Answers, Speed, drive_s
from tests.runners.forecast.pasts import past, result, work
from tests.runners.forecast.situations import LLAMA_70B, machine, model, speed


def roofline() -> Speed:
    return speed(model(LLAMA_70B), machine("A100-80GB", 2), tensor_parallel_size=2)


def test_a_run_from_its_result() -> None:
    found = past()
    assert (found.settings.model, found.settings.engine, found.settings.parallel) == ("some/model", "vllm", (2, 1, 1))
    assert (found.installed, found.downloaded_bytes, found.phases["launch"]) == (True, 138_000_000_000, 140)
    assert found.drive is not None
    assert found.drive.requests == 102
    assert found.drive.answer_tokens == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": {"status": "failed"}},
        {"engine": {"name": "vllm", "version": "0.32.0"}},
        {"offer": {}},
        {"lease": {"adopted": True}},
    ],
)
def test_what_failed_or_says_too_little_is_no_past_run(changes: dict[str, object]) -> None:
    assert past_run(result(**changes)) is None


def test_a_run_that_answered_nothing_still_tells_of_its_phases() -> None:
    assert past(work=None).drive is None
    assert past(work=work(levels=[])).drive is None


def test_tokens_from_the_prefix_cache_were_not_computed() -> None:
    levels = [{**row, "cached_prompt_tokens": row["prompt_tokens"] // 2} for row in work()["levels"]]
    drive = past(work=work(levels=levels)).drive
    assert drive is not None
    assert drive.levels[0].prompt_tokens == 243_600 / 2


def test_another_machine_engine_or_cut_is_not_alike() -> None:
    here = past().settings
    assert here.same_engine(here)
    assert here.same_speed(here)
    assert not here.same_engine(replace(here, version="0.31.0"))
    assert not here.same_engine(replace(here, model="other"))
    assert not replace(here, commit="a").same_engine(replace(here, commit="b"))
    assert not here.same_speed(replace(here, count=4))
    assert not here.same_speed(replace(here, parallel=(1, 2, 1)))
    assert here.same_speed(replace(here, provider="ssh", machine="mine")), "the same accelerators elsewhere"
    quantized = replace(here, args={"kv-cache-dtype": "fp8"})
    assert not here.same_speed(quantized, {"kv_cache_dtype"})
    assert quantized.same_speed(replace(here, args={"kv_cache_dtype": "fp8", "max_num_seqs": 4}), {"kv_cache_dtype"})
    bare = replace(here, accelerator=None, count=0, machine="desk")
    assert not bare.same_speed(replace(bare, machine="lap")), "another CPU"


def test_a_phase_is_its_median_and_narrows_with_more_runs() -> None:
    one, three = seconds_of([10.0]), seconds_of([9.0, 10.0, 11.0])
    assert (one.likely, three.likely) == (10, 10)
    assert three.high - three.low < one.high - one.low


def test_a_run_is_its_own_forecast() -> None:
    """Calibrated by a run, the model says of that run what it took, at any speed."""
    for seconds in (200.0, 600.0, 2000.0):
        drive = past(work=work(seconds=seconds, e2e_s=seconds / 6, ttft_s=seconds / 75)).drive
        assert drive is not None
        found = calibrated(roofline(), drive, None, "", round_trip_s=0.1)
        again = drive_s(drive.levels, found, 20, Answers(1000, drive.spread), round_trip_s=0.1)
        assert again == pytest.approx(seconds, rel=0.1)


@given(st.floats(0.3, 4.0), st.floats(0.3, 4.0))
def test_what_was_slower_by_a_factor_is_found(prefill: float, decode: float) -> None:
    """A run is made up with the simulation's own formulas; another size is then forecast by what it measured."""
    truth = roofline().scaled(prefill, decode, "")
    first = past().drive
    assert first is not None
    answers, slots = Answers(1000, 0.0), 20
    seconds = drive_s(first.levels, truth, slots, answers, round_trip_s=0.0)
    prompt, answer = 2884.0, first.answer_tokens
    x, step_s = truth.prefill_s(prompt), truth.decode_step_s(18, prompt + answer / 2)
    e2e_s = 18 * x + answer * step_s
    measured = replace(
        first, seconds=seconds, spread=0.0, e2e_s=e2e_s, ttft_s=x * (1 + 0.35 * 8.8 + 0.65 * 17 * min(1, x / e2e_s))
    )
    found = calibrated(roofline(), measured, slots, "", round_trip_s=0.0)
    for level in first.levels[:1]:
        for other_slots, share in ((20, 1.0), (8, 1.0), (20, 0.3)):
            other = replace(level, requests=300, prompt_tokens=300 * 2900, output_tokens=300 * share * 400)
            expected, actual = (drive_s([other], one, other_slots, answers, round_trip_s=0.0) for one in (found, truth))
            assert expected == pytest.approx(actual, rel=0.25)


@pytest.mark.parametrize("limit", [10, 100, 400, 1000, 4000])
def test_answers_under_another_limit(limit: int) -> None:
    drive = past().drive
    assert drive is not None
    mean = answer_tokens(drive, limit)
    assert 1 <= mean <= limit
    if limit >= 1000:
        assert mean == pytest.approx(400, rel=0.02)
    if limit <= 100:
        assert mean == pytest.approx(limit, rel=0.05), "nearly all of them are cut"


def test_answers_that_were_all_cut_may_be_longer_under_a_higher_limit() -> None:
    drive = past(work=work(max_tokens=400, output_spread=0.0, truncated=102)).drive
    assert drive is not None
    assert answer_tokens(drive, 400) == pytest.approx(400, rel=0.02)
    assert answer_tokens(drive, 2000) > 400

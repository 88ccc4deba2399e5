"""Throughput, peaks and latency, on records and samples whose figures are worked out by hand."""

from __future__ import annotations

import random
import statistics
from array import array
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners import measurement
from runners.engine import EngineSample, LogSample
from runners.measurement import (
    Timed,
    inter_token_latencies,
    latency,
    percentiles,
    request_counts,
    throughput,
)
from runners.records import RequestRecord

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def request(begin: float, end: float, *, ttft_s: float | None = 0.5, **fields: Any) -> RequestRecord:
    """One request from `begin` to `end`, in seconds from START."""
    made: dict[str, Any] = {
        "id": f"a/1/{begin}",
        "document": "a",
        "level": 1,
        "index": 0,
        "status": "ok",
        "tries": 1,
        "prompt_tokens": 100,
        "output_tokens": 10,
        "finish_reason": "stop",
    }
    return RequestRecord(**{**made, **fields}, started_at=after(begin), e2e_s=end - begin, ttft_s=ttft_s)


def sample(at: float, **fields: float) -> Timed[EngineSample]:
    return Timed(after(at), EngineSample(**fields))


def peaks(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(peak["source"], peak["kind"]): peak for peak in found["peak_at"]}


def test_throughput_sums_are_those_of_the_records() -> None:
    records = [
        request(0, 4, prompt_tokens=1000, output_tokens=40, cached_tokens=600),
        request(1, 9, prompt_tokens=2000, output_tokens=60),
        request(2, 10, prompt_tokens=500, output_tokens=0, status="failed", error="empty answer"),
        request(0, 99, prompt_tokens=0, output_tokens=0, status="failed", ttft_s=None, finish_reason=None),
    ]
    found = throughput(records, [], [])
    assert found["prompt_tokens"] == sum(record.prompt_tokens for record in records) == 3500
    assert found["output_tokens"] == sum(record.output_tokens for record in records) == 100
    assert found["cached_prompt_tokens"] == 600
    assert found["seconds"] == 10, "a request without an answer is no time of work"
    assert (found["prompt_tokens_per_s"], found["output_tokens_per_s"]) == (350, 10)
    assert found["measured_at"] == "client"
    assert found["engine_counters"] is None


def test_nothing_measured_is_nothing_made_up() -> None:
    found = throughput([], [], [])
    assert (found["prompt_tokens"], found["seconds"], found["prompt_tokens_per_s"]) == (0, 0, 0)
    assert (found["peak_prompt_tokens_per_s"], found["peak_output_tokens_per_s"], found["peak_at"]) == (None, None, [])
    assert latency([])["ttft_s"] == {"mean": None, "p50": None, "p90": None, "p95": None, "p99": None}
    assert request_counts([]) == {"ok": 0, "failed": 0, "retried": 0, "truncated": 0}


def test_a_constant_rate_peaks_at_its_mean() -> None:
    records = [request(n, n + 1, ttft_s=1, prompt_tokens=300, output_tokens=0) for n in range(10)]
    found = throughput(records, [], [])
    assert found["prompt_tokens_per_s"] == found["peak_prompt_tokens_per_s"] == 300


def test_a_burst_is_seen_in_its_second() -> None:
    calm = [request(n, n + 1, ttft_s=0.5, prompt_tokens=10, output_tokens=10) for n in range(6)]
    burst = [request(3, 4, ttft_s=0.5, prompt_tokens=400, output_tokens=90)]
    found = throughput(calm + burst, [], [])
    assert (found["peak_prompt_tokens_per_s"], found["peak_output_tokens_per_s"]) == (410, 100)
    assert peaks(found)["requests", "prompt"]["at"] == after(3.5).isoformat(timespec="milliseconds")


def test_tokens_are_spread_over_the_time_they_took() -> None:
    found = throughput([request(0, 4, ttft_s=2, prompt_tokens=200, output_tokens=20)], [], [])
    assert (found["peak_prompt_tokens_per_s"], found["peak_output_tokens_per_s"]) == (100, 10)


@pytest.mark.parametrize("ttft_s", [None, 1.9, 1.0])
def test_the_end_of_a_run_counts_as_well(ttft_s: float | None) -> None:
    """All output comes in the last, broken second, or at the very last moment."""
    found = throughput([request(0, 1.9, ttft_s=ttft_s, output_tokens=900)], [], [])
    assert found["peak_output_tokens_per_s"] == pytest.approx(900 / 1.9, abs=0.01)


spans = st.tuples(st.floats(0, 20), st.floats(0.01, 9), st.floats(0, 1), st.integers(0, 999), st.integers(1, 999))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(spans, min_size=1, max_size=12))
def test_no_peak_lies_below_the_mean(made: list[tuple[float, float, float, int, int]]) -> None:
    records = [
        request(begin, begin + length, ttft_s=share * length, prompt_tokens=prompt, output_tokens=output)
        for begin, length, share, prompt, output in made
    ]
    found = throughput(records, [], [])
    for kind in ("prompt", "output"):
        mean = found[f"{kind}_tokens_per_s"]
        assert found[f"peak_{kind}_tokens_per_s"] >= mean * 0.999 - 0.02


def test_the_engines_state_at_a_peak_is_the_nearest_working_samples() -> None:
    records = [request(0, 10, ttft_s=1, prompt_tokens=500, output_tokens=0)]
    metrics = [
        sample(0.4, running=0, kv_usage=0.0),
        sample(0.9, running=3, waiting=1, kv_usage=0.25),
        sample(1.6, running=4, waiting=2, kv_usage=0.5),
    ]
    peak = peaks(throughput(records, metrics, []))["requests", "prompt"]
    assert (peak["running"], peak["waiting"], peak["kv_usage"]) == (3, 1, 0.25)


def test_no_state_is_claimed_where_no_sample_is_near() -> None:
    records = [request(0, 10, ttft_s=1, prompt_tokens=500, output_tokens=0)]
    peak = peaks(throughput(records, [sample(5, running=4), sample(0.5, running=0)], []))["requests", "prompt"]
    assert (peak["running"], peak["waiting"], peak["kv_usage"]) == (None, None, None)


def test_the_engines_counters_make_rates_and_sums() -> None:
    metrics = [
        sample(0, prompt_tokens_total=1000, output_tokens_total=10, running=0),
        sample(1, prompt_tokens_total=1400, output_tokens_total=30, running=2, kv_usage=0.1),
        sample(3, prompt_tokens_total=1600, output_tokens_total=130, running=5, kv_usage=0.7),
        sample(3.1, prompt_tokens_total=1700, output_tokens_total=131, running=0, kv_usage=0.0),
    ]
    found = throughput([request(0, 3)], metrics, [])
    assert found["engine_counters"] == {"prompt_tokens": 700, "output_tokens": 121}
    prompt, output = peaks(found)["metrics", "prompt"], peaks(found)["metrics", "output"]
    assert (prompt["tokens_per_s"], prompt["running"]) == (400, 2), "0.1 s is too short to tell a rate from"
    assert (output["tokens_per_s"], output["running"], output["kv_usage"]) == (50, 5, 0.7)


def test_counters_that_an_engine_lacks_are_unknown() -> None:
    metrics = [sample(0, prompt_tokens_total=5), sample(1, prompt_tokens_total=9)]
    found = throughput([request(0, 1)], metrics, [])
    assert found["engine_counters"] == {"prompt_tokens": 4, "output_tokens": None}
    assert ("metrics", "output") not in peaks(found)
    assert throughput([request(0, 1)], metrics[:1], [])["engine_counters"] is None


def test_the_engines_own_lines_have_peaks_of_their_own() -> None:
    log = [
        Timed(after(1), LogSample(prompt_tokens_per_s=3221.1, output_tokens_per_s=65.5, running=14, kv_usage=0.989)),
        Timed(after(2), LogSample(prompt_tokens_per_s=0.0, output_tokens_per_s=156.8, running=15, kv_usage=0.783)),
        Timed(after(3), LogSample(output_tokens_per_s=1.0)),
    ]
    found = peaks(throughput([request(0, 3)], [], log))
    assert (found["log", "prompt"]["tokens_per_s"], found["log", "prompt"]["running"]) == (3221.1, 14)
    assert (found["log", "output"]["tokens_per_s"], found["log", "output"]["kv_usage"]) == (156.8, 0.783)


def test_all_sources_tell_the_middle_of_their_interval_and_the_same_one_of_a_steady_load() -> None:
    """Each of ten seconds is as high as the others, but for what clocks differ by."""
    records = [request(n, n + 1, ttft_s=0.5, prompt_tokens=300, output_tokens=30) for n in range(10)]
    burst = [request(6, 7, ttft_s=0.5, prompt_tokens=1, output_tokens=0)]
    counters = [sample(n, prompt_tokens_total=300 * n + (n == 1)) for n in range(11)]
    log = [Timed(after(n), LogSample(prompt_tokens_per_s=301 if n == 2 else 300)) for n in range(1, 11)]
    found = peaks(throughput(records + burst, counters, log))
    assert {found[source, "prompt"]["at"] for source in ("requests", "metrics", "log")} == {
        after(6.5).isoformat(timespec="milliseconds")
    }


def test_percentiles_worked_out_by_hand() -> None:
    assert percentiles([4, 1, 3, 2]) == {"p50": 2.5, "p90": 3.7, "p95": 3.85, "p99": 3.97}
    assert percentiles([7]) == {"p50": 7, "p90": 7, "p95": 7, "p99": 7}
    assert percentiles(range(101)) == {"p50": 50, "p90": 90, "p95": 95, "p99": 99}


def test_percentiles_agree_with_the_standard_library() -> None:
    choose = random.Random(1)
    for size in (2, 3, 10, 97):
        values = [choose.expovariate(1.0) for _ in range(size)]
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        found = percentiles(values)
        assert found == pytest.approx({f"p{p}": cuts[p - 1] for p in (50, 90, 95, 99)}, abs=1e-6)


def test_latency_is_of_the_requests_that_succeeded() -> None:
    records = [
        request(0, 2, ttft_s=0.1, tpot_s=0.02),
        request(0, 4, ttft_s=0.3, tpot_s=None),
        request(0, 900, ttft_s=800.0, status="failed"),
    ]
    found = latency(records)
    assert (found["ttft_s"]["p50"], found["e2e_s"]["p50"]) == (0.2, 3)
    assert found["tpot_s"] == {"mean": 0.02, "p50": 0.02, "p90": 0.02, "p95": 0.02, "p99": 0.02}


def test_inter_token_latencies_are_those_of_all_requests_together() -> None:
    records = [
        request(0, 2, itl_s=array("f", [0.25] * 3)),
        request(0, 2, itl_s=array("f", [0.5])),
        request(0, 2, itl_s=array("f", [9.0]), status="failed"),
    ]
    assert latency(records)["itl_s"] == {"mean": 0.3125, "p50": 0.25, "p90": 0.425, "p95": 0.4625, "p99": 0.4925}


def test_of_very_many_gaps_some_are_taken_from_all_requests_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "MOST_GAPS", 100)
    records = [request(0, 2, itl_s=array("f", [float(n)] * 10)) for n in range(100)]
    taken = inter_token_latencies(records)
    assert len(taken) == 100
    assert list(taken) == [float(n) for n in range(100)]


def test_requests_are_counted_by_how_they_went() -> None:
    records = [
        request(0, 1),
        request(0, 1, tries=3, finish_reason="length"),
        request(0, 1, status="failed", tries=2, finish_reason=None),
    ]
    assert request_counts(records) == {"ok": 2, "failed": 1, "retried": 2, "truncated": 1}

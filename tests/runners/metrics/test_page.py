"""What a page says: names and units, several runs, the engines' own series, and nothing of what is over."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from runners.events import Answered, LeaseChanged, Noted, PageRead, PhaseEnded, PhaseStarted, RunStarted, Sampled
from runners.metrics.exposed import ExposedRun
from runners.metrics.page import text_of
from tests.prometheus import installed, promtool
from tests.runners.metrics.simulated import Simulated, live, record, vllm_page

RUN = {"run_id": "sim-20261121-120000-abcd", "recipe": "sim"}
GPU = {"hostname": "gpu-1", "gpu_index": "0", "uuid": "GPU-0f"}


@pytest.fixture
def run() -> ExposedRun:
    return ExposedRun(live())


@pytest.fixture
def busy(run: ExposedRun) -> Simulated:
    simulated = Simulated(run)
    simulated.begin()
    simulated.tick()
    return simulated


def samples(*runs: ExposedRun) -> Iterator[Sample]:
    text = text_of(run.read() for run in runs).decode()
    for family in text_string_to_metric_families(text):
        yield from family.samples


def value(run: ExposedRun, name: str, **labels: str) -> float | None:
    """Of the one sample that has these labels, among others."""
    found = [s.value for s in samples(run) if s.name == name and labels.items() <= s.labels.items()]
    assert len(found) <= 1, found
    return found[0] if found else None


@pytest.mark.usefixtures("busy")
def test_the_reference_exporters_series_have_its_names_labels_and_units(run: ExposedRun) -> None:
    found = {s.name: s for s in samples(run)}
    expected = {
        "gpu_utilization": 91,
        "gpu_memory_utilization": 40,
        "gpu_memory_used": 40000,
        "gpu_memory_free": 6068,
        "gpu_memory_total": 46068,
    }
    for name, number in expected.items():
        assert found[name].value == pytest.approx(number)
        assert found[name].labels == GPU | RUN
    assert found["system_load_average"].value == 3.5
    assert found["system_load_average"].labels == {"hostname": "gpu-1"} | RUN
    assert found["request_latency_seconds_count"].value == 3
    assert found["request_latency_seconds_count"].labels == {"hostname": "gpu-1"} | RUN


def test_requests_that_failed_are_counted_and_not_timed(run: ExposedRun) -> None:
    for status, tries in (("ok", 1), ("ok", 3), ("failed", 4)):
        run.heard(Answered(record(status=status, tries=tries, e2e_s=2.0, ttft_s=0.2)))
    assert value(run, "recipe_requests_total", status="ok") == 2
    assert value(run, "recipe_requests_total", status="failed") == 1
    assert value(run, "recipe_requests_retried_total") == 2
    assert value(run, "recipe_prompt_tokens_total") == 300
    assert value(run, "recipe_e2e_request_latency_seconds_count") == 2
    assert value(run, "recipe_e2e_request_latency_seconds_sum") == pytest.approx(4.0)
    assert value(run, "recipe_e2e_request_latency_seconds_bucket", le="1.5") == 0
    assert value(run, "recipe_e2e_request_latency_seconds_bucket", le="2.0") == 2, "a bound belongs to its bucket"
    assert value(run, "recipe_time_to_first_token_seconds_bucket", le="0.15") == 0
    assert value(run, "recipe_time_to_first_token_seconds_bucket", le="0.2") == 2


def test_a_run_with_nothing_known_has_no_series_made_up(run: ExposedRun) -> None:
    names = {s.name for s in samples(run)}
    assert not {name for name in names if name.startswith(("gpu_", "recipe_gpu_", "recipe_host_", "recipe_engine_"))}
    assert "recipe_useful_ratio" not in names
    assert value(run, "recipe_requests_total", status="failed") == 0, "a rate needs a zero to begin with"


def test_one_phase_is_on_and_dollars_grow_while_something_is_leased(run: ExposedRun) -> None:
    run.heard(PhaseEnded("plan", 5.0, None, True))
    assert value(run, "recipe_cost_usd") == 0
    run.heard(PhaseStarted("provision"))
    began = time.time()
    run.heard(LeaseChanged("lease", "intended"))
    leased = time.time()
    time.sleep(0.02)
    first = value(run, "recipe_cost_usd") or 0
    time.sleep(0.02)
    least_s = time.time() - leased
    second = value(run, "recipe_cost_usd") or 0
    most_s = time.time() - began
    assert 0 < first < second
    assert 0.99e-3 * least_s <= second <= 1.01e-3 * most_s, "3.60 dollars an hour are a tenth of a cent a second"
    run.heard(Noted("provision", "no such GPU is free"))
    assert value(run, "recipe_cost_usd") == 0, "what was refused is not billed"
    on = {s.labels["phase"] for s in samples(run) if s.name == "recipe_phase" and s.value == 1}
    assert on == {"provision"}
    assert value(run, "recipe_phase_seconds_total", phase="plan") == 5


def test_what_ended_is_booked_exactly(run: ExposedRun, busy: Simulated) -> None:
    busy.end()
    assert value(run, "recipe_cost_usd") == pytest.approx(0.0001 + 0.005 + 0.0001, abs=1e-12)
    assert value(run, "recipe_phase_seconds_total", phase="drive") == 5.0


def test_a_run_that_has_ended_keeps_its_sums_and_no_gauge_of_its_machine(run: ExposedRun, busy: Simulated) -> None:
    busy.end("failed")
    names = {s.name for s in samples(run)}
    assert value(run, "recipe_run_outcome", status="failed") == 1
    assert {"recipe_requests_total", "recipe_engine_output_tokens_total", "recipe_cost_usd"} <= names
    assert not names & {"gpu_utilization", "system_load_average", "recipe_engine_running", "recipe_phase"}
    assert not names & {"vllm:num_requests_running", "vllm:kv_cache_usage_perc"}


def test_old_samples_say_nothing_about_now(run: ExposedRun) -> None:
    at = (datetime.now(UTC) - timedelta(seconds=30)).isoformat(timespec="milliseconds")
    run.heard(Sampled({"at": at, "source": "host", "n": 1, "load_1m": 3.0}))
    run.heard(Sampled({"at": at, "source": "engine", "running": 3, "output_tokens_total": 5}))
    assert value(run, "system_load_average") is None
    assert value(run, "recipe_engine_running") is None
    assert value(run, "recipe_engine_output_tokens_total") == 5, "a counter that vanishes and comes back tears a rate"


def test_what_throttled_a_gpu_once_is_told_to_be_over(run: ExposedRun) -> None:
    """A series that only vanished would stand for five minutes more in a backfill."""
    for throttle, told in (([], None), (["power"], 1), ([], 0)):
        gpu = {"index": 0, "power_w": 1.0, "throttle": throttle}
        run.heard(Sampled({"at": datetime.now(UTC).isoformat(), "source": "host", "n": 9, "gpus": [gpu]}))
        assert value(run, "recipe_gpu_throttled", gpu_index="0") == told


def test_a_gpu_that_is_lost_has_no_series(run: ExposedRun, busy: Simulated) -> None:
    assert value(run, "gpu_utilization") is not None
    run.heard(Sampled({"at": datetime.now(UTC).isoformat(), "source": "host", "n": 9, "cpu": 0.1, "gpus": []}))
    assert value(run, "gpu_utilization") is None
    assert value(run, "gpu_memory_total") is None
    assert value(run, "recipe_host_cpu_ratio") == 0.1


@pytest.mark.usefixtures("busy")
def test_an_engines_own_series_keep_their_colon_and_know_their_run(run: ExposedRun) -> None:
    assert value(run, "vllm:num_requests_waiting", engine="0", **RUN) == 2
    assert value(run, "vllm:time_to_first_token_seconds_bucket", le="+Inf", **RUN) == 3
    assert "python_info" not in {s.name for s in samples(run)}


HOSTILE = [
    "# TYPE recipe_cost_usd gauge\nrecipe_cost_usd 1e9\n",
    '{"with.dots"} 1\n',
    'a:b{run_id="mine",recipe="r"} 1\n',
    "a:b{le= 1\n",
    "a:b\n",
    "# TYPE a:b nonsense\na:b 1\n",
    "\x00\xff not a page",
    "a:b 1 notatime\n",
    'a:b{x="1",x y="2"} 1\n',
    'a:b{x="1"}} 1\n# TYPE recipe_cost_usd counter\n',
    "a:b 1\r\nrecipe_cost_usd 7\n",
    "a:b 1_000\n",
    "a:b ١\n",
    'a:b{x="\\"\\n"} NaN\n',
]


@pytest.mark.parametrize("page", HOSTILE)
def test_whatever_an_endpoint_calls_its_page_ours_can_be_read(run: ExposedRun, page: str) -> None:
    run.heard(PageRead("good:one 1\n" + page))
    assert value(run, "good:one", **RUN) == 1
    assert value(run, "recipe_cost_usd") == 0
    for sample in samples(run):
        if sample.name == "a:b" and "exported_run_id" in sample.labels:
            assert sample.labels == {"exported_run_id": "mine", "exported_recipe": "r", **RUN}


def test_a_page_made_to_be_hard_to_read_is_read_quickly(run: ExposedRun) -> None:
    spaces, labels = " " * 200_000, 'x="1"' * 20_000
    run.heard(
        PageRead(f"a:b{{{spaces}\na:b{{{labels} \na:b{spaces}x\n" + "a:b{" + 'x="1" ' * 20_000 + "\ngood:one 1\n")
    )
    began = time.process_time()
    assert value(run, "good:one") == 1
    assert time.process_time() - began < 2


def test_runs_of_one_page_are_told_apart_and_each_family_stands_once() -> None:
    runs = [ExposedRun(live(name)) for name in ("one", "two")]
    for i, run in enumerate(runs):
        run.heard(PageRead(f"vllm:x {i}\n"))
    text = text_of(run.read() for run in runs).decode()
    types = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert {s.labels["run_id"]: s.value for s in samples(*runs) if s.name == "vllm:x"} == {"one": 0, "two": 1}


@installed
@pytest.mark.real
@pytest.mark.usefixtures("busy")
def test_promtool_finds_nothing_but_vllms_colons(run: ExposedRun) -> None:
    checked = promtool("check", "metrics", stdin=text_of([run.read()]).decode())
    ours = [line for line in checked.stderr.splitlines() if "should not contain ':'" not in line]
    # The reference exporter's names are as they are.
    assert ours == ['gpu_memory_total non-counter metrics should not have "_total" suffix']


def test_hearing_a_request_takes_microseconds(run: ExposedRun) -> None:
    events: list[Any] = [Answered(record(f"r{i}")) for i in range(5000)]
    began = time.process_time()
    for event in events:
        run.heard(event)
    assert (time.process_time() - began) / 5000 < 100e-6


def test_shares_are_percent_without_the_rest_of_binary_fractions(run: ExposedRun, busy: Simulated) -> None:
    now = datetime.now(UTC).isoformat()
    for share, percent in ((0.57, b"57.0"), (0.29, b"29.0"), (0.075, b"7.5")):
        gpu = {"index": 0, "utilization": share}
        run.heard(Sampled({"at": now, "source": "host", "n": 9, "gpus": [gpu]}))
        (line,) = (line for line in text_of([run.read()]).splitlines() if line.startswith(b"gpu_utilization{"))
        assert line.split()[-1] == percent


def test_when_a_run_has_ended_its_engine_has_still_counted_what_it_counted(run: ExposedRun, busy: Simulated) -> None:
    """A run may be shorter than the time between two scrapes: the last one must find what there was."""
    untyped = "vllm:nobody_knows 3\n"
    run.heard(PageRead(vllm_page(running=2, done=9) + untyped))
    busy.end()
    names = {s.name for s in samples(run) if s.name.startswith("vllm:")}
    assert {"vllm:prompt_tokens_total", "vllm:num_preemptions_total", "vllm:prefix_cache_hits_total"} <= names
    assert {f"vllm:inter_token_latency_seconds_{part}" for part in ("bucket", "count", "sum")} <= names
    assert value(run, "vllm:generation_tokens_total", **RUN) == 270
    assert not names & {"vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:nobody_knows"}, "no gauge stays"


def test_the_requests_histogram_begins_at_zero_with_the_machine(run: ExposedRun) -> None:
    Simulated(run).begin()
    assert value(run, "request_latency_seconds_count", hostname="gpu-1") == 0


def test_a_run_that_is_taken_over_is_billed_from_its_machines_beginning(tmp_path: Path) -> None:
    """Its first client asked for the machine; the one that goes on hears nothing of that."""
    watched = live()
    watched.folder.path = tmp_path
    now = datetime.now(UTC)
    request = {"started_at": (now - timedelta(seconds=90)).isoformat(), "e2e_s": 25.0}
    (tmp_path / "requests.jsonl").write_text(json.dumps(request) + "\n")
    run = ExposedRun(watched)
    watched.clock.leased(now - timedelta(seconds=100))
    run.heard(RunStarted("r", "sim", "/nowhere", 10.0, None))
    run.heard(PhaseEnded("before", 100.0, 0.1, True))
    run.heard(PhaseStarted("drive"))
    first = value(run, "recipe_cost_usd") or 0
    since_s = time.time() - now.timestamp()
    assert 0.1 <= first <= 0.1 + 1e-3 * since_s + 1e-6
    time.sleep(0.02)
    assert (value(run, "recipe_cost_usd") or 0) > first, "the phase that is on costs as well"
    useful = value(run, "recipe_useful_ratio")
    most_s = 100 + time.time() - now.timestamp()
    assert 25 / most_s - 0.001 <= (useful or 0) <= 0.251
    assert value(run, "recipe_run_start_timestamp_seconds") == pytest.approx(now.timestamp() - 100, abs=0.01)


def test_a_machine_that_is_paid_by_its_electricity_costs_what_it_took() -> None:
    watched = live()
    watched.clock.price_usd_per_h = None
    watched.plan.recipe.resources.price_per_kwh = 0.30
    run = ExposedRun(watched)
    assert value(run, "recipe_cost_usd") is None, "nobody has told of any"
    now = datetime.now(UTC)
    for seconds in (0, 10):
        at = (now + timedelta(seconds=seconds)).isoformat()
        run.heard(Sampled({"at": at, "source": "host", "n": 1, "gpus": [{"index": 0, "power_w": 360.0}]}))
    assert value(run, "recipe_cost_usd") == pytest.approx(0.30 / 1000)

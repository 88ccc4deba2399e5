"""A run that is over, told once more from its files: also one that failed, was lost, or changed its client."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from runners.metrics.openmetrics import lines
from runners.metrics.stack import write
from runners.run_folder import RunFolder
from tests.conftest import Command
from tests.prometheus import installed, prometheus, promtool

BEGAN = datetime(2026, 11, 21, 12, 0, 0, 500_000, tzinfo=UTC)
Sample = tuple[float, float]


def at(seconds: float) -> str:
    return (BEGAN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def folder(path: Path, events: list[dict[str, Any]], **files: list[dict[str, Any]]) -> RunFolder:
    """A run's folder with these rows."""
    path.mkdir(parents=True)
    for name, rows in {"events": events, **files}.items():
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    offer = {"provider": "runpod", "accelerator": "A40-48GB", "count": 2, "price_usd_per_h": 3.6}
    plan = {"offers": [offer], "engine": {"name": "vllm", "version": "0.33.0"}, "model": {"identifier": 'a "b"\\c\nd'}}
    (path / "plan.json").write_text(json.dumps(plan))
    (path / "resolved.json").write_text(json.dumps({"name": "sim", "limits": {"max_cost": 5.0}}))
    return RunFolder(path)


def begun() -> list[dict[str, Any]]:
    return [
        {"at": at(1), "event": "run-started", "deadline": at(3600)},
        {"at": at(1), "event": "phase-ended", "phase": "plan", "seconds": 1.0, "usd": None},
        {"at": at(1), "event": "phase-started", "phase": "provision"},
        {"at": at(1.5), "event": "lease-changed", "state": "intended"},
        {"at": at(3), "event": "phase-ended", "phase": "provision", "seconds": 2.0, "usd": 0.0015},
        {"at": at(3), "event": "phase-started", "phase": "drive"},
    ]


def request(number: int, begin: float, e2e_s: float = 1.0, status: str = "ok") -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "document": "d",
        "level": 1,
        "index": number,
        "status": status,
        "tries": 1,
        "started_at": at(begin),
        "prompt_tokens": 100,
        "output_tokens": 10,
        "ttft_s": 0.1,
        "tpot_s": 0.01,
        "e2e_s": e2e_s,
    }


def series(text: str, name: str, *labels: str) -> list[Sample]:
    """The points of the one series of this name that has these labels: (seconds since the beginning, value)."""
    found: dict[str, list[Sample]] = {}
    for line in text.splitlines():
        if line.startswith(name + "{") and all(label in line for label in labels):
            key, value, moment = line.rsplit(" ", 2)
            found.setdefault(key, []).append((round(float(moment) - BEGAN.timestamp(), 3), float(value)))
    assert len(found) <= 1, list(found)
    return next(iter(found.values()), [])


def told(*folders: RunFolder, step_s: float | None = None) -> str:
    return "".join(lines(folders, step_s))


def test_a_run_that_was_lost_is_told_as_far_as_it_came(tmp_path: Path) -> None:
    run = folder(tmp_path / "lost", begun(), requests=[request(0, 3.2), request(1, 4.0, status="failed")])
    text = told(run)
    assert series(text, "recipe_requests_total", 'status="ok"')[-1] == (5.0, 1)
    assert series(text, "recipe_requests_total", 'status="failed"')[-1] == (5.0, 1)
    cost = dict(series(text, "recipe_cost_usd"))
    assert cost[1.5] == pytest.approx(0)
    assert cost[2.5] == pytest.approx(0.001), "3.60 dollars an hour, a second after the lease"
    assert cost[5.0] == pytest.approx(0.0015 + 0.002), "the phase that has ended as booked, the other by the price"
    assert series(text, "recipe_phase", 'phase="drive"')[-1] == (5.0, 1)
    assert not series(text, "recipe_run_outcome")


def test_times_ascend_and_end_with_the_last_figures(tmp_path: Path) -> None:
    events = [
        *begun(),
        {"at": at(9), "event": "phase-ended", "phase": "drive", "seconds": 6.0, "usd": 0.006},
        {"at": at(9), "event": "warned", "phase": "drive", "message": "m"},
        {"at": at(9.25), "event": "lease-changed", "state": "gone"},
        {"at": at(9.3), "event": "phase-ended", "phase": "release", "seconds": 0.3, "usd": 0.00025},
        {"at": at(9.3), "event": "run-ended", "status": "failed"},
    ]
    text = told(folder(tmp_path / "failed", events, requests=[request(i, 3.0 + i / 2) for i in range(8)]))
    counted = series(text, "recipe_requests_total", 'status="ok"')
    assert [moment for moment, _ in counted] == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.3]
    assert [value for _, value in counted] == [0, 0, 0, 2, 4, 6, 8, 8, 8]
    assert series(text, "recipe_run_outcome", 'status="failed"') == [(9.3, 1)]
    assert series(text, "recipe_cost_usd")[-1] == (9.3, pytest.approx(0.0015 + 0.006 + 0.00025))
    assert series(text, "recipe_warnings_total")[-1] == (9.3, 1)
    assert series(text, "recipe_phase", 'phase="drive"')[-1] == (8.5, 1), "no phase is on any more"
    assert text.endswith("# EOF\n")
    every_two = [moment for moment, _ in series(told_again(tmp_path, step_s=2.0), "recipe_cost_usd")]
    assert every_two == [1.5, 3.5, 5.5, 7.5, 9.3]


def told_again(tmp_path: Path, step_s: float) -> str:
    return told(RunFolder(tmp_path / "failed"), step_s=step_s)


@pytest.mark.parametrize(("minutes", "step_s"), [(50, 1), (70, 5)])
def test_a_run_of_hours_has_a_point_for_each_scrape_that_there_would_be(
    tmp_path: Path, minutes: int, step_s: int
) -> None:
    events = [*begun(), {"at": at(minutes * 60), "event": "run-ended", "status": "completed"}]
    run = folder(tmp_path / "long", events)
    cost = series(told(run), "recipe_cost_usd")
    assert len(cost) == pytest.approx(minutes * 60 / step_s, abs=2)
    assert cost[-1][0] == minutes * 60
    assert len(series(told(run, step_s=10.0), "recipe_cost_usd")) == pytest.approx(minutes * 6, abs=2)


def test_another_client_begins_with_nothing_counted_as_its_page_did(tmp_path: Path) -> None:
    events = [
        *begun(),
        {"at": at(10), "event": "run-started", "deadline": None},
        {"at": at(10), "event": "phase-ended", "phase": "before", "seconds": 9.0, "usd": 0.0085},
        {"at": at(10), "event": "phase-started", "phase": "drive"},
        {"at": at(13), "event": "run-ended", "status": "completed"},
    ]
    text = told(folder(tmp_path / "taken", events, requests=[request(0, 4.0), request(1, 10.5), request(2, 10.6)]))
    counted = dict(series(text, "recipe_requests_total", 'status="ok"'))
    assert (counted[9.5], counted[10.5], counted[13.0]) == (1, 0, 2)
    assert dict(series(text, "recipe_cost_usd"))[10.5] >= 0.0085
    assert series(text, "recipe_phase_seconds_total", 'phase="before"')[-1][1] == 9.0
    cost = dict(series(text, "recipe_cost_usd"))
    assert cost[12.5] - cost[10.5] == pytest.approx(0.002), "3.60 dollars an hour, two seconds of the phase that is on"
    assert len(series(text, "recipe_run_start_timestamp_seconds")) == len(counted)
    assert {value for _, value in series(text, "recipe_run_start_timestamp_seconds")} == {BEGAN.timestamp() + 1}
    # Requests were under way for 1 s of the other client's time, and for 1.1 s of this one's.
    assert dict(series(text, "recipe_useful_ratio"))[12.5] == pytest.approx(2.1 / 11.5, abs=0.01)


def test_samples_come_with_their_time_and_go_with_a_gap(tmp_path: Path) -> None:
    gpu = {"index": 0, "utilization": 0.5, "memory_used_mib": 100}
    machine = {
        "at": at(2),
        "source": "machine",
        "hostname": "h",
        "gpus": [{"index": 0, "uuid": "U", "memory_total_mib": 300}],
    }
    rows = [machine, *({"at": at(3 + i), "source": "host", "n": i, "load_1m": i, "gpus": [gpu]} for i in range(3))]
    rows += [{"at": at(4), "source": "engine", "running": 2.0, "output_tokens_total": 7.0, "kv_usage": None}]
    events = [*begun(), {"at": at(30), "event": "run-ended", "status": "completed"}]
    text = told(folder(tmp_path / "gap", events, telemetry=rows))
    load = dict(series(text, "system_load_average", 'hostname="h"'))
    assert (load[3.5], load[5.5], load[14.5]) == (0, 2, 2)
    assert 15.5 not in load, "after ten seconds a sample says nothing about now"
    assert dict(series(text, "gpu_utilization", 'gpu_index="0"', 'uuid="U"'))[3.5] == 50
    assert dict(series(text, "gpu_memory_free"))[3.5] == 200
    assert not series(text, "recipe_engine_kv_usage_ratio")
    assert series(text, "recipe_engine_output_tokens_total")[-1] == (30.0, 7)


def test_what_was_cut_off_or_spoiled_is_passed_over(tmp_path: Path) -> None:
    run = folder(tmp_path / "torn", begun(), requests=[request(0, 3.2)])
    for name in ("events", "requests", "telemetry", "documents", "engine-metrics"):
        with (run.path / f"{name}.jsonl").open("a") as file:
            file.write('{"half": ')
    assert series(told(run), "recipe_requests_total", 'status="ok"')[-1][1] == 1


def test_a_folder_without_events_has_nothing_to_tell(tmp_path: Path) -> None:
    assert told(folder(tmp_path / "empty", [])) == "# EOF\n"


@installed
@pytest.mark.real
def test_what_ended_has_ended_in_a_prometheus_that_is_started_as_it_is_said(tmp_path: Path) -> None:
    """A GPU that was lost, and the run itself; Prometheus alone would show both for another five minutes."""
    gpus = [{"index": i, "utilization": 0.5} for i in range(3)]
    machine = {"at": at(2), "source": "machine", "hostname": "h", "gpus": gpus}
    rows = [machine]
    for i in range(57):
        there = gpus if i < 20 else gpus[:2]
        rows.append({"at": at(3 + i), "source": "host", "n": i, "gpus": there})
    pages = [{"at": at(3), "first": True, "new": ["v:running"], "values": {"0": 4}}, {"at": at(33), "values": {}}]
    events = [*begun(), {"at": at(60), "event": "run-ended", "status": "completed"}]
    run = folder(tmp_path / "lost", events, telemetry=rows, **{"engine-metrics": pages})
    (tmp_path / "run.om").write_text(told(run))
    made = promtool("tsdb", "create-blocks-from", "openmetrics", str(tmp_path / "run.om"), str(tmp_path / "data"))
    assert made.returncode == 0, made.stdout + made.stderr
    stack = write(tmp_path / "stack", tmp_path / "home", interval_s=5)
    command = yaml.safe_load((stack / "compose.yaml").read_text())["services"]["prometheus"]["command"]
    options = [option for option in command if option.startswith("--query.")]
    (tmp_path / "empty.yml").write_text("scrape_configs: []\n")
    begin = BEGAN.timestamp()
    with prometheus(tmp_path / "empty.yml", tmp_path / "data", *options) as server:
        assert server.value("count(gpu_utilization)", begin + 21) == 3
        assert server.value("count(gpu_utilization)", begin + 40) == 2, "the third was lost at 23"
        assert server.value("count(v:running)", begin + 31) == 1, "what was written down seldom has not ended"
        for gauge in ("gpu_utilization", "recipe_phase", "recipe_price_usd_per_hour", "v:running"):
            assert server.value(f"count({gauge})", begin + 76) is None, gauge
        assert server.value("avg_over_time(gpu_utilization{gpu_index='0'}[2m])", begin + 76) == 50


@installed
@pytest.mark.real
def test_promtool_takes_several_runs_with_strange_names(tmp_path: Path) -> None:
    pages = [
        {
            "at": at(4),
            "first": True,
            "new": ['v:a{x="1"}', "v:b_total", 'v:h_bucket{le="+Inf"}'],
            "values": {"0": 1, "1": 2, "2": 3},
        },
        {"at": at(5), "new": ["v:b_created"], "values": {"1": 5, "3": 1e9}},
    ]
    runs = [
        folder(tmp_path / name, begun(), requests=[request(i, 3 + i) for i in range(4)], **{"engine-metrics": pages})
        for name in ("one", "two")
    ]
    text = told(*runs)
    assert series(text, "v:b_total", 'run_id="one"', 'recipe="sim"') == [(4.0, 2), (5.0, 5)]
    assert r'model="a \"b\"\\c\nd"' in text
    families = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    (tmp_path / "runs.om").write_text(text)
    made = promtool("tsdb", "create-blocks-from", "openmetrics", str(tmp_path / "runs.om"), str(tmp_path / "data"))
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.mark.real
def test_the_command_says_what_it_wants(recipe: Command) -> None:
    assert "no page is served now" in recipe("metrics").stdout
    assert json.loads(recipe("metrics", "--json").stdout) == {"pages": []}
    for arguments, words in (
        (["--openmetrics"], "which run?"),
        (["local-smoke", "--openmetrics"], "no such run"),
        (["--openmetrics", "--write", "x"], "not allowed with"),
        (["x", "--write", "y"], "--write is for all runs"),
        (["x", "--openmetrics", "--step", "0"], "write seconds"),
    ):
        ended = recipe("metrics", *arguments)
        assert ended.returncode == 2
        assert words in ended.stderr


@pytest.mark.real
def test_runs_of_one_command_are_on_one_page_and_backfilled_together(recipe: Command) -> None:
    (recipe.cwd / "two.yaml").write_text(
        "extends: local-smoke\nmatrix: {workload.concurrency: [1, 2]}\nmetrics: {port: 0}\n"
    )
    ended = recipe("up", "two.yaml", "--json")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("metrics: http://127.0.0.1:") == 1
    results = json.loads(ended.stdout)["runs"]
    told = recipe("metrics", *(result["run_id"] for result in results), "--openmetrics").stdout
    for result in results:
        run = f'run_id="{result["run_id"]}"'
        assert series_end(told, "recipe_requests_total", run, 'status="ok"') == result["requests"]["ok"]
        assert series_end(told, "recipe_documents_done", run) == 3
        assert series_end(told, "recipe_cost_usd", run) == pytest.approx(result["cost"]["total_usd"])
        counted = result["throughput"]["engine_counters"]["output_tokens"]
        # The engine has also answered what was asked to see whether it is ready.
        assert series_end(told, "llamacpp:tokens_predicted_total", run) >= counted


def series_end(text: str, name: str, *labels: str) -> float:
    return series(text, name, *labels)[-1][1]

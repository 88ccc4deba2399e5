"""One small run with the embedded engine, then forecasts of other sizes beside what they are."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command
from tests.runners.forecast.inputs import texts

pytestmark = pytest.mark.real

OTHER_SIZES = (
    ("larger", {}),
    ("one by one, shorter answers", {"workload.concurrency": 1, "workload.max_tokens": 24}),
    ("longer chunks", {"workload.chunk_size": 1000}),
)


def run(recipe: Command, *arguments: str) -> dict[str, Any]:
    ended = recipe("up", *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)["runs"][0]
    return found


def leased_s(result: dict[str, Any]) -> float:
    return sum(float(phase["seconds"]) for phase in result["phases"] if phase["name"] != "plan")


def test_one_small_run_tells_of_other_sizes(recipe: Command, tmp_path: Path) -> None:
    """Its tokens, which do not depend on how busy this machine is; how near the seconds come, a benchmark tells."""
    texts(tmp_path / "texts", random.Random(0))
    run(recipe, "local-smoke")
    for runs, (name, changes) in enumerate(OTHER_SIZES, start=1):
        settings = {"workload.inputs": f"[{tmp_path}/texts/*.txt]", **changes}
        options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        plan = recipe("plan", "local-smoke", *options, "--json")
        assert plan.returncode == 0, plan.stderr
        forecast = json.loads(plan.stdout)["plans"][0]["forecast"]
        assert f"measured in {runs} run" in next(p["basis"] for p in forecast["phases"] if p["name"] == "drive"), name
        work = run(recipe, "local-smoke", *options)["throughput"]
        for kind in ("prompt_tokens", "output_tokens"):
            assert work[kind] == pytest.approx(forecast[kind]["likely"], rel=0.25), (name, kind)


def test_a_result_says_how_far_its_forecast_was_off_and_the_log_sums_it_up(recipe: Command) -> None:
    results = [run(recipe, "local-smoke") for _ in range(2)]
    for result in results:
        forecast = result["forecast"]
        likely = sum(phase["seconds"]["likely"] for phase in forecast["phases"])
        assert forecast["total_seconds"]["likely"] == pytest.approx(likely)
        assert forecast["error"]["seconds"] == pytest.approx(leased_s(result) / likely - 1, abs=0.01)
        assert result["cost"]["forecast_usd"] == pytest.approx(forecast["total_usd"]["likely"])
    printed = json.loads(recipe("runs", "--forecast", "--json").stdout)
    assert [row["run_id"] for row in printed["runs"]] == [result["run_id"] for result in reversed(results)]
    assert printed["accuracy"]["runs"] == 2
    table = recipe("runs", "--forecast").stdout
    assert all(result["run_id"] in table for result in results)
    assert "median error" in table


def test_without_runs_there_is_nothing_to_sum_up(recipe: Command) -> None:
    assert "no completed run had a forecast yet" in recipe("runs", "--forecast").stdout

"""What a plan knows of a load: requests, tokens, the longest of them, and how long the points take."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recipes import catalogue
from recipes.ranges import Range
from recipes.spec import Recipe
from runners.forecast.speed import Answers, Speed, drive_s
from runners.text.tokens import TokenCounter
from runners.workload import Estimate
from runners.workloads.load import PLUGIN
from tests.conftest import Command

LEAD = TokenCounter.from_path(catalogue.ROOT / "models" / "lead")
SPEED = Speed(request_s=0, token_s=1e-4, pair_s=0, step_s=0.02, weights_s=0, sequence_s=0, context_s=0)


def estimate(**traffic: Any) -> Estimate:
    settings = {"name": "load", "traffic": traffic}
    recipe = Recipe.model_validate({"name": "test", "model": {"repo": "owner/model"}, "workload": settings})
    return PLUGIN.estimate(PLUGIN.prepare(recipe, LEAD))


def seconds(found: Estimate) -> float:
    answers = found.work.answers()
    return drive_s(found.work.levels(answers.likely), SPEED, 64, Answers(1000, 0.0), round_trip_s=0)


def test_what_synthetic_prompts_need_is_known_exactly() -> None:
    found = estimate(concurrency=[1, 4], requests=10, synthetic={"input_tokens": 100, "output_tokens": 20})
    assert (found.documents, found.unit, found.requests) == (2, "point", 20)
    assert (found.prompt_tokens, found.longest_request_tokens) == (2000, 120)
    assert found.work.answers() == Range(20, 20, 20)
    assert found.totals.output_tokens == Range(400, 400, 400)
    assert found.totals.requests == Range(20, 20, 20)


def test_a_closed_loop_takes_its_turns_at_its_own_concurrency() -> None:
    one = seconds(estimate(concurrency=1, requests=10, synthetic={"input_tokens": 100, "output_tokens": 50}))
    assert one == pytest.approx(10 * (0.01 + 1.0), rel=0.01)
    both = seconds(estimate(concurrency=[1, 10], requests=10, synthetic={"input_tokens": 100, "output_tokens": 50}))
    assert both == pytest.approx(one + 10 * 0.01 + 1.0, rel=0.01)


def test_an_open_loop_takes_as_long_as_its_requests_arrive() -> None:
    found = estimate(rate=2, duration="100s", synthetic={"input_tokens": 100, "output_tokens": 50})
    assert found.requests == 200
    assert seconds(found) == pytest.approx(100 + 1.01, rel=0.01)


def test_a_closed_loop_that_ends_with_the_time_does_so_in_the_plan() -> None:
    found = estimate(concurrency=8, duration="60s", synthetic={"input_tokens": 100, "output_tokens": 50})
    assert seconds(found) == pytest.approx(60 + 1.01, rel=0.01)


def test_the_plan_speaks_of_points(recipe: Command) -> None:
    planned = recipe("plan", "load-smoke")
    assert planned.returncode == 0, planned.stderr
    assert "load 4 points, 160 requests, 40,960 tokens" in planned.stdout
    assert "drive     load: 4 points, 160 requests\n" in planned.stdout
    assert "context   longest request 320 of 512 tokens" in planned.stdout
    assert "document" not in planned.stdout
    assert "chunk" not in planned.stdout
    plan = json.loads(recipe("plan", "load-smoke", "--json").stdout)["plans"][0]
    assert plan["workload"]["unit"] == "point"


def test_prompts_beyond_the_context_are_refused_before_anything_runs(recipe: Command) -> None:
    refused = recipe("plan", "load-smoke", "--set", "workload.traffic.synthetic.input_tokens=500")
    assert refused.returncode == 3
    assert "the longest prompt with its answer needs 564 tokens; the engine's context holds 512" in refused.stdout
    (recipe.cwd / "long.txt").write_text("short\n" + "word " * 900 + "\n")
    refused = recipe("plan", "load-smoke", "--set", "workload.traffic.prompts=long.txt")
    assert refused.returncode == 3
    assert "take that prompt out" in refused.stdout


def test_a_dataset_that_cannot_be_sent_is_refused_with_its_lines(recipe: Command) -> None:
    (recipe.cwd / "set.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    refused = recipe("plan", "load-smoke", "--set", "workload.traffic.prompts=set.jsonl")
    assert refused.returncode == 2
    assert "set.jsonl: 1 problem" in refused.stderr
    assert "2:1   there is no prompt in it, but text; write traffic.field: NAME" in refused.stderr
    assert recipe("validate", "load-smoke", "--set", "workload.traffic.prompts=nowhere.txt").returncode == 2


@pytest.mark.real
def test_a_sweep_with_the_real_engine(recipe: Command) -> None:
    run = recipe("up", "load-smoke", "--yes", "--set", "workload.traffic.requests=8", "--json")
    assert run.returncode == 0, run.stderr
    (result,) = json.loads(run.stdout)["runs"]
    points = result["workload"]["points"]
    assert points
    for point in points:
        assert (point["requests"]["ok"], point["prompt_tokens"], point["output_tokens"]) == (8, 8 * 256, 8 * 64)
        assert point["latency"]["itl_s"]["p50"] is not None
        assert point["short_answers"] == 0
    assert result["documents"]["unit"] == "point"
    assert result["work"] is None, "a load tells the forecast of other runs nothing"
    shown = recipe("report", result["run_id"])
    assert "concurrency=1" in shown.stdout
    assert "TTFT p50" in shown.stdout
    saved = json.loads((recipe.run_folder() / "outputs" / "load.json").read_text())
    assert saved["points"] == points
    assert not result["warnings"]

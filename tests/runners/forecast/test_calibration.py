"""One small run with the embedded engine, then forecasts of other sizes beside what they take."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest

from recipes import catalogue
from tests.conftest import Command

pytestmark = pytest.mark.real

OTHER_SIZES = (
    ("larger", {}),
    ("one by one, shorter answers", {"workload.concurrency": 1, "workload.max_tokens": 24}),
    ("longer chunks", {"workload.chunk_size": 1000}),
)
_ALLOWED = math.log(1.35)


def texts(folder: Path, rng: random.Random) -> None:
    """Documents from the sentences of the texts that ship with recipe, in ever other orders: an engine's prefix cache
    knows none of them."""
    whole = "\n\n".join(path.read_text(encoding="utf-8") for path in sorted((catalogue.ROOT / "texts").glob("*.txt")))
    sentences = re.findall(r"[A-Z][^.!?]+[.!?]", whole)
    folder.mkdir()
    for number in range(8):
        paragraphs = [" ".join(rng.sample(sentences, 5)) for _ in range(8 + 5 * number)]
        (folder / f"{number}.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")


def run(recipe: Command, *arguments: str) -> dict[str, Any]:
    ended = recipe("up", *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)["runs"][0]
    return found


def drive_s(result: dict[str, Any]) -> float:
    return next(float(phase["seconds"]) for phase in result["phases"] if phase["name"] == "drive")


def leased_s(result: dict[str, Any]) -> float:
    return sum(float(phase["seconds"]) for phase in result["phases"] if phase["name"] != "plan")


def test_one_small_run_makes_forecasts_of_other_sizes_right(recipe: Command, tmp_path: Path) -> None:
    """Within 35 %, and what the machine itself changed meanwhile: the small run, made again, shows that."""
    off: dict[str, list[float]] = {}
    for number in range(3):
        inputs = tmp_path / str(number)
        texts(inputs, random.Random(number))
        recipe.home = tmp_path / f"home{number}"
        before = drive_s(run(recipe, "local-smoke"))
        cases = {}
        for name, changes in OTHER_SIZES:
            settings = {"workload.inputs": f"[{inputs}/*.txt]", **changes}
            options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
            plan = recipe("plan", "local-smoke", *options, "--json")
            assert plan.returncode == 0, plan.stderr
            cases[name] = (options, json.loads(plan.stdout)["plans"][0]["forecast"])
        for name, (options, forecast) in cases.items():
            result = run(recipe, "local-smoke", *options)
            drive = next(phase for phase in forecast["phases"] if phase["name"] == "drive")
            assert "measured in 1 run" in drive["basis"]
            changed = abs(math.log(drive_s(run(recipe, "local-smoke")) / before))
            for what, likely, took in (
                ("drive", drive["seconds"]["likely"], drive_s(result)),
                ("total", forecast["total_seconds"]["likely"], leased_s(result)),
            ):
                error = math.log(took / likely)
                print(f"{name}, {what}: likely {likely:.2f} s, took {took:.2f} s; the machine changed by {changed:.0%}")
                off.setdefault(f"{name}, {what}", []).append(max(0.0, abs(error) - changed))
    assert {what: sorted(errors)[1] for what, errors in off.items() if sorted(errors)[1] > _ALLOWED} == {}


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

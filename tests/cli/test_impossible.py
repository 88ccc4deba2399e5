"""Rows that cannot be true, from an older recipe's import or another writer: they spoil no list, table or check."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Command
from tests.runners.exporting.made import keep, result_of, run_id

MEASURED = ("offer", "phases", "cost", "throughput", "latency", "requests", "documents", "telemetry")


def everywhere(value: Any, found: Any) -> Any:
    """The same with this for each number."""
    if isinstance(found, dict):
        return {name: everywhere(value, inner) for name, inner in found.items()}
    if isinstance(found, list):
        return [everywhere(value, inner) for inner in found]
    return value if isinstance(found, int | float) and not isinstance(found, bool) else found


def numbers(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda result: result.update({name: everywhere(value, result[name]) for name in MEASURED})


SPOILT: list[Callable[[dict[str, Any]], None]] = [
    numbers(1e308),
    numbers(float("inf")),
    numbers(float("nan")),
    numbers(-5.0),
    numbers(0),
    numbers(None),
    lambda result: result.update(started_at="9999-12-31T23:59:59+00:00", ended_at="0001-01-01T00:00:00+00:00"),
    lambda result: result.update(dict.fromkeys((*MEASURED, "engine", "model", "release", "variant", "tags"))),
    lambda result: [result.pop(name) for name in (*MEASURED, "engine", "model", "release", "variant", "tags")],
]


@pytest.fixture
def spoilt(recipe: Command) -> Command:
    keep(recipe.home, result_of(run_id(0)))
    for number, spoil in enumerate(SPOILT, 1):
        result = result_of(run_id(number))
        spoil(result)
        keep(recipe.home, result)
    return recipe


def test_no_reading_command_ends_in_a_bug(spoilt: Command) -> None:
    one = run_id(0)
    for words in (
        ("runs",),
        ("runs", "--by", "recipe"),
        ("runs", "--json"),
        ("export", "--format", "markdown"),
        ("export", "--format", "csv"),
        ("compare", "made"),
    ):
        ended = spoilt(*words)
        assert ended.returncode == 0, (words, ended.stderr)
        assert "0000000000000" not in ended.stdout or words == ("export", "--format", "csv"), words
    limits = ("--max-duration", "5m", "--max-cost", "1", "--max-ttft-p50", "1s", "--baseline", one)
    every = [run_id(number) for number in range(1, len(SPOILT) + 1)]
    ended = spoilt("check", *every, *limits, "--json")
    assert ended.returncode == 8, ended.stderr
    assert [run["met"] for run in json.loads(ended.stdout)["runs"]].count(False) >= len(SPOILT) - 2


def test_a_list_of_runs_says_which_came_from_elsewhere(spoilt: Command) -> None:
    listed = spoilt("runs").stdout.splitlines()
    assert "from" in listed[0].split()
    assert all("made up" in line for line in listed[1:])


def test_a_report_of_what_no_recipe_wrote_says_what_is_wrong_with_it(spoilt: Command) -> None:
    for number in range(1, len(SPOILT) + 1):
        ended = spoilt("report", run_id(number))
        assert ended.returncode in (0, 2), ended.stderr
        assert "bug in recipe" not in ended.stderr
        if ended.returncode:
            assert ended.stderr.startswith(f"error: {run_id(number)}: its result.json")
    assert "its result.json" in spoilt("report", run_id(1)).stderr
    assert spoilt("report", run_id(0)).returncode == 0

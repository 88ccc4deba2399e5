"""The `traffic` section: what it takes, and what it says of what it does not take."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from recipes.spec import Workload
from recipes.traffic import Traffic


def read(**settings: Any) -> Traffic:
    return Traffic.model_validate_json(json.dumps(settings), strict=True)


def refused(**settings: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        read(**settings)
    return str(caught.value)


def test_one_point_may_be_written_without_a_list() -> None:
    assert read(concurrency=8).concurrency == (8,)
    assert read(rate=0.5).rate == (0.5,)


@pytest.mark.parametrize(
    "settings",
    [
        {"concurrency": [1, 8], "slo": {"ttft": "500ms"}},
        {"rate": [0.5, 2], "arrivals": "gamma", "burstiness": 0.3, "duration": "90s"},
        {"prompts": "a.jsonl", "field": "text", "rate": 3, "synthetic": {"input_tokens": 9, "input_stdev": 2}},
    ],
    ids=str,
)
def test_what_was_read_can_be_written_and_read_again(settings: dict[str, Any]) -> None:
    once = read(**settings)
    assert Traffic.model_validate_json(once.model_dump_json(), strict=True) == once


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "write either concurrency"),
        ({"concurrency": [1], "rate": [1]}, "write either concurrency"),
        ({"concurrency": [8, 2]}, "must rise"),
        ({"concurrency": [2, 2]}, "must rise"),
        ({"concurrency": [0]}, "greater than or equal to 1"),
        ({"concurrency": True}, "valid array"),
        ({"rate": [0]}, "greater than 0"),
        ({"rate": [1, 20000]}, "more than one client sends"),
        ({"rate": 1, "arrivals": "weibull"}, "'poisson', 'gamma' or 'constant'"),
        ({"rate": 1, "burstiness": 0.5}, "write arrivals: gamma"),
        ({"rate": 1, "arrivals": "constant", "burstiness": 2}, "write arrivals: gamma"),
        ({"rate": 1, "duration": "0s"}, "more than nothing"),
        ({"rate": 1, "slo": {}}, "nothing to keep to"),
        ({"rate": 1, "synthetic": {"input_tokens": 10, "shared_prefix_tokens": 10}}, "must be fewer than input_tokens"),
        ({"rate": 1, "synthetic": {"output_tokens": 0}}, "greater than or equal to 1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_what_can(settings: dict[str, Any], said: str) -> None:
    assert said in refused(**settings)


def test_a_load_needs_no_inputs_and_does_not_try_again() -> None:
    load = Workload.model_validate({"name": "load", "traffic": {"concurrency": [1, 64]}})
    assert (load.at_once, load.retries) == (64, 0)
    assert Workload.model_validate({"inputs": ["a.txt"]}).retries == 5
    again = Workload.model_validate({"name": "load", "traffic": {"rate": [1]}, "retries": 2})
    assert (again.at_once, again.retries) == (None, 2)

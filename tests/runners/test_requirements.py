"""Conditions and baselines, held against results whose figures are given."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from recipes.errors import UsageError
from runners.requirements import HELD, LIMITS, Check, against, always, limit_value, required, share, unlike

SPREAD = {"mean": 0.5, "p50": 0.4, "p90": 0.7, "p95": 0.8, "p99": 1.2}
RESULT: dict[str, Any] = {
    "run_id": "it",
    "outcome": {"status": "completed", "phase": None, "error": None},
    "release": {"state": "gone", "proof": "absent twice"},
    "requests": {"ok": 12, "failed": 0},
    "throughput": {"output_tokens": 10, "output_tokens_per_s": 150.0, "prompt_tokens_per_s": 2900.0},
    "latency": {"ttft_s": SPREAD, "tpot_s": SPREAD, "itl_s": SPREAD, "e2e_s": SPREAD},
    "phases": [{"name": "drive", "seconds": 100.25, "usd": 0.1}, {"name": "release", "seconds": 20.0, "usd": 0.02}],
    "documents": {"done": 3, "total": 3},
    "engine": {"name": "vllm", "version": None},
    "cost": {
        "total_usd": 0.12,
        "usd_per_document": 0.04,
        "usd_per_million_tokens": 0.62,
        "usd_per_million_prompt_tokens": 0.65,
        "usd_per_million_output_tokens": 9.0,
        "useful_fraction": 0.74,
    },
}


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(RESULT)
    for name, fields in sections.items():
        result[name].update(fields)
    return result


def unmet(checks: Any) -> dict[str, str]:
    return {check.name: check.said for check in checks if not check.met}


def test_a_run_that_went_well_meets_what_is_always_asked() -> None:
    assert unmet(always(RESULT, failures=True)) == {}


@pytest.mark.parametrize(
    ("result", "name", "said"),
    [
        (
            changed(outcome={"status": "failed", "phase": "launch", "error": "the engine ended"}),
            "completed",
            "failed in launch: the engine ended",
        ),
        (changed(outcome={"status": "interrupted", "phase": "drive"}), "completed", "interrupted in drive: stopped"),
        (
            changed(release={"state": "may-still-bill", "reason": "no answer"}),
            "machine",
            "not proven gone: no answer",
        ),
        (changed(requests={"failed": 2}), "max-failed", "2 requests, above 0 requests"),
    ],
)
def test_what_did_not_go_well_meets_nothing(result: dict[str, Any], name: str, said: str) -> None:
    assert unmet(always(result, failures=True)) == {name: said}


def held(name: str, text: str, result: dict[str, Any] = RESULT) -> Check:
    return LIMITS[name].held(result, limit_value(LIMITS[name], text))


@pytest.mark.parametrize(
    ("name", "enough", "too_much", "said"),
    [
        ("min-output-tokens-per-s", "150", "150.01", "150 tok/s, below 150.01 tok/s"),
        ("min-prompt-tokens-per-s", "2900", "1e4", "2,900 tok/s, below 10,000 tok/s"),
        ("min-useful-fraction", "70%", "0.75", "74%, below 75%"),
        ("max-cost", "$0.12", "0.1", "$0.12, above $0.10"),
        ("max-usd-per-document", "0.04", "0.03", "$0.04, above $0.03"),
        ("max-usd-per-million-tokens", "1", "0.5", "$0.62, above $0.50"),
        ("max-usd-per-million-prompt-tokens", "1", "0.5", "$0.65, above $0.50"),
        ("max-usd-per-million-output-tokens", "9", "8", "$9.00, above $8.00"),
        ("max-duration", "2m1s", "2m", "120.25 s, above 120 s"),
        ("max-ttft-p99", "1.2s", "1s", "1.20 s, above 1.00 s"),
        ("max-tpot-p50", "400ms", "399ms", "0.4 s, above 0.399 s"),
        ("max-itl-p90", "1s", "500ms", "0.70 s, above 0.50 s"),
        ("max-e2e-p95", "1s", "500ms", "0.80 s, above 0.50 s"),
    ],
)
def test_a_limit_is_kept_or_not(name: str, enough: str, too_much: str, said: str) -> None:
    assert held(name, enough).met
    broken = held(name, too_much)
    assert (broken.met, broken.said) == (False, said)


def test_a_figure_that_nobody_knows_keeps_no_limit() -> None:
    unknown = held("max-cost", "100", changed(cost={"total_usd": None}))
    assert (unknown.met, unknown.said) == (False, "is not known, and must be at most $100.00")
    older = changed()
    del older["cost"]["usd_per_million_tokens"]
    assert not held("max-usd-per-million-tokens", "100", older).met


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("max-cost", "nan"),
        ("max-cost", "inf"),
        ("max-cost", "-1"),
        ("max-cost", "ten"),
        ("max-duration", "12"),
        ("max-ttft-p99", "fast"),
        ("min-useful-fraction", "70"),
        ("min-useful-fraction", "-0.1"),
    ],
)
def test_nonsense_is_no_limit(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        limit_value(LIMITS[name], text)


def test_shares() -> None:
    assert [share(text) for text in ("10%", "0.1", "0", "100 %")] == [0.1, 0.1, 0.0, 1.0]


def test_beside_itself_a_run_is_not_worse() -> None:
    checks = list(against(RESULT, RESULT, 0.0))
    assert unmet(checks) == {}
    assert len(checks) == len(HELD)
    assert {check.said.rpartition(": ")[2] for check in checks} == {"the same"}


def test_more_is_better_for_speed_and_worse_for_time_and_money() -> None:
    slower = changed(throughput={"output_tokens_per_s": 120.0}, cost={"total_usd": 0.144, "usd_per_document": 0.04})
    found = unmet(against(slower, RESULT, 0.1))
    assert found == {
        "baseline output_tokens_per_s": "120 tok/s, was 150 tok/s: worse by 20.0%",
        "baseline total_usd": "$0.14, was $0.12: worse by 20.0%",
    }
    assert unmet(against(slower, RESULT, 0.2)) == {}
    assert unmet(against(RESULT, slower, 0.0)) == {}
    better = {check.name: check.said for check in against(RESULT, slower, 0.0)}
    assert better["baseline output_tokens_per_s"] == "150 tok/s, was 120 tok/s: better by 25.0%"


def test_one_more_failed_request_is_worse_whatever_the_tolerance() -> None:
    failing = changed(requests={"failed": 1})
    assert list(unmet(against(failing, RESULT, 1.0))) == ["baseline failed_requests"]
    assert unmet(against(failing, failing, 0.0)) == {}


def test_what_became_unknown_is_worse_and_what_was_unknown_is_passed_over() -> None:
    unknown = changed(cost={"total_usd": None})
    assert unmet(against(unknown, RESULT, 0.5)) == {"baseline total_usd": "is not known, was $0.12"}
    assert "baseline total_usd" not in {check.name for check in against(RESULT, unknown, 0.5)}


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("throughput.output_tokens_per_s>=100", True),
        ("throughput.output_tokens_per_s > 150", False),
        ("cost.total_usd<=0.12", True),
        ("cost.total_usd < 0.12", False),
        ("documents.done == 3", True),
        ("documents.done=3", True),
        ("documents.done != 3", False),
        ("engine.name == vllm", True),
        ('engine.name == "vllm"', True),
        ("engine.name != vllm", False),
        ("engine.version == null", True),
        ("engine.version >= 3", False),
        ("outcome.phase == drive", False),
    ],
)
def test_any_field_can_be_required(text: str, met: bool) -> None:
    assert required(RESULT, text).met is met


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        ">=3",
        "documents.done>=",
        "documents.don>=3",
        "documents.done.more>=3",
        "documents>=3",
        "engine.name >= vllm",
        "no.such>=3",
    ],
)
def test_nonsense_is_no_requirement(text: str) -> None:
    with pytest.raises(UsageError):
        required(RESULT, text)


@pytest.mark.parametrize(
    ("name", "limit", "figures", "said"),
    [
        ("max-cost", "0.0292", {"cost": {"total_usd": 0.02952}}, "$0.02952, above $0.0292"),
        ("max-cost", "0.029519999", {"cost": {"total_usd": 0.02952}}, "$0.02952, above $0.029519999"),
        ("max-ttft-p50", "57.9ms", {"latency": {"ttft_s": {"p50": 0.05795}}}, "0.05795 s, above 0.0579 s"),
        ("max-failed", "1.5", {"requests": {"failed": 2}}, "2 requests, above 1.5 requests"),
        ("min-useful-fraction", "0.7401", {}, "0.74, below 0.7401"),
        ("max-duration", "120.2s", {}, "120.25 s, above 120.2 s"),
        ("min-output-tokens-per-s", "150.00000000001", {}, "150.0 tok/s, below 150.00000000001 tok/s"),
    ],
)
def test_a_reason_never_contradicts_itself(name: str, limit: str, figures: dict[str, Any], said: str) -> None:
    check = held(name, limit, changed(**figures))
    assert (check.met, check.said) == (False, said)


def test_beside_a_baseline_what_differs_reads_differently() -> None:
    (check,) = against(changed(cost={"total_usd": 0.1204}), RESULT, 0.0, ["total_usd"])
    assert (check.met, check.said) == (False, "$0.1204, was $0.12: worse by 0.3%")


LIKE: dict[str, Any] = {
    "recipe": "it",
    "recipe_digest": "a",
    "model": {"identifier": "owner/model"},
    "engine": {"name": "vllm", "version": "0.33.0"},
    "offer": {"provider": "runpod", "accelerator": "A40", "count": 1, "cpus": 8},
    "cost": {"price_usd_per_h": 0.5},
    "workload": {"inputs_digest": "i", "prompt_digest": "p"},
}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"recipe": "other", "recipe_digest": "b"}, ["recipe is other, was it"]),
        ({"recipe_digest": "b"}, ["the recipe has changed since"]),
        ({"model": {"identifier": "owner/other"}}, ["model is owner/other, was owner/model"]),
        ({"engine": {"name": "vllm", "version": "0.34.0"}}, ["engine is vllm 0.34.0, was vllm 0.33.0"]),
        ({"offer": {"provider": "local", "cpus": 2}}, ["machine is 2 CPUs of local, was 1x A40 of runpod"]),
        ({"cost": {"price_usd_per_h": 36.0}}, ["price is $36/h, was $0.5/h"]),
        ({"workload": {"inputs_digest": "j", "prompt_digest": "q"}}, ["other inputs", "other prompt"]),
        ({"workload": None, "offer": None, "cost": None, "engine": None, "model": None}, []),
    ],
)
def test_what_is_unlike_of_a_run_and_its_baseline_is_told(changes: dict[str, Any], told: list[str]) -> None:
    assert list(unlike({**LIKE, **changes}, LIKE)) == told

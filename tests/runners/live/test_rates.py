"""Tokens by the second, from counters or from answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runners.live.rates import KEPT_S, Rates

BEGIN = datetime(2026, 11, 21, 5, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def test_what_was_counted_between_two_looks_is_shared_among_their_seconds() -> None:
    rates = Rates()
    rates.counters(after(0.5), 100, 10)
    rates.counters(after(2.5), 300, 30)
    rates.counters(after(4.0), 300, 60)
    document = rates.document(after(4.2))
    assert document is not None
    assert document["from"] == "engine"
    assert document["prompt_tokens_per_s"] == [50, 100, 50, 0]
    assert document["output_tokens_per_s"] == [5, 10, 15, 20]
    assert document["until"] == after(4).isoformat()


def test_seconds_that_the_counters_have_not_told_of_are_not_told_as_nothing() -> None:
    rates = Rates()
    for second in range(3):
        rates.counters(after(second), 100 * second, 0)
    document = rates.document(after(60))
    assert document is not None
    assert document["prompt_tokens_per_s"] == [100, 100]


def test_an_engine_that_was_started_anew_counts_from_nothing() -> None:
    rates = Rates()
    for second, counted in enumerate([1000, 2000, 50, 150]):
        rates.counters(after(second), counted, 0)
    document = rates.document(after(3))
    assert document is not None
    assert document["prompt_tokens_per_s"] == [1000, 50, 100]


def test_without_counters_the_answers_count() -> None:
    rates = Rates()
    rates.answer(after(0.1).timestamp(), 100, 7)
    rates.answer(after(0.9).timestamp(), 100, 7)
    rates.answer(after(2.1).timestamp(), 100, 7)
    document = rates.document(after(3.5))
    assert document is not None
    assert document["from"] == "answers"
    assert document["prompt_tokens_per_s"] == [200, 0, 100]
    rates.counters(after(3), 0, 0)
    rates.counters(after(4), 10, 10)
    assert rates.document(after(5))["from"] == "engine"  # type: ignore[index]


def test_nothing_was_counted_yet() -> None:
    assert Rates().document(BEGIN) is None


def test_a_day_is_not_kept_and_a_gap_costs_nothing() -> None:
    rates = Rates()
    for second in range(0, 86_400, 7):
        rates.counters(after(second), second, second)
    rates.counters(after(10 * 86_400), 864_000, 0)
    document = rates.document(after(10 * 86_400))
    assert document is not None
    assert len(document["prompt_tokens_per_s"]) == KEPT_S
    assert sum(document["prompt_tokens_per_s"]) == pytest.approx(864_000 - 86_394, rel=0.01)
    assert len(rates._counted._held) <= 2 * KEPT_S + 1

"""How long a lease may last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from recipes.spec import Limits
from runners.budget import adopted_deadline, affordable_s, lease_deadline

NOW = datetime(2026, 11, 21, 5, tzinfo=UTC)


def limits(**written: object) -> Limits:
    return Limits.model_validate(written)


def seconds(limits: Limits, price: float | None, *, billable: bool = True) -> tuple[float, float, str]:
    deadline = lease_deadline(limits, price, NOW, billable=billable)
    assert deadline is not None
    return (deadline.at - NOW).total_seconds(), (deadline.work_until - NOW).total_seconds(), deadline.limit


def test_the_earlier_limit_counts() -> None:
    both = limits(max_cost=10, max_duration="3h")
    assert seconds(both, 2.0) == (10800, 10740, "limits.max_duration")
    assert seconds(both, 5.0) == (7200, 7140, "limits.max_cost")


def test_of_a_short_lease_a_fifth_is_kept_back() -> None:
    assert seconds(limits(max_duration="10s"), None) == (10, 8, "limits.max_duration")


def test_a_rented_machine_without_limits_goes_after_a_day() -> None:
    at, _, limit = seconds(Limits(), 2.0)
    assert at == 86400
    assert "limits.max_duration" in limit
    assert lease_deadline(Limits(), None, NOW, billable=False) is None


def test_a_cheap_machine_with_a_high_budget_goes_after_a_day_as_well() -> None:
    assert seconds(Limits(max_cost=1000), 0.5)[0] == 86400
    assert seconds(limits(max_cost=1000, max_duration="48h"), 0.5)[0] == 48 * 3600


def test_without_a_price_no_budget_ends() -> None:
    assert affordable_s(Limits(max_cost=10), None) is None
    assert affordable_s(Limits(max_cost=10), 0.0) is None
    assert affordable_s(Limits(max_cost=10), 5.0) == pytest.approx(7200)


def test_an_adopted_lease_keeps_its_deadline() -> None:
    deadline = adopted_deadline(NOW + timedelta(minutes=10), NOW)
    assert (deadline.at, deadline.work_until) == (NOW + timedelta(minutes=10), NOW + timedelta(minutes=9))
    past = adopted_deadline(NOW - timedelta(minutes=1), NOW)
    assert past.work_until <= NOW

"""Figures as people read them."""

from __future__ import annotations

import pytest

from runners.terminal.words import (
    amount,
    clock_time,
    dollars,
    exact_dollars,
    plural,
    rate,
    seconds,
    shortened,
    whole_seconds,
)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0:00.0"),
        (0.04, "0:00.0"),
        (4.04, "0:04.0"),
        (9.94, "0:09.9"),
        (9.95, "0:10"),
        (9.999, "0:10"),
        (10, "0:10"),
        (59.4, "0:59"),
        (59.99, "1:00"),
        (60, "1:00"),
        (119.6, "2:00"),
        (2211, "36:51"),
        (3599.4, "59:59"),
        (3599.6, "1:00:00"),
        (3630, "1:00:30"),
        (86_400, "24:00:00"),
    ],
)
def test_clock_time(value: float, words: str) -> None:
    assert clock_time(value) == words


def test_a_clock_never_shows_sixty() -> None:
    for tenths in range(80_000):
        parts = clock_time(tenths / 10).split(":")
        assert all(float(part) < 60 for part in parts[1:])
        assert len(parts) == 3 or int(parts[0]) < 60


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1e308, 2**62])
def test_what_is_no_figure_of_a_run_is_told_as_unknown(value: float) -> None:
    """Rows that a stranger wrote, or an older recipe let in."""
    for told in (clock_time, whole_seconds, dollars, exact_dollars, rate, seconds, amount):
        assert told(value) == "–", told


def test_what_is_below_zero_has_its_sign_before_it() -> None:
    assert (dollars(-5.0), dollars(-0.0123), clock_time(-61.0)) == ("-$5.00", "-$0.01", "-1:01")


@pytest.mark.parametrize(
    ("usd", "words"),
    [
        (None, ""),
        (0, "$0.00"),
        (0.0, "$0.00"),
        (2.2, "$2.20"),
        (1234.5, "$1,234.50"),
        (0.996, "$1.00"),
        (0.99, "$0.99"),
        (0.1, "$0.10"),
        (0.012, "$0.01"),
        (0.0099, "$0.0099"),
        (0.00999, "$0.01"),
        (0.000_123_4, "$0.00012"),
        (1e-9, "$0.000000001"),
        (2.5e-12, "$0.0000000000025"),
    ],
)
def test_dollars(usd: float | None, words: str) -> None:
    assert dollars(usd) == words


def test_money_that_was_spent_never_reads_as_nothing() -> None:
    for exponent in range(-12, 4):
        for digits in (1, 1.49, 5, 9.949, 9.996):
            shown = dollars(digits * 10**exponent)
            assert "e" not in shown.lower()
            assert float(shown.lstrip("$").replace(",", "")) == pytest.approx(digits * 10**exponent, rel=0.34)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),
        (0, "0.0 ms"),
        (0.0004, "0.4 ms"),
        (0.0099, "9.9 ms"),
        (0.00996, "10 ms"),
        (0.071, "71 ms"),
        (0.0994, "99 ms"),
        (0.0996, "0.10 s"),
        (1.2, "1.20 s"),
        (9.94, "9.94 s"),
        (9.96, "10 s"),
        (19.4, "19 s"),
        (59.99, "60 s"),
    ],
)
def test_seconds(value: float | None, words: str) -> None:
    assert seconds(value) == words


def test_rates_plurals_and_shortening() -> None:
    assert (rate(2911.4), rate(0), rate(None)) == ("2,911 tok/s", "0 tok/s", "–")
    assert (plural(1, "problem"), plural(3, "problem"), plural(0, "problem")) == (
        "1 problem",
        "3 problems",
        "0 problems",
    )
    assert shortened("a\n b\t c", 10) == "a b c"
    assert shortened("one two three", 8) == "one two…"
    assert shortened("exactly 10", 10) == "exactly 10"
    assert len(shortened("x" * 99, 10)) == 10

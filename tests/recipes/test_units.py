"""Sizes, durations, counts and accelerators: what is read, what is refused, and that nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.units import (
    MAX_DURATION_S,
    Accelerators,
    Amount,
    format_amount,
    format_duration,
    format_size,
    parse_accelerators,
    parse_count,
    parse_duration,
    parse_memory,
    parse_size,
)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_size, "20GB", 20 * 10**9),
        (parse_size, "18GiB", 18 * 2**30),
        (parse_size, "1.5 tb", 1_500_000_000_000),
        (parse_size, "512b", 512),
        (parse_size, "9007199254740993B", 2**53 + 1),
        (parse_duration, "90s", 90.0),
        (parse_duration, "1h30m", 5400.0),
        (parse_duration, "2d", 172_800.0),
        (parse_duration, "0.5h", 1800.0),
        (parse_accelerators, "A100-80GB:2", Accelerators("A100-80GB", 2)),
        (parse_accelerators, "RTX 4090", Accelerators("RTX 4090", 1)),
        (parse_count, "16+", Amount(16, or_more=True)),
        (parse_count, 16, Amount(16)),
        (parse_memory, "128GB+", Amount(128 * 10**9, or_more=True)),
        (parse_memory, "64GiB", Amount(64 * 2**30)),
    ],
)
def test_reads(parse: Callable[[Any], object], text: str | int, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "advice"),
    [
        *[
            (parse_size, text, "write 20GB or 18GiB")
            for text in ("20QB", "20", "", "GB", "-1GB", "1e3GB", "9" * 400 + "GB")
        ],
        *[(parse_duration, text, "write 90s") for text in ("90", "", "3 hours", "-3h", "1.2.3s", "h")],
        *[(parse_duration, text, "longer than 3650d") for text in ("9" * 400 + "s", "3651d")],
        *[(parse_accelerators, text, "write A100-80GB:2") for text in ("", "A100:0", "A100:two", ":2", "A100:2:2")],
        *[(parse_count, text, "write 16 or 16+") for text in ("0", "-1", "16++", "many", "1.5")],
        *[(parse_memory, text, "write 20GB") for text in ("+", "128", "128GB++")],
    ],
)
def test_refuses_with_advice(parse: Callable[[Any], object], text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice.replace("+", r"\+")):
        parse(text)


@given(st.integers(min_value=0, max_value=10**18 - 1))
def test_a_size_survives_being_written_and_read(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@given(st.floats(min_value=0, max_value=MAX_DURATION_S) | st.integers(min_value=0, max_value=int(MAX_DURATION_S)))
def test_a_duration_survives_being_written_and_read(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=1, max_value=10**9), st.booleans())
def test_an_amount_survives_being_written_and_read(value: int, or_more: bool) -> None:
    amount = Amount(value, or_more)
    assert parse_count(format_amount(amount)) == amount
    assert parse_memory(format_amount(amount, size=True)) == amount


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (90, "1m30s"), (5400.0, "1h30m"), (1234567.5, "1234567.5s"), (1e-7, "0.0000001s")]
)
def test_durations_are_written_as_people_write_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0B"), (20 * 10**9, "20GB"), (18 * 2**30, "18GiB"), (1536, "1536B"), (5000, "5KB")]
)
def test_sizes_are_written_as_people_write_them(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text

"""How long a run still takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.live.left import Expected, Progress, left_s

PHASES = [
    Expected(name="provision", likely_s=60, high_s=120),
    Expected(name="prepare", likely_s=300, high_s=600),
    Expected(name="drive", likely_s=1000, high_s=2000),
    Expected(name="release", likely_s=10, high_s=30),
]


def test_before_the_drive_it_is_what_was_forecast() -> None:
    assert left_s(PHASES, ["plan"], "provision", 0, None) == 1370
    assert left_s(PHASES, ["plan"], "provision", 20, None) == 1350
    assert left_s(PHASES, ["plan", "provision"], "prepare", 100, None) == 1210


def test_a_phase_that_takes_longer_than_was_likely_is_not_over_yet() -> None:
    assert left_s(PHASES, ["provision"], "prepare", 400, None) == 100 + 1010
    assert left_s(PHASES, ["provision"], "prepare", 5000, None) == 1010


def test_in_the_drive_the_answers_own_pace_takes_over() -> None:
    ended = ["provision", "prepare"]
    begun = left_s(PHASES, ended, "drive", 1, Progress(answered=0, done=0, expected=1000))
    assert begun == pytest.approx(1009)
    half = left_s(PHASES, ended, "drive", 200, Progress(answered=500, done=500, expected=1000))
    assert half == pytest.approx(200 + 10)
    over = left_s(PHASES, ended, "drive", 400, Progress(answered=1000, done=1000, expected=1000))
    assert over == pytest.approx(10)


def test_answers_that_lay_on_disk_took_no_time() -> None:
    resumed = Progress(answered=50, done=950, expected=1000)
    assert left_s(PHASES, ["provision", "prepare"], "drive", 100, resumed) == pytest.approx(100 + 10)


def test_without_a_forecast_only_the_drive_can_say() -> None:
    assert left_s([], [], "prepare", 10, None) is None
    assert left_s([], [], "drive", 10, Progress(answered=0, done=0, expected=100)) is None
    assert left_s([], [], "drive", 10, Progress(answered=10, done=10, expected=100)) == pytest.approx(90)


def test_a_machine_that_is_kept_stays_as_long_as_somebody_wants() -> None:
    assert left_s(PHASES, ["drive"], "keep", 10, None) is None
    assert left_s(PHASES, [], None, 0, None) is None


@given(
    st.integers(0, 500),
    st.integers(0, 500),
    st.integers(0, 500),
    st.floats(0, 1e6),
    st.booleans(),
)
def test_it_is_never_less_than_nothing(answered: int, before: int, to_do: int, elapsed_s: float, known: bool) -> None:
    progress = Progress(answered=answered, done=answered + before, expected=answered + before + to_do)
    left = left_s(PHASES if known else [], [], "drive", elapsed_s, progress)
    assert left is None or left >= 0

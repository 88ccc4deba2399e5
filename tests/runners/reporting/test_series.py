"""What charts are made of."""

from __future__ import annotations

import random

from runners.reporting.series import MOST_POINTS, moments_table, thinned


def test_of_very_many_points_every_peak_and_every_gap_is_kept() -> None:
    chance = random.Random(1)
    x = [float(i) for i in range(86_400)]
    y: list[float | None] = [chance.random() for _ in x]
    y[40_001], y[50_003], y[60_000] = 7.5, -3.0, None
    kept_x, kept_y = thinned(x, y)
    assert len(kept_x) == len(kept_y) <= 1.01 * MOST_POINTS + 2
    assert (40_001.0, 7.5) in zip(kept_x, kept_y, strict=True)
    assert (50_003.0, -3.0) in zip(kept_x, kept_y, strict=True)
    assert None in kept_y
    assert kept_x == sorted(kept_x)
    assert thinned(x[:500], y[:500]) == (x[:500], y[:500])


def test_nothing_over_time_is_an_empty_table() -> None:
    assert moments_table({"origin": 0.0}, []) == []

"""However many tokens there were, memory holds a share of their gaps, and the percentiles stay what they are."""

from __future__ import annotations

import random
from array import array
from datetime import UTC, datetime

from runners.measurement import latency
from runners.records import RequestRecord
from runners.thinning import Thinned


def record(gaps: list[float]) -> RequestRecord:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    known = {"id": "a", "document": "a", "level": 1, "index": 0, "status": "ok", "tries": 1}
    return RequestRecord(**known, started_at=at, itl_s=array("f", gaps))  # type: ignore[arg-type]


def test_fewer_than_may_be_held_stay_as_they_are() -> None:
    records: list[RequestRecord] = []
    thinned = Thinned(records, most=100)
    for _ in range(10):
        thinned.add(record([0.1] * 10))
    assert [len(one.itl_s) for one in records] == [10] * 10


def test_of_more_an_even_share_is_held_and_the_percentiles_stay() -> None:
    chance = random.Random(1)
    whole = [record([chance.expovariate(50) for _ in range(chance.randint(1, 80))]) for _ in range(3000)]
    records: list[RequestRecord] = []
    thinned = Thinned(records, most=20_000)
    for one in whole:
        thinned.add(one)
    held = sum(len(one.itl_s) for one in records)
    assert 5_000 < held <= 20_000
    expected, found = latency(whole)["itl_s"], latency(records)["itl_s"]
    assert all(abs(found[name] / expected[name] - 1) < 0.1 for name in ("mean", "p50", "p90", "p99"))

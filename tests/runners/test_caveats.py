"""What a result warns of although the run was completed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from recipes.spec import Workload
from runners.records import EMPTY, RequestRecord
from runners.result import caveats


def record(finish_reason: str = "stop", error: str | None = None) -> RequestRecord:
    return RequestRecord(
        id="a/1/0",
        document="a",
        level=1,
        index=0,
        status="failed" if error else "ok",
        tries=1,
        started_at=datetime(2026, 1, 2, tzinfo=UTC),
        finish_reason=finish_reason,
        error=error,
    )


RECORDS = [record(), record("length"), record(error=EMPTY), record(error=EMPTY), record(error="HTTP 500")]


@pytest.mark.parametrize(("on_empty", "told"), [("skip", 2), ("fail", 1)])
def test_answers_that_were_cut_off_or_left_out_are_told(on_empty: str, told: int) -> None:
    settings = Workload.model_validate({"inputs": ["a"], "max_tokens": 50, "on_empty": on_empty})
    found = list(caveats(RECORDS, settings))
    assert len(found) == told
    assert found[0] == "1 of 5 answers were cut off at max_tokens 50"
    assert all("2 of 5 answers were empty" in caveat for caveat in found[1:])


def test_a_load_asks_for_answers_of_a_certain_length() -> None:
    settings = Workload.model_validate({"name": "load", "traffic": {"concurrency": [1]}})
    assert not list(caveats(RECORDS, settings))

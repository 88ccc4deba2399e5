"""Energy by phase, from samples whose figures are worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runners.clock import Clock, PhaseTime
from runners.costing import Spent, cost, phase_rows
from runners.electricity import electricity
from runners.result import spent_of
from runners.run_folder import RunFolder

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PHASES = tuple(
    PhaseTime(name, START + timedelta(seconds=at), seconds, seconds, None, START + timedelta(seconds=at))
    for name, at, seconds in (("launch", 0, 10.0), ("drive", 10, 20.0), ("release", 30, 5.0))
)


def samples(*, cpu: bool = False) -> Iterator[dict[str, Any]]:
    """A GPU that takes 100 W for ten seconds, then 360 W; and a CPU of 36 W."""
    joules = 0.0
    for second in range(31):
        watts = 100.0 if second <= 10 else 360.0
        joules += watts if second else 0.0
        row = {"at": (START + timedelta(seconds=second)).isoformat(), "source": "host", "n": second}
        row["gpus"] = [{"index": 0, "energy_j": joules, "power_w": watts}]
        yield {**row, "cpu_energy_j": 36.0 * second} if cpu else row


def test_each_phase_has_what_it_took() -> None:
    found = electricity(samples(), PHASES, 0.30)
    assert found is not None
    assert found.row == {
        "gpu_wh": pytest.approx(8200 / 3600, rel=1e-5),
        "cpu_wh": None,
        "total_wh": pytest.approx(8200 / 3600, rel=1e-5),
        "covered_seconds": 30.0,
        "source": "gpu counter",
    }
    # The counter of the tenth second is read when the next phase has begun.
    assert found.wh_by_phase == pytest.approx((900 / 3600, 7300 / 3600 - 360 / 3600, 360 / 3600))
    assert found.usd == pytest.approx(8200 / 3.6e6 * 0.30, rel=1e-5)


def test_the_processor_counts_where_it_tells() -> None:
    found = electricity(samples(cpu=True), PHASES, None)
    assert found is not None
    assert (found.row["cpu_wh"], found.usd) == (pytest.approx(0.3), None)
    assert found.row["total_wh"] == pytest.approx(8200 / 3600 + 0.3, rel=1e-5)


def test_without_samples_nothing_is_known() -> None:
    assert electricity([], PHASES, 0.30) is None
    host = {"at": START.isoformat(), "source": "host", "n": 1, "cpu": 0.5}
    assert electricity([host, {**host, "at": (START + timedelta(seconds=1)).isoformat()}], PHASES, 0.30) is None


def test_it_is_what_a_machine_without_a_price_costs() -> None:
    found = electricity(samples(), PHASES, 0.30)
    spent = Spent(phases=PHASES, price_usd_per_h=None, electricity=found)
    paid, rows = cost(spent, [], 1), phase_rows(spent)
    assert found is not None
    assert paid["total_usd"] == paid["energy"]["usd"] == pytest.approx(found.usd, rel=1e-5)
    assert rows[1]["usd"] / paid["total_usd"] == pytest.approx(6940 / 8200, rel=1e-4)


@pytest.mark.parametrize(("price", "priced_by"), [(None, "energy"), (0.5, "hour")])
def test_a_runs_telemetry_and_tariff_make_its_cost(tmp_path: Path, price: float | None, priced_by: str) -> None:
    (tmp_path / "telemetry.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples()) + '{"at": "20')
    clock = Clock()
    clock.phases, clock.price_usd_per_h = list(PHASES), price
    found = cost(spent_of(RunFolder(tmp_path), clock, 0.30), [], 1)
    assert (found["priced_by"], found["energy"]["source"]) == (priced_by, "gpu counter")
    assert found["energy"]["usd"] == pytest.approx(8200 / 3.6e6 * 0.30, rel=1e-5)
    assert (found["total_usd"] == found["energy"]["usd"]) is (price is None)

"""The figures that follow from rows, held against numbers worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runners.telemetry.energy import energy
from runners.telemetry.figures import MOST_GAPS, Figures

BEGIN = datetime(2026, 1, 2, tzinfo=UTC)


def host(second: float, *gpus: dict[str, Any], **values: Any) -> dict[str, Any]:
    at = (BEGIN + timedelta(seconds=second)).isoformat(timespec="milliseconds")
    return {"at": at, "source": "host", "gpus": list(gpus), **values}


def gap(second: float, seconds: float, of: str = "host") -> dict[str, Any]:
    return {**host(second), "source": "gap", "of": of, "seconds": seconds, "why": "because"}


def figures(*rows: dict[str, Any]) -> dict[str, Any]:
    made = Figures()
    for row in rows:
        made.add(row)
    found = made.row()
    assert found is not None
    return found


def test_nothing_sampled_is_no_figure() -> None:
    assert Figures().row() is None
    assert energy([]) is None
    assert energy([host(0), host(1, cpu=1)]) is None


def test_a_mean_is_over_time_and_not_over_samples() -> None:
    """What was thinned out counts for the time that it stands for."""
    row = figures(host(0, cpu=0.5), host(1, cpu=0.5), host(5, cpu=1.0))
    assert row["cpu"] == {"mean": pytest.approx((0.5 * 2 + 1.0 * 4) / 6, abs=1e-4), "max": 1.0}
    row = figures(host(0, cpu=0.5), host(1, cpu=0.5), gap(5, 4), host(5, cpu=1.0))
    assert row["cpu"] == {"mean": pytest.approx(2 / 3, abs=1e-4), "max": 1.0}, "of a gap nobody knows anything"


def test_gpus_have_their_names_and_their_ends() -> None:
    machine = {**host(0), "source": "machine", "gpus": [{"index": 1, "uuid": "GPU-1", "name": "A100"}]}
    hot = {"index": 1, "utilization": 0.5, "temperature_c": 80, "power_w": 100, "throttle": ["sw_power_cap"]}
    lost = {**host(3), "source": "lost", "gpu": 1, "uuid": "GPU-1", "why": "lost"}
    row = figures(machine, host(0, {**hot, "throttle": []}), host(2, hot), lost, host(3))
    (gpu,) = row["gpus"]
    assert (gpu["uuid"], gpu["name"], gpu["lost_at"]) == ("GPU-1", "A100", "2026-01-02T00:00:03.000+00:00")
    assert gpu["throttled_seconds"] == {"sw_power_cap": 2}
    assert gpu["temperature_c"] == {"max": 80}
    assert gpu["energy_wh"] == pytest.approx(200 / 3600, abs=1e-6)
    assert gpu["memory_used_mib"] == {"mean": None, "max": None}
    assert row["samples"] == {"machine": 1, "host": 3, "lost": 1}


def test_very_many_gaps_are_counted_and_the_longest_are_listed() -> None:
    row = figures(*(gap(10 * i, 3 + i % 7, "engine") for i in range(MOST_GAPS + 50)))
    assert row["samples"]["gap"] == MOST_GAPS + 50
    assert len(row["gaps"]) == MOST_GAPS
    assert row["gaps"] == sorted(row["gaps"], key=lambda one: one["at"])
    assert sum(one["seconds"] == 3 for one in row["gaps"]) == 0


def test_power_is_integrated_and_not_across_a_gap() -> None:
    watts = [{"index": 0, "power_w": w} for w in (100, 200, 300)]
    found = energy([host(0, watts[0]), host(2, watts[1]), gap(12, 10), host(12, watts[1]), host(13, watts[2])])
    assert found is not None
    assert found.gpu_wh == pytest.approx((150 * 2 + 250) / 3600)
    assert (found.covered_seconds, found.source, found.cpu_wh) == (3, "gpu power", None)


def test_a_counter_counts_across_a_gap_and_its_new_beginning_does_not() -> None:
    joules = [{"index": 0, "energy_j": j, "power_w": 1} for j in (1000, 4600, 10, 3610)]
    found = energy([host(0, joules[0]), gap(100, 99), host(100, joules[1]), host(101, joules[2]), host(102, joules[3])])
    assert found is not None
    assert found.gpu_wh == pytest.approx(2, abs=0.001), "between two counters there is power"
    assert (found.covered_seconds, found.source) == (102, "gpu counter+gpu power")


def test_gpus_add_up_and_processors_stand_beside_them() -> None:
    rows = [host(s, *({"index": i, "energy_j": 3600 * s} for i in range(4)), cpu_energy_j=1800.0 * s) for s in range(3)]
    found = energy(rows)
    assert found is not None
    assert (found.gpu_wh, found.cpu_wh, found.covered_seconds) == (8, 1, 2)
    assert found.source == "gpu counter+rapl"


def test_energy_is_known_for_as_long_as_all_gpus_tell_theirs() -> None:
    """Of one that was lost half-way the other half is missing, and is not said to be covered."""
    one, two = {"index": 0, "power_w": 100}, {"index": 1, "power_w": 100}
    lost = {**host(5), "source": "lost", "gpu": 1, "uuid": "GPU-1", "why": "lost"}
    rows = [*(host(s, one, two) for s in range(5)), lost, *(host(s, one) for s in range(5, 9))]
    found = energy(rows)
    assert found is not None
    assert (found.covered_seconds, found.gpu_wh) == (4 + 4 / 2, pytest.approx(1200 / 3600))
    assert [gpu["energy_seconds"] for gpu in figures(*rows)["gpus"]] == [8, 4]


def test_processors_tell_theirs_also_beside_gpus_that_do_not() -> None:
    found = energy([host(s, {"index": 0, "utilization": 0.5}, cpu_energy_j=10.0 * s) for s in range(3)])
    assert found is not None
    assert (found.covered_seconds, found.gpu_wh) == (2, None)

"""What a run cost, in words."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from runners.terminal.cost_view import bill_lines, cost_parts, energy_lines, idle_lines, phase_table
from runners.terminal.forecast_view import forecast_lines
from tests.terminal.plans import going

SECONDS = {"boot": 90.0, "download": 400.0, "load": 110.0, "waiting": 60.0, "letting_go": 1.0, "kept": 0.0}
ENERGY = {
    "gpu_wh": 412.4,
    "cpu_wh": None,
    "total_wh": 412.4,
    "usd": 0.1237,
    "covered_seconds": 2100.0,
    "source": "gpu counter",
}


def result(**cost: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "total_usd": 2.2,
        "priced_by": "hour",
        "forecast_usd": 2.24,
        "billed_seconds": 2211.0,
        "storage_usd": 0.04,
        "useful_fraction": 0.742,
        "usd_per_document": 0.18333,
        "usd_per_million_tokens": 0.6217,
        "idle_seconds": SECONDS,
        "idle_usd": {cause: s / 1000 for cause, s in SECONDS.items()},
        "energy": None,
        "provider_usd": None,
    }
    phases = [{"name": "drive", "seconds": 1600.0, "usd": 1.6}, {"name": "release", "seconds": 600.0, "usd": 0.6}]
    return {
        "cost": {**known, **cost},
        "documents": {"unit": "document"},
        "outcome": {"status": "completed"},
        "forecast": {"phases": []},
        "phases": phases,
        "offer": {"provider": "runpod"},
    }


def test_the_headline_says_what_it_cost_and_what_was_expected() -> None:
    assert list(cost_parts(result())) == [
        "$2.20 (forecast $2.24)",
        "useful 74%",
        "$0.18 per document",
        "$0.62 per million tokens",
    ]


def test_a_run_that_was_cut_short_or_went_on_is_not_held_against_its_forecast() -> None:
    for change in ({"outcome": {"status": "interrupted"}}, {"forecast": None}):
        assert next(iter(cost_parts({**result(), **change}))) == "$2.20"


def test_what_is_not_known_is_not_said() -> None:
    unknown = dict.fromkeys(("total_usd", "usd_per_document", "usd_per_million_tokens", "forecast_usd", "priced_by"))
    assert list(cost_parts(result(**unknown))) == ["useful 74%"]
    older = result(total_usd=None, usd_per_document=None)
    for name in ("usd_per_million_tokens", "idle_seconds", "idle_usd", "energy", "priced_by", "storage_usd"):
        del older["cost"][name]
    assert list(cost_parts(older)) == ["useful 74%"]
    assert [*idle_lines(older), *energy_lines(older), *bill_lines(older)] == []


def test_electricity_is_called_so() -> None:
    (first, *_) = cost_parts(result(priced_by="energy", forecast_usd=None, total_usd=0.12))
    assert first == "$0.12 of electricity"


def test_the_dearest_idleness_comes_first() -> None:
    (line,) = idle_lines(result())
    assert line == "idle         $0.66: download $0.40 · load $0.11 · boot $0.09 · waiting $0.06 · the rest $0.001"


def test_a_download_that_was_none_is_not_called_one() -> None:
    (line,) = idle_lines({**result(), "prepared": {"installed": False, "downloaded_bytes": 0}})
    assert line.startswith("idle         $0.66: prepare $0.40 · load $0.11")
    (line,) = idle_lines({**result(), "prepared": {"installed": False, "downloaded_bytes": 7}})
    assert "download $0.40" in line


def test_idleness_without_a_price_is_told_in_time() -> None:
    (line,) = idle_lines(result(idle_usd=None))
    assert line.startswith("idle         11:01: download 6:40 · load 1:50 · boot 1:30")


def test_energy_with_what_it_cost_and_how_much_of_the_run_was_seen() -> None:
    (line,) = energy_lines(result(energy=ENERGY))
    assert line == "energy       412 Wh   $0.12   GPU 412 Wh (gpu counter, seen for 35:00 of 36:51)"


def test_the_providers_bill_stands_beside_ours() -> None:
    (line,) = bill_lines(result(provider_usd=2.15, difference_usd=-0.05, difference_share=-0.0227))
    assert line == "bill         runpod says $2.15 so far; by our count $2.20, it differs by -2.3%"


def test_the_table_of_phases_ends_with_their_sum() -> None:
    out = Console(file=io.StringIO(), width=80)
    out.print(phase_table(result()))
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split() for line in lines[1:]] == [
        ["drive", "26:40", "$1.60", "73%"],
        ["release", "10:00", "$0.60", "27%"],
        ["total", "36:40", "$2.20"],
        ["of", "it", "disks", "$0.04"],
    ]


def test_a_plan_says_what_the_disks_cost_and_who_says_so() -> None:
    plan = going()
    assert not any("disks" in line.plain for line in forecast_lines(plan, 100))
    plan["offers"][0] |= {
        "storage_usd_per_h": 0.0301,
        "storage_basis": "220 GB at RunPod's prices of 2026-11-09, assumed",
    }
    (line,) = [line.plain for line in forecast_lines(plan, 100) if "disks" in line.plain]
    assert line.strip() == "with $0.03/h for the disks: 220 GB at RunPod's prices of 2026-11-09, assumed"

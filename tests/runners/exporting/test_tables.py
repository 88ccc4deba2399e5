"""Runs, requests and telemetry as typed rows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runners.exporting.columns import Table
from runners.exporting.contract import What
from runners.exporting.tables import documents_of, table_of
from runners.ledger import Ledger
from tests.runners.exporting.made import keep, lines, request_row, result_of, run_id, runs_in


def dicts(table: Table) -> list[dict[str, Any]]:
    names = [column.name for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in table.rows]


def rows_of(home: Path, what: What = "runs") -> list[dict[str, Any]]:
    return dicts(table_of(what, runs_in(home)))


def test_a_run_is_a_row_of_its_results_values(tmp_path: Path) -> None:
    keep(tmp_path, result_of(run_id(1), tags=["b", "a"], variant={"workload.concurrency": 4}))
    (row,) = rows_of(tmp_path)
    assert row["run_id"] == run_id(1)
    assert row["recipe"] == "made"
    assert row["tags"] == "a,b"
    assert row["variant"] == '{"workload.concurrency":4}'
    assert row["origin"] == "made up"
    assert row["started_at"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert row["seconds"] == 52.0
    assert row["outcome.status"] == "completed"
    assert row["engine.tensor_parallel_size"] == 2
    assert row["engine.args"] == '{"max_model_len":4096}'
    assert row["offer.spot"] is False
    assert row["cost.total_usd"] == 0.06
    assert row["latency.ttft_s.p99"] == 0.5
    assert row["versions.gpu-recipe"] == "0.1.0"
    assert (row["phase_drive_seconds"], row["phase_drive_usd"]) == (40.0, 0.05)
    assert (row["phase_launch_seconds"], row["phase_launch_usd"]) == (None, None)
    assert (row["peak_output_metrics_tokens_per_s"], row["peak_output_log_tokens_per_s"]) == (3.5, None)
    assert row["peak_output_metrics_at"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (row["gpu_utilization_mean"], row["gpu_memory_used_mib_max"], row["gpu_energy_wh"]) == (0.5, 10.0, 3.0)


def test_every_column_has_a_name_of_its_own_and_one_type_throughout(tmp_path: Path) -> None:
    kinds = {"text": str, "int": int, "float": float, "bool": bool, "time": datetime}
    keep(tmp_path, result_of(run_id(1), telemetry=None, variant={"a.b": 1}), requests_jsonl=lines(request_row(1)))
    whats: tuple[What, ...] = ("runs", "requests", "telemetry")
    for what in whats:
        table = table_of(what, runs_in(tmp_path))
        names = [column.name for column in table.columns]
        assert len(set(names)) == len(names)
        for row in table.rows:
            for column, cell in zip(table.columns, row, strict=True):
                assert cell is None or type(cell) is kinds[column.kind], column


@pytest.mark.parametrize("value", ["text", [1], {"a": 1}, True, 10**400, None])
def test_what_is_not_of_its_columns_type_is_left_empty(tmp_path: Path, value: Any) -> None:
    changes = {"throughput__output_tokens_per_s": value, "offer__memory_gib": value, "requests__ok": value}
    result = result_of(run_id(1))
    keep(tmp_path, result)
    run = next(iter(runs_in(tmp_path)))
    for path, changed in changes.items():
        section, name = path.split("__")
        run.result[section][name] = changed
    (row,) = dicts(table_of("runs", [run]))
    assert row["throughput.output_tokens_per_s"] is None
    assert row["offer.memory_gib"] is None
    assert row["requests.ok"] is None


def test_an_older_result_that_lacks_whole_sections_still_has_its_row(tmp_path: Path) -> None:
    keep(tmp_path, result_of(run_id(1)))
    run = next(iter(runs_in(tmp_path)))
    for name in ("telemetry", "latency", "cost", "phases", "throughput", "engine", "variant", "workload"):
        del run.result[name]
    (row,) = dicts(table_of("runs", [run]))
    assert row["run_id"] == run_id(1)
    assert row["cost.total_usd"] is None
    assert row["seconds"] is None


def test_a_run_that_left_no_result_is_a_row_of_what_is_known(tmp_path: Path) -> None:
    Ledger(tmp_path).begin(run_id(1), "made", "abc", "2026-01-02T03:04:05+00:00", 2**22 + 1)
    (row,) = rows_of(tmp_path)
    assert (row["run_id"], row["recipe"], row["outcome.status"]) == (run_id(1), "made", "lost")
    assert row["started_at"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    (document,) = documents_of("runs", runs_in(tmp_path))
    assert document["outcome"]["status"] == "lost"


def test_requests_are_rows_with_their_run_and_moments(tmp_path: Path) -> None:
    cut_off = lines(request_row(0), request_row(1, ttft_s=None, itl_s=[], error="=1+1")) + '{"id": "a/1/2", "sta'
    keep(tmp_path, result_of(run_id(1)), requests_jsonl=cut_off)
    keep(tmp_path, result_of(run_id(2)))
    first, second = rows_of(tmp_path, "requests")
    assert (first["run_id"], first["id"], first["prompt_tokens"]) == (run_id(1), "a/1/0", 100)
    assert first["started_at"] == datetime(2026, 1, 2, 3, 4, 15, tzinfo=UTC)
    assert first["first_token_at"] == datetime(2026, 1, 2, 3, 4, 15, 500000, tzinfo=UTC)
    assert first["ended_at"] == datetime(2026, 1, 2, 3, 4, 16, 500000, tzinfo=UTC)
    assert (first["itl_mean_s"], first["itl_max_s"]) == (0.2, 0.3)
    assert (second["first_token_at"], second["itl_mean_s"], second["error"]) == (None, None, "=1+1")
    whole, _ = documents_of("requests", runs_in(tmp_path))
    assert whole == {"run_id": run_id(1), **request_row(0)}


def test_telemetry_has_a_row_for_each_sample_and_for_each_gpu_in_it(tmp_path: Path) -> None:
    at = "2026-01-02T03:04:15.250+00:00"
    host = {"at": at, "source": "host", "n": 1, "cpu": 0.5, "net_sent_bytes": 7}
    gpus = [{"index": 0, "power_w": 300.0, "throttle": ["power", "heat"]}, {"index": 1, "power_w": 200.0}]
    rows = [
        {"at": at, "source": "machine", "hostname": "h", "gpus": [{"index": 0, "uuid": "GPU-1", "name": "A40"}]},
        {**host, "gpus": gpus},
        {"at": at, "source": "gap", "of": "host", "seconds": 4.5, "why": "asleep"},
        {"at": at, "source": "lost", "gpu": 1, "uuid": "GPU-2", "why": "fell off the bus"},
    ]
    keep(tmp_path, result_of(run_id(1)), telemetry_jsonl=lines(*rows))
    table = rows_of(tmp_path, "telemetry")
    told = [(row["source"], row["gpu"]) for row in table]
    assert told == [
        ("machine", None),
        ("machine", 0),
        ("host", None),
        ("host", 0),
        ("host", 1),
        ("gap", None),
        ("lost", 1),
    ]
    assert {row["elapsed_s"] for row in table} == {10.25}
    assert {row["run_id"] for row in table} == {run_id(1)}
    _, named, sample, first, second, gap, lost = table
    assert (named["name"], named["uuid"], named["hostname"]) == ("A40", "GPU-1", None)
    assert (sample["cpu"], sample["net_sent_bytes"], sample["power_w"]) == (0.5, 7, None)
    assert (first["power_w"], first["throttle"], second["power_w"], second["throttle"]) == (
        300.0,
        "power,heat",
        200.0,
        None,
    )
    assert (gap["of"], gap["seconds"], gap["why"]) == ("host", 4.5, "asleep")
    assert (lost["uuid"], lost["why"]) == ("GPU-2", "fell off the bus")

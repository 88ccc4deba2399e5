"""Tables as files, read back by what people read them with."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from runners.exporting import formats
from runners.exporting.contract import ExportedRun, FileTarget, Tracker, What
from runners.exporting.targets import parquet
from tests.runners.exporting.made import keep, lines, request_row, result_of, run_id, runs_in

NASTY = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"]


@pytest.mark.parametrize("name", formats.names())
def test_a_target_writes_a_file_or_speaks_to_a_tracker(name: str) -> None:
    target = formats.target(name)
    assert isinstance(target, FileTarget) != isinstance(target, Tracker)
    assert isinstance(target, Tracker) or target.suffix.startswith(".")


def written(name: str, runs: Iterable[ExportedRun], what: What = "runs") -> bytes:
    target = formats.target(name)
    assert isinstance(target, FileTarget)
    file = io.BytesIO()
    target.write(what, runs, file)
    return file.getvalue()


def read_csv(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def failed(number: int, error: Any) -> dict[str, Any]:
    return result_of(run_id(number), outcome={"status": "failed", "phase": "drive", "error": error})


def test_csv_is_as_rfc_4180_has_it(tmp_path: Path) -> None:
    text = 'one, "two"\nthree | naïve 漢字 🎈'
    keep(tmp_path, failed(1, text))
    data = written("csv", runs_in(tmp_path))
    heading, rest = data.split(b"\r\n", 1)
    assert heading.startswith(b"run_id,recipe,")
    assert data.endswith(b"\r\n")
    assert '"one, ""two""\nthree | naïve 漢字 🎈"'.encode() in rest
    (row,) = read_csv(data)
    assert row["outcome.error"] == text
    assert row["started_at"] == "2026-01-02T03:04:05.000000+00:00"
    assert row["offer.spot"] == "false"
    assert float(row["cost.total_usd"]) == 0.06
    assert row["phase_launch_usd"] == ""


@pytest.mark.parametrize("text", NASTY)
def test_a_text_that_a_spreadsheet_would_compute_is_none_any_more(tmp_path: Path, text: str) -> None:
    keep(tmp_path, failed(1, text))
    (row,) = read_csv(written("csv", runs_in(tmp_path)))
    assert row["outcome.error"] == f"'{text}"


def test_a_number_below_zero_stays_one(tmp_path: Path) -> None:
    keep(tmp_path, result_of(run_id(1), cost__difference_usd=-0.5))
    (row,) = read_csv(written("csv", runs_in(tmp_path)))
    assert row["cost.difference_usd"] == "-0.5"


def test_half_a_character_keeps_no_format_from_being_written(tmp_path: Path) -> None:
    keep(tmp_path, result_of(run_id(1)), requests_jsonl='{"id": "a", "started_at": "x", "document": "a\\ud800b"}\n')
    (row,) = read_csv(written("csv", runs_in(tmp_path), "requests"))
    assert row["document"] == "a?b"
    (table,) = pa.parquet.read_table(io.BytesIO(written("parquet", runs_in(tmp_path), "requests"))).to_pylist()
    assert table["document"] == "a?b"
    (document,) = written("jsonl", runs_in(tmp_path), "requests").splitlines()
    assert json.loads(document)["document"] == "a\ud800b"


def test_json_lines_hold_whole_results(tmp_path: Path) -> None:
    results = [failed(1, "naïve\nlines"), result_of(run_id(2))]
    for result in results:
        keep(tmp_path, result)
    data = written("jsonl", runs_in(tmp_path))
    assert "naïve" in data.decode()
    assert [json.loads(line) for line in data.splitlines()] == results


def test_parquet_has_types_and_the_same_values_as_csv(tmp_path: Path) -> None:
    keep(tmp_path, result_of(run_id(1)), requests_jsonl=lines(request_row(1)))
    table = pa.parquet.read_table(io.BytesIO(written("parquet", runs_in(tmp_path))))
    assert table.schema.field("started_at").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("requests.ok").type == pa.int64()
    assert table.schema.field("cost.total_usd").type == pa.float64()
    assert table.schema.field("offer.spot").type == pa.bool_()
    (row,) = table.to_pylist()
    (texts,) = read_csv(written("csv", runs_in(tmp_path)))
    assert list(row) == list(texts)
    assert row["started_at"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for name, value in row.items():
        if isinstance(value, str):
            assert texts[name] == value, name
        elif value is None:
            assert texts[name] == "", name
    (request,) = pa.parquet.read_table(io.BytesIO(written("parquet", runs_in(tmp_path), "requests"))).to_pylist()
    assert request["prompt_tokens"] == 100


@pytest.mark.parametrize("name", ["csv", "parquet", "jsonl", "markdown"])
def test_no_runs_make_an_empty_file_of_the_format(name: str) -> None:
    data = written(name, [])
    match name:
        case "csv":
            assert data.startswith(b"run_id,")
            assert read_csv(data) == []
        case "parquet":
            table = pa.parquet.read_table(io.BytesIO(data))
            assert (table.num_rows, table.column_names[0]) == (0, "run_id")
        case "jsonl":
            assert data == b""
        case _:
            assert data == b"No runs.\n"


@pytest.mark.parametrize("name", ["csv", "parquet", "jsonl"])
def test_many_requests_take_the_memory_of_few(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written by rows and by row groups: what is held does not grow with the file."""
    keep(tmp_path, result_of(run_id(1)), requests_jsonl=lines(*(request_row(n) for n in range(500))))
    (run,) = runs_in(tmp_path)
    monkeypatch.setattr(parquet, "_ROWS_AT_ONCE", 500)

    def peak_bytes(times: int) -> int:
        target = formats.target(name)
        assert isinstance(target, FileTarget)
        tracemalloc.start()
        try:
            with (tmp_path / "out").open("wb") as file:
                target.write("requests", again(times), file)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def again(times: int) -> Iterator[ExportedRun]:
        return (run for _ in range(times))

    peak_bytes(1)  # what is imported stays
    assert peak_bytes(8) < 1.2 * peak_bytes(2) + 100_000
    if name == "parquet":
        assert pa.parquet.ParquetFile(tmp_path / "out").num_row_groups == 2

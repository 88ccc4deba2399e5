"""Parquet, through pyarrow: typed columns, times as timestamps in UTC, written by row groups."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from itertools import islice
from typing import IO, Any

from runners.exporting.columns import Column
from runners.exporting.contract import ExportedRun, What, imported
from runners.exporting.tables import WHATS, table_of

_ROWS_AT_ONCE = 10_000


class Parquet:
    suffix, whats, binary = ".parquet", WHATS, True

    def write(self, what: What, runs: Iterable[ExportedRun], file: IO[bytes]) -> None:
        pa = imported(lambda: importlib.import_module("pyarrow"), "pyarrow", "parquet")
        parquet = importlib.import_module("pyarrow.parquet")
        table = table_of(what, runs)
        schema = pa.schema([(column.name, _type(pa, column)) for column in table.columns])
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            while rows := list(islice(table.rows, _ROWS_AT_ONCE)):
                columns = [
                    pa.array(cells, field.type) for cells, field in zip(zip(*rows, strict=True), schema, strict=True)
                ]
                writer.write_table(pa.table(columns, schema=schema))


def _type(pa: Any, column: Column) -> Any:
    kinds = {
        "text": pa.string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"),
    }
    return kinds[column.kind]


PLUGIN = Parquet()

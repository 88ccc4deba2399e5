"""CSV as RFC 4180 has it: a heading, commas, quotes where they are needed, CR LF; UTF-8; times in ISO 8601, UTC.

A text that a spreadsheet would take for a formula has an apostrophe before it: what runs name and answer is strangers'.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from datetime import datetime
from typing import IO

from runners.exporting.columns import Cell
from runners.exporting.contract import ExportedRun, What
from runners.exporting.tables import WHATS, table_of

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What makes a formula of a cell, as OWASP's page on CSV injection lists it."""


class Csv:
    suffix, whats, binary = ".csv", WHATS, False

    def write(self, what: What, runs: Iterable[ExportedRun], file: IO[bytes]) -> None:
        table = table_of(what, runs)
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
        try:
            writer = csv.writer(text)
            writer.writerow([column.name for column in table.columns])
            writer.writerows([_cell(cell) for cell in row] for row in table.rows)
            text.flush()
        finally:
            text.detach()


def _cell(cell: Cell) -> str | int | float | None:
    match cell:
        case bool():
            return "true" if cell else "false"
        case datetime():
            return cell.isoformat(timespec="microseconds")
        case str():
            return f"'{cell}" if cell.startswith(_FORMULAS) else cell
        case _:
            return cell


PLUGIN = Csv()

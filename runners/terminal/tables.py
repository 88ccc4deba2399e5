"""Tables: figures aligned, as wide as they need to be."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import JustifyMethod
from rich.table import Table


def aligned_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> Table:
    """Columns as wide as they need to be; where the terminal is too narrow, the last ones are cut first."""
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(header):
        width = max(len(name), *(len(row[i]) for row in rows)) if rows else len(name)
        essential = i < len(header) - 2
        justify: JustifyMethod = "right" if name in right else "left"
        table.add_column(name, justify=justify, no_wrap=True, min_width=width if essential else None)
    for row in rows:
        table.add_row(*row)
    return table

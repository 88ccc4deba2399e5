"""How a run stands to what was asked of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from runners.terminal.cells import cells, padded, plain
from runners.terminal.words import plural


class Checked(Protocol):
    """One condition, and how the run stands to it."""

    @property
    def name(self) -> str: ...
    @property
    def met(self) -> bool: ...
    @property
    def said(self) -> str: ...


def check_lines(run_id: str, checks: Sequence[Checked], baseline: str | None = None) -> Iterator[str]:
    """The answer, then a line for each condition."""
    failed = sum(not check.met for check in checks)
    answer = f"NOT MET: {failed} of {plural(len(checks), 'condition')}" if failed else "met"
    yield plain(f"{run_id}   {answer}" + (f"   beside {baseline}" if baseline else ""))
    width = max((cells(plain(check.name)) for check in checks), default=0)
    for check in checks:
        yield f"  {'ok' if check.met else 'NO':<4}{padded(plain(check.name), width)}   {plain(check.said)}"

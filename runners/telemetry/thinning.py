"""Keeps telemetry.jsonl small: of its older part, fewer rows the more there are.

Of each source, one row in so many seconds stays, the first of each interval on the clock. An interval of twice the
length holds two whole ones, so that a file that was thinned out before is simply thinned out further, and its older
part is equally dense everywhere. Counters are cumulative: what lies between two rows that stay is still known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

RECENT_S = 900.0
"""So much of the newest is kept whole."""
THINNED = (b"host", b"engine")
"""The sources whose rows may go; facts, gaps and losses stay."""
_HEAD = re.compile(rb'\{"at": ?"([^"]+)", ?"source": ?"(\w+)"')
_WIDEST_S = 4096
_ROOM = 0.75


def thinned_copy(path: Path, part: Path, *, whole_bytes: int, limit_bytes: int) -> None:
    """Write the first bytes of a file to another, thinned out so far that there is room again. Raises OSError."""
    with path.open("rb") as file:
        lines = file.read(whole_bytes).splitlines(keepends=True)
    step_s = 2
    while True:
        kept = list(thinned(lines, step_s))
        if sum(map(len, kept)) <= limit_bytes * _ROOM or step_s >= _WIDEST_S:
            break
        step_s *= 2
    with part.open("wb") as file:
        file.writelines(kept)


def thinned(lines: Iterable[bytes], step_s: int) -> Iterator[bytes]:
    """The lines that stay, in their order; what is no row goes."""
    heads = [(line, head) for line in lines if (head := _HEAD.match(line)) and line.endswith(b"\n")]
    times = [datetime.fromisoformat(head[1].decode()).timestamp() for _, head in heads]
    whole_from = max(times, default=0.0) - RECENT_S
    last: dict[bytes, int] = {}
    for (line, head), at in zip(heads, times, strict=True):
        source, interval = head[2], int(at // step_s)
        if source not in THINNED or at >= whole_from or last.get(source) != interval:
            yield line
        last[source] = interval

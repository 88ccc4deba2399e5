"""Bars and small curves made of block characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_BLOCKS = "▁▂▃▄▅▆▇█"
_LINE, _HALF, _REST = "━", "╸", "─"


def spark(values: Sequence[float], width: int) -> str:
    """The values as a curve at most so wide, the newest at its right end; its highest is the highest of them.

    Where there are more values than columns, a column is the mean of those that fall into it.
    """
    if not values or width < 1:
        return ""
    columns = _means(values, width) if len(values) > width else list(values)
    highest = max(columns)
    if highest <= 0:
        return _BLOCKS[0] * len(columns)
    return "".join(_BLOCKS[min(7, int(8 * max(0.0, value) / highest))] for value in columns)


def _means(values: Sequence[float], count: int) -> list[float]:
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def progress(share: float, width: int) -> str:
    """A line that is filled as far as the share says."""
    halves = round(2 * width * min(1.0, max(0.0, share)))
    full, half = divmod(halves, 2)
    return (_LINE * full + _HALF * half).ljust(width, _REST)


def gauge(share: float, width: int) -> str:
    """A bar for how much of something is in use."""
    full = round(width * min(1.0, max(0.0, share)))
    return "█" * full + "░" * (width - full)

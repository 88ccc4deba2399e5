"""The forecast against the recipe's limits: what would probably be stopped before its end is not begun."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from provisioners.contract import Finding
from recipes.ranges import Range
from recipes.spec import Limits
from recipes.units import format_duration
from runners.forecast.values import Forecast

_HARDLY_KNOWN = 20.0
"""A range whose high end is so many times its low one says too little to refuse a run."""


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What is limited, and how it is told."""

    code: str
    field: str
    verb: str
    unit: str
    words: Callable[[float], str]
    enough: Callable[[float], float]
    """The amount, rounded up to what people would write."""
    blocks: bool
    """Money is not begun to be spent on what will not be finished; time is only told of."""


def budget_findings(forecast: Forecast, limits: Limits) -> Iterator[Finding]:
    """Of money (`budget`) and of time (`duration`), counted from the lease on; nothing where both are kept.

    Of money a block if the likely value is above the limit, for such a run would be stopped before its end; a warning
    if only the high one is, or if the forecast is hardly more than a guess. Of time a warning at most.
    """
    if limits.max_cost is not None and forecast.total_usd is not None:
        yield from _found(_COST, forecast.total_usd, limits.max_cost)
    if limits.max_duration is not None:
        yield from _found(_DURATION, forecast.total_s, limits.max_duration)


def _found(kind: _Kind, total: Range, limit: float) -> Iterator[Finding]:
    if total.high <= limit:
        return
    words, field = kind.words, f"limits.{kind.field}"
    span = f"{words(total.likely)} ({words(total.low)} to {words(total.high)})"
    guess = total.low <= limit and total.high > _HARDLY_KNOWN * total.low
    if total.likely <= limit:
        message = f"the run may {kind.verb} up to {words(total.high)}; it is stopped at {field} {words(limit)}"
    elif guess:
        message = f"the run might {kind.verb} {span}, of which little is known; it is stopped at {field} {words(limit)}"
    else:
        message = f"the run is likely to {kind.verb} {span}, and would be stopped at {field} {words(limit)}"
    figures = {"low": total.low, "likely": total.likely, "high": total.high}
    yield Finding(
        level="warn" if guess or total.likely <= limit or not kind.blocks else "block",
        code=kind.code,
        message=message,
        suggestion=f"raise {field} to at least {words(kind.enough(total.high))}, or lower the work",
        numbers={f"{name}_{kind.unit}": round(value, 6) for name, value in figures.items()}
        | {f"{kind.field}_{kind.unit}": limit},
        path=field,
    )


def _dollars(usd: float) -> str:
    return f"${usd:,.2f}" if usd >= 0.01 else f"${usd:.2g}"


def _time(seconds: float) -> str:
    """Whole seconds, and whole minutes from ten on."""
    return format_duration(round(seconds / 60) * 60.0 if seconds >= 600 else float(math.ceil(seconds)))


def _cents_up(usd: float) -> float:
    """Two digits that are told."""
    step = 10.0 ** (math.floor(math.log10(usd)) - 1)
    return math.ceil(usd / step - 1e-9) * step


def _minutes_up(seconds: float) -> float:
    return math.ceil(seconds / 60) * 60.0


_COST = _Kind(code="budget", field="max_cost", verb="cost", unit="usd", words=_dollars, enough=_cents_up, blocks=True)
_DURATION = _Kind(
    code="duration", field="max_duration", verb="take", unit="s", words=_time, enough=_minutes_up, blocks=False
)

"""Figures on a page: the text that people read, with the value itself and its place in result.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from markupsafe import Markup, escape

from runners.terminal.words import clock_time, dollars, seconds

UNKNOWN = "–"


def _share(value: float) -> str:
    """23 %; of little 0.4 %."""
    percent = value * 100
    return f"{percent:.1f} %" if 0 < abs(percent) < 1 else f"{percent:.0f} %"


def _took(value: float) -> str:
    """As a clock, but 29 ms and 0.50 s where tenths would say nothing."""
    return seconds(value) if value < 0.95 else clock_time(value)


def _off(value: float) -> str:
    """By how much the truth differs from a forecast: +12 %, −85 %."""
    return f"{value * 100:+,.0f} %".replace("-", "−")


def _figure(value: float) -> str:
    """Three digits, or all before the point."""
    if value == 0 or abs(value) >= 99.5:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.2e}"


def _bytes(value: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value:,.0f} B"


def _time(value: str) -> str:
    return datetime.fromisoformat(value).strftime("%H:%M:%S")


def _moment(value: str) -> str:
    return datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M:%S UTC")


FORMS: Mapping[str, Callable[[Any], str]] = {
    "clock": clock_time,
    "took": _took,
    "usd": dollars,
    "share": _share,
    "off": _off,
    "rate": lambda v: f"{v:,.0f} tok/s" if v >= 99.5 or v == 0 else f"{v:.3g} tok/s",
    "seconds": seconds,
    "count": lambda v: f"{v:,.0f}",
    "figure": _figure,
    "wh": lambda v: f"{_figure(v)} Wh",
    "watts": lambda v: f"{_figure(v)} W",
    "celsius": lambda v: f"{v:.0f} °C",
    "mib": lambda v: f"{v / 1024:,.1f} GiB",
    "gib": lambda v: f"{v:,.1f} GiB",
    "bytes": _bytes,
    "time": _time,
    "moment": _moment,
    "text": str,
}
"""How a value is written: seconds as 36:51 (clock) or 71 ms (seconds), shares as 23 %, moments as 05:57:31 …"""


def at(data: Any, path: str) -> Any:
    """What stands at a path such as phases.3.seconds; None if nothing does."""
    for name in path.split("."):
        if isinstance(data, Mapping):
            data = data.get(name)
        elif isinstance(data, list) and name.isdigit() and int(name) < len(data):
            data = data[int(name)]
        else:
            return None
    return data


class Figures:
    """Marks up the values of one result. Each says where it stands, so that it can be held against the file."""

    def __init__(self, result: Mapping[str, Any]) -> None:
        self._result = result
        self._run = escape(str(result.get("run_id", "")))

    def __call__(self, path: str, form: str = "text") -> Markup:
        """The value at a path; a dash if it is not known."""
        value = at(self._result, path)
        if value is None:
            return Markup('<span class="muted">–</span>')
        return self._marked(value, form, {"data-path": path})

    def known(self, path: str) -> bool:
        return at(self._result, path) is not None

    def total(self, many: str, name: str, form: str) -> Markup:
        """The sum of one field of all rows of a list, such as phases and seconds."""
        rows = at(self._result, many) or []
        found = [value for row in rows if (value := row.get(name)) is not None]
        if not found:
            return Markup('<span class="muted">–</span>')
        return self._marked(round(sum(found), 9), form, {"data-sum": f"{many}.*.{name}"})

    def share_of(self, path: str, many: str, name: str) -> Markup:
        """What part of that sum a value is."""
        total = sum(row.get(name) or 0 for row in at(self._result, many) or [])
        value = (at(self._result, path) or 0) / total if total else 0.0
        return self._marked(value, "share", {"data-share": path, "data-of": f"{many}.*.{name}"})

    def _marked(self, value: Any, form: str, where: Mapping[str, str]) -> Markup:
        # Formatting by Markup itself takes ten times as long, and a page has hundreds of figures.
        places = "".join(f' {name}="{escape(place)}"' for name, place in where.items())
        value, text = escape(value), escape(FORMS[form](value))
        return Markup(f'<data value="{value}" data-as="{form}"{places} data-run="{self._run}">{text}</data>')  # noqa: S704


def bounded(rows: Sequence[Any], most: int) -> tuple[Sequence[Any], int]:
    """The first of them, and how many are left out."""
    return rows[:most], max(0, len(rows) - most)

"""Figures of a comparison as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runners.terminal.words import exact_dollars, seconds

Document = Mapping[str, Any]


def figure(unit: str, value: float | None) -> str:
    """A figure as people read it."""
    if value is None:
        return "–"
    match unit:
        case "usd":
            return exact_dollars(value)
        case "s":
            return seconds(value)
        case "share":
            return f"{value:.0%}"
        case _:
            return f"{value:,.0f}" if value >= 99.5 or value == int(value) else f"{value:.3g}"


def metric_told(metric: Document) -> str:
    if metric["part"] == "phases":
        return f"phase {metric['name']}"
    return f"{metric['name']} tok/s" if metric["unit"] == "tok/s" else str(metric["name"])


def median_told(group: Document, metric: Document) -> str:
    found = group["figures"].get(metric["key"])
    return figure(metric["unit"], found["median"]) if found else "–"


def times_told(ratio: float) -> str:
    if ratio < 0.0995:
        return f"{ratio:.2g}"
    return f"{ratio:.2f}" if ratio < 99.95 else f"{ratio:,.0f}"

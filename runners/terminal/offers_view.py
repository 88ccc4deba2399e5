"""Hardware, as people read it: what can be rented now, and what is known of accelerators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from runners.terminal.layout import labelled, table
from runners.terminal.words import dollars

_OFFERED = ["accelerators", "memory", "usable", "$/h", "$/GPU·h", "stock", "cloud"]
_KNOWN = ["accelerator", "label", "usable", "bandwidth", "bf16", "fp8", "capability", "family"]


def offer_lines(rows: Sequence[dict[str, Any]], width: int | None, *, more: int = 0) -> Iterator[Text]:
    """A row each, as they are offered; `more` are of other counts."""
    lines = table([_OFFERED, *map(_offered, rows)], width, right=(1, 2, 3, 4), drop=(4, 1))
    yield Text(lines[0].rstrip(), style="bold")
    for line, row in zip(lines[1:], rows, strict=True):
        yield Text(line.rstrip(), style="dim" if row["stock"] == "none" else "")
    if more:
        yield Text()
        told = f"and {more:,} with more of them: recipe offers NAME, or --count 2"
        yield from labelled("", told, width, indent=0, style="dim")


def _offered(row: dict[str, Any]) -> list[str]:
    price, count = row["price_usd_per_h"], row["count"]
    return [
        f"{row['accelerators']}:{count}",
        f"{row['memory_gib']:.0f} GB" if row["memory_gib"] else "",
        f"{row['usable_gib']:.1f} GiB" if row["usable_gib"] else "",
        "?" if price is None else dollars(price),
        "" if price is None else dollars(price / max(1, count)),
        row["stock"] or "",
        " ".join(filter(None, (row["cloud"], row["region"], "spot" if row["spot"] else ""))),
    ]


def known_lines(rows: Sequence[dict[str, Any]], width: int | None) -> Iterator[Text]:
    """The table of accelerators; speeds are dense peaks in TFLOP/s."""
    lines = table([_KNOWN, *map(_known, rows)], width, right=(1, 2, 3, 4, 5, 6), drop=(7, 1))
    yield Text(lines[0].rstrip(), style="bold")
    yield from (Text(line.rstrip()) for line in lines[1:])
    yield Text()
    told = "usable: what the driver gives to programs · bf16, fp8: dense peak, TFLOP/s · capability: CUDA's"
    yield from labelled("", told, width, indent=0, style="dim")


def _known(row: dict[str, Any]) -> list[str]:
    speeds, capability = row["tflops"], row["compute_capability"]
    return [
        row["name"],
        f"{row['label_gb']} GB",
        f"{row['usable_gib']:.1f} GiB",
        f"{row['bandwidth_gb_s']:,.0f} GB/s",
        _speed(speeds.get("bfloat16")),
        _speed(speeds.get("float8")),
        ".".join(map(str, capability)) if capability else "",
        row["family"],
    ]


def _speed(tflops: float | None) -> str:
    return "–" if tflops is None else f"{tflops:,.0f}"

"""Figures as people read them."""

from __future__ import annotations

from decimal import Decimal

_MOST = 1e15
"""No figure of a run is larger; what a stranger wrote may be, or be no number at all."""
UNKNOWN = "–"


def is_figure(value: float) -> bool:
    """Whether it can be shown: not infinite, not NaN, not beyond all reason."""
    return -_MOST < value < _MOST


def clock_time(seconds: float) -> str:
    """0:04, 36:51, 1:00:30; with tenths under ten seconds."""
    if not is_figure(seconds):
        return UNKNOWN
    if seconds < 0:
        return f"-{clock_time(-seconds)}"
    if seconds < 9.95:
        return f"0:0{seconds:.1f}"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def whole_seconds(seconds: float) -> str:
    """The same without tenths: 0:04, 36:51, 1:00:30."""
    return clock_time(seconds) if seconds >= 9.95 or not is_figure(seconds) else f"0:{round(seconds):02d}"


def dollars(usd: float | None) -> str:
    """$2.20; small sums with two significant digits; nothing if the price is unknown."""
    if usd is None:
        return ""
    if not is_figure(usd):
        return UNKNOWN
    if usd < 0:
        return f"-{dollars(-usd)}"
    if usd == 0 or usd >= 0.995:
        return f"${usd:,.2f}"
    if usd >= 0.01:
        return f"${usd:.2f}"
    return f"${Decimal(f'{usd:.2g}'):f}"


def exact_dollars(usd: float | None) -> str:
    """$2.20, and below a dollar three significant digits: for sums that stand beside each other."""
    if usd is None or usd <= 0 or usd >= 0.9995 or not is_figure(usd):
        return dollars(usd)
    return f"${Decimal(f'{usd:#.3g}'):f}"


def rate(tokens_per_s: float | None) -> str:
    """2,911 tok/s."""
    return UNKNOWN if tokens_per_s is None or not is_figure(tokens_per_s) else f"{tokens_per_s:,.0f} tok/s"


def seconds(value: float | None) -> str:
    """71 ms, 1.20 s, 19 s."""
    if value is None or not is_figure(value):
        return UNKNOWN
    if value < 0.0995:
        return f"{value * 1000:.1f} ms" if value < 0.00995 else f"{value * 1000:.0f} ms"
    return f"{value:.2f} s" if value < 9.95 else f"{value:.0f} s"


def gib(size_gib: float) -> str:
    """58.4 GiB; of a small model 3 MiB."""
    return f"{size_gib:,.1f} GiB" if size_gib >= 0.095 or size_gib <= 0 else f"{max(1, round(size_gib * 1024))} MiB"


def plural(count: int, one: str) -> str:
    """1 problem, 3 problems."""
    return f"{count:,} {one if count == 1 else one + 's'}"


def shortened(text: str, width: int) -> str:
    """The text on one line, at most so wide."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def amount(count: float) -> str:
    """58,300; from a million on 3.1 M, from a thousand million on 69.0 B, as parameters and tokens are told."""
    if not is_figure(count):
        return UNKNOWN
    for size, unit in ((1e9, "B"), (1e6, "M")):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:,.0f}"

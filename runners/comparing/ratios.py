"""Ratios as people read them."""

from __future__ import annotations


def times(ratio: float) -> str:
    """1.42, 12.3, 140."""
    if ratio < 0.0995:
        return f"{ratio:.2g}"
    return f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.1f}" if ratio < 99.95 else f"{ratio:,.0f}"

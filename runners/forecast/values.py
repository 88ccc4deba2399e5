"""A forecast as frozen values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from recipes.ranges import Range


@dataclass(frozen=True, kw_only=True)
class PhaseForecast:
    """One phase of the run, named as in result.json."""

    name: str
    seconds: Range
    usd: Range | None
    """None if the offer has no price."""
    basis: str
    """Where the figures come from, for people: "roofline", "3 runs of this model on this GPU", …"""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    phases: tuple[PhaseForecast, ...]
    prompt_tokens: Range
    output_tokens: Range
    requests: Range

    @property
    def total_s(self) -> Range:
        total = Range(0, 0, 0)
        for phase in self.phases:
            total += phase.seconds
        return total

    @property
    def total_usd(self) -> Range | None:
        total = Range(0, 0, 0)
        for phase in self.phases:
            if phase.usd is None:
                return None
            total += phase.usd
        return total

    def document(self) -> dict[str, Any]:
        """As in plan.json."""
        return {
            "phases": [asdict(phase) for phase in self.phases],
            "total_seconds": asdict(self.total_s),
            "total_usd": asdict(self.total_usd) if self.total_usd else None,
            "prompt_tokens": asdict(self.prompt_tokens),
            "output_tokens": asdict(self.output_tokens),
            "requests": asdict(self.requests),
        }

"""How long a provisioner's part of a run takes, where no run has shown it yet."""

from __future__ import annotations

from dataclasses import dataclass, field

from recipes.ranges import Range


@dataclass(frozen=True, kw_only=True)
class PhaseTimes:
    """Of one provisioner. The defaults, for one that says nothing, are assumed: somebody else's machine, over SSH."""

    provision_s: Range = field(default=Range(10.0, 60.0, 300.0))
    """Until the machine can be used."""
    collect_s: Range = field(default=Range(0.3, 2.0, 20.0))
    release_s: Range = field(default=Range(1.0, 5.0, 40.0))
    """With its proof."""
    round_trip_s: float = 0.1
    """Between the end of an answer and the engine's work on the client's next request."""
    download_bytes_s: tuple[float, float, float] = (60e6, 300e6, 1000e6)
    """Slow, likely and fast. People report 1 to 3 MB/s onto network volumes at their worst and several hundred MB/s
    into a data centre; the likely figure is assumed."""


THIS_MACHINE = PhaseTimes(
    provision_s=Range(0.005, 0.05, 0.3),
    collect_s=Range(0.002, 0.03, 0.5),
    release_s=Range(0.03, 0.2, 1.5),
    round_trip_s=0.003,
    download_bytes_s=(5e6, 40e6, 120e6),
)
"""Of a machine that needs no reaching: measured on two cores. Downloads as people have them at home; assumed."""


def phase_times_of(provisioner: object) -> PhaseTimes:
    """What the provisioner says in its attribute `phase_times`; one that has none gets the defaults."""
    said = getattr(provisioner, "phase_times", None)
    return said if isinstance(said, PhaseTimes) else PhaseTimes()

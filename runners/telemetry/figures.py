"""What telemetry comes to: the figures of a run's result."""

from __future__ import annotations

from runners.telemetry.energy import Energy as Energy
from runners.telemetry.energy import energy as energy

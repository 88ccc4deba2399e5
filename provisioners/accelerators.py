"""What is known of accelerators: memory as the driver reports it, bandwidth, peak speed, and what providers call them.

The facts stand in accelerators.csv, one row each with its sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One kind of accelerator."""

    name: str
    """As a recipe writes it: A100-80GB, RTX4090, L40S."""
    label_gb: int
    """The number in the product's name or on its box."""
    usable_gib: float
    """All of its memory, as the driver reports it."""
    bandwidth_gb_s: float
    """Of its memory: 10⁹ bytes per second."""
    tflops: Mapping[str, float] = field(default_factory=dict)
    """Dense peak by data type: float32, float16, bfloat16, float8, int8, float4; what it cannot compute is absent."""
    compute_capability: tuple[int, int] | None = None
    """CUDA's; None for what is not NVIDIA's."""
    vendor: str = "nvidia"
    family: str = ""
    consumer: bool = False
    """A card without NVLink and peer-to-peer, for gamers' machines."""
    nvlink_gb_s: float | None = None
    """Both directions together, of one accelerator; None without."""
    pcie_gb_s: float | None = None
    """One direction."""
    aliases: tuple[str, ...] = ()
    """What providers and drivers call it."""
    sources: tuple[str, ...] = ()
    assumed: bool = False
    """Made up from an offer's label, because the table does not have it."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run would have at its hands, as far as it is known."""

    accelerator: Accelerator | None = None
    """None: it computes on the CPU."""
    count: int = 0
    """Accelerators of one host."""
    hosts: int = 1
    cpus: int | None = None
    ram_gib: float | None = None
    disk_gib: float | None = None
    """Of the container or work directory."""
    cuda: str | None = None
    """The newest CUDA that its driver knows, as major.minor."""

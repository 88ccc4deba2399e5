"""What is known of accelerators: memory as the driver reports it, bandwidth, peak speed, and what providers call them.

The facts stand in accelerators.csv, one row each with its sources.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from provisioners.kinds import means


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One kind of accelerator."""

    name: str
    """As a recipe writes it: A100-80GB, RTX4090, L40S."""
    label_gb: int
    """The number in the product's name or on its box."""
    usable_gib: float
    """All of its memory, as the driver gives it to programs today."""
    usable_range_gib: tuple[float, float] = (0.0, 0.0)
    """What has been seen: the least, with error correction or the newest drivers, and the most, before R570."""
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


_TABLE = Path(__file__).with_suffix(".csv")
_TFLOPS = ("float32", "float16", "bfloat16", "float8", "int8", "float4")
_RESERVED = 0.03
"""Share of a label that drivers, error correction and units take, where nobody has looked: the table's median."""


@cache
def all_known() -> tuple[Accelerator, ...]:
    """The table, in its order: by generation."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(map(_from_row, csv.DictReader(file)))


def find(name: str, *, memory_gb: float | None = None) -> Accelerator | None:
    """The accelerator that a provider, a driver or a recipe calls so; of several, the first with this memory.

    A name as it stands in the table or among its aliases comes first; else all its words must belong to one, in
    which case `80GB` is the memory on the label.
    """
    plain = " ".join(name.split()).casefold()
    if not plain:
        return None
    named = [one for one in all_known() if plain in (alias.casefold() for alias in (one.name, *one.aliases))]
    found = named or [one for one in all_known() if _is_a(one, name)]
    sized = [one for one in found if memory_gb is None or abs(one.label_gb - memory_gb) <= 0.1 * one.label_gb]
    return next(iter(sized), None)


def from_label(name: str, memory_gb: float | None) -> Accelerator:
    """What can be assumed of an accelerator that the table does not have: its memory, and no speed."""
    label = memory_gb or 0.0
    usable_gib = label * (1 - _RESERVED)
    return Accelerator(
        name=name,
        label_gb=round(label),
        usable_gib=usable_gib,
        usable_range_gib=(usable_gib, label),
        bandwidth_gb_s=0.0,
        assumed=True,
    )


def _from_row(row: dict[str, str]) -> Accelerator:
    capability = re.fullmatch(r"(\d+)\.(\d+)", row["compute_capability"])
    return Accelerator(
        name=row["name"],
        label_gb=int(row["label_gb"]),
        usable_gib=float(row["usable_gib"]),
        usable_range_gib=(float(row["usable_lo_gib"]), float(row["usable_hi_gib"])),
        bandwidth_gb_s=float(row["bandwidth_gb_s"]),
        tflops={kind: float(row[kind]) for kind in _TFLOPS if row[kind]},
        compute_capability=(int(capability[1]), int(capability[2])) if capability else None,
        vendor=row["vendor"],
        family=row["family"],
        consumer=bool(row["consumer"]),
        nvlink_gb_s=float(row["nvlink_gb_s"]) if row["nvlink_gb_s"] else None,
        pcie_gb_s=float(row["pcie_gb_s"]) if row["pcie_gb_s"] else None,
        aliases=tuple(_listed(row["runpod"]) + _listed(row["driver"]) + _listed(row["others"])),
        sources=tuple(_listed(row["specs"]) + _listed(row["memory_seen_in"])),
    )


def _listed(cell: str) -> list[str]:
    return [part.strip() for part in cell.split(";") if part.strip()]


def _is_a(one: Accelerator, wanted: str) -> bool:
    return any(means(wanted, [name], lambda size: size == one.label_gb) for name in (one.name, *one.aliases))

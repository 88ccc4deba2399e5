"""How long the phases around the work take where no run has shown it: arithmetic on sizes."""

from __future__ import annotations

from provisioners.phase_times import PhaseTimes
from recipes.ranges import Range

NOTHING = Range(0.0, 0.0, 0.0)

# What installing does besides downloading: unpacking and compiling some 100,000 files to bytecode;
# assumed, from a network volume to a local disk.
_UNPACK_BYTES_S = (30e6, 80e6, 250e6)
# Weights from a network volume with nothing cached, from a local disk, from the page cache; assumed.
_READ_BYTES_S = (0.3e9, 1.2e9, 4e9)
_READY_S = Range(0.05, 0.2, 1.0)
"""To find that nothing is to be done."""

# Several workers find each other and check whether they reach each other's memory: 60 s were measured with eight.
_WORKERS_S = Range(3.0, 15.0, 70.0)


def prepare_s(times: PhaseTimes, *, install_bytes: int, download_bytes: int) -> Range:
    """The longer of installing and downloading, which go on at the same time."""
    speeds = times.download_bytes_s
    install = _moved(install_bytes, speeds) + _moved(install_bytes, _UNPACK_BYTES_S) if install_bytes else NOTHING
    return longer(longer(install, _moved(download_bytes, speeds)), NOTHING) + _READY_S


def launch_s(start_s: Range, *, gpus: int, weight_bytes: float) -> Range:
    """Reading the weights, and the engine's own start."""
    return start_s + _moved(weight_bytes, _READ_BYTES_S) + (_WORKERS_S if gpus > 1 else NOTHING)


def longer(one: Range, other: Range) -> Range:
    return Range(max(one.low, other.low), max(one.likely, other.likely), max(one.high, other.high))


def _moved(size: float, bytes_s: tuple[float, float, float]) -> Range:
    slow, likely, fast = bytes_s
    return Range(size / fast, size / likely, size / slow)

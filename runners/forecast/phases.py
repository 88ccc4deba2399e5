"""How long the phases around the work take where no run has shown it: one table, and arithmetic on sizes."""

from __future__ import annotations

from runners.forecast.values import Range

NOTHING = Range(0.0, 0.0, 0.0)

# Seconds, per provider. RunPod: a pod was reachable 90 s after it was called RUNNING, images of some 10 GB are pulled
# first unless the host has them, and a deletion is proven by two lists some seconds apart.
PROVISION_S = {
    "local": Range(0.005, 0.05, 0.3),
    "ssh": Range(1.0, 4.0, 20.0),
    "runpod": Range(30.0, 90.0, 300.0),
}
COLLECT_S = {"local": Range(0.002, 0.03, 0.5), "ssh": Range(0.2, 1.0, 10.0), "runpod": Range(0.3, 2.0, 20.0)}
RELEASE_S = {"local": Range(0.03, 0.2, 1.5), "ssh": Range(0.5, 2.0, 15.0), "runpod": Range(3.0, 10.0, 45.0)}
_ELSEWHERE_PROVISION_S = Range(10.0, 60.0, 300.0)
_ELSEWHERE_COLLECT_S, _ELSEWHERE_RELEASE_S = Range(0.3, 2.0, 20.0), Range(1.0, 5.0, 40.0)

# Bytes per second of downloads, from slow to fast. People report 1 to 3 MB/s onto network volumes at their worst and
# several hundred MB/s into a data centre.
_CENTRE_BYTES_S, _HOME_BYTES_S = (60e6, 300e6, 1000e6), (5e6, 40e6, 120e6)
# What installing does besides downloading: unpacking and compiling some 100,000 files to bytecode.
_UNPACK_BYTES_S = (30e6, 80e6, 250e6)
# From a network volume with nothing cached, from a local disk, from the page cache.
_READ_BYTES_S = (0.3e9, 1.2e9, 4e9)
_READY_S = Range(0.05, 0.2, 1.0)
"""To find that nothing is to be done."""

# Seconds from start to the first token, besides reading weights: imports, the driver's context, profiling, CUDA graphs
# and compiling. In published logs vLLM's "init engine" took 20 and 28 s before 0.8; since then 34 (compiled before),
# 55, 61, 71 and 91 s, of which compiling is 30 to 46 s and graphs 4 to 37 s. About 30 s lie outside of it. On the CPU,
# release 0.32 took 25 to 45 s here.
START_S = {
    ("vllm", "gpu", "compiled"): Range(45.0, 90.0, 200.0),
    ("vllm", "gpu", "graphs"): Range(25.0, 45.0, 120.0),
    ("vllm", "gpu", "eager"): Range(18.0, 35.0, 90.0),
    ("vllm", "cpu", "compiled"): Range(25.0, 60.0, 180.0),
    ("vllm", "cpu", "eager"): Range(15.0, 30.0, 90.0),
    ("transformers", "gpu", "eager"): Range(10.0, 25.0, 90.0),
    ("transformers", "cpu", "eager"): Range(5.0, 15.0, 60.0),
    ("llamacpp", "gpu", "eager"): Range(0.5, 3.0, 15.0),
    ("llamacpp", "cpu", "eager"): Range(0.1, 0.25, 2.0),
}
# Several workers find each other and check whether they reach each other's memory: 60 s were measured with eight.
_WORKERS_S = Range(3.0, 15.0, 70.0)
_COMPILES_FROM = (0, 8)
_START_ELSEWHERE_S = Range(0.05, 0.3, 5.0)


def round_trip_s(provider: str) -> float:
    """Between the end of an answer and the engine's work on the client's next request."""
    return 0.003 if provider == "local" else 0.1


def provision_s(provider: str) -> Range:
    return PROVISION_S.get(provider, _ELSEWHERE_PROVISION_S)


def collect_s(provider: str) -> Range:
    return COLLECT_S.get(provider, _ELSEWHERE_COLLECT_S)


def release_s(provider: str) -> Range:
    return RELEASE_S.get(provider, _ELSEWHERE_RELEASE_S)


def prepare_s(provider: str, *, install_bytes: int, download_bytes: int) -> Range:
    """The longer of installing and downloading, which go on at the same time."""
    speeds = _HOME_BYTES_S if provider == "local" else _CENTRE_BYTES_S
    install = _moved(install_bytes, speeds) + _moved(install_bytes, _UNPACK_BYTES_S) if install_bytes else NOTHING
    return longer(longer(install, _moved(download_bytes, speeds)), NOTHING) + _READY_S


def launch_s(engine: str, release: tuple[int, int], *, gpus: int, eager: bool, weight_bytes: float) -> Range:
    """Reading the weights, and the engine's own start."""
    where = "gpu" if gpus else "cpu"
    how = "compiled" if release >= _COMPILES_FROM or not gpus else "graphs"
    start = START_S.get((engine, where, "eager" if eager or engine != "vllm" else how), _START_ELSEWHERE_S)
    return start + _moved(weight_bytes, _READ_BYTES_S) + (_WORKERS_S if gpus > 1 else NOTHING)


def longer(one: Range, other: Range) -> Range:
    return Range(max(one.low, other.low), max(one.likely, other.likely), max(one.high, other.high))


def _moved(size: float, bytes_s: tuple[float, float, float]) -> Range:
    slow, likely, fast = bytes_s
    return Range(size / fast, size / likely, size / slow)

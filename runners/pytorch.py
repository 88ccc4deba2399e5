"""What engines on PyTorch share: its builds, the sizes of its types, and what it says without memory."""

from __future__ import annotations

from collections.abc import Mapping

from runners.engine import Step

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where its maker publishes the builds without CUDA."""
ITEM_BYTES: Mapping[str, int] = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
STORED_BYTES: Mapping[str, int] = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Types of a file that are converted to the one that is asked for, when a model is loaded."""
STORED_NAMES: Mapping[str, str] = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate"
CUDA_CONTEXT_GIB = 0.5
"""Driver, kernels and cuBLAS workspaces of one process: transformers' own continuous batching counts with ~0.5 GiB."""
_BUILT_FOR = ((11, "13.0"), (8, "12.8"), (6, "12.4"))
"""CUDA of the wheels on PyPI, from which minor release of 2.x on."""
_CUDA_13_CAPABILITY = (7, 5)
"""CUDA 13 dropped Maxwell, Pascal and Volta."""


def cuda_of(release: str) -> str:
    """The CUDA, as major.minor, that PyTorch's wheel of this release on PyPI is built for."""
    minor = int(release.split(".")[1])
    return next((cuda for first, cuda in _BUILT_FOR if minor >= first), "12.1")


def oldest_capability(release: str) -> tuple[int, int]:
    """The oldest compute capability that it has kernels for."""
    return _CUDA_13_CAPABILITY if cuda_of(release).startswith("13.") else (5, 0)


def cpu_build(python: str, release: str) -> Step:
    """Installs the build without CUDA, first and alone: nothing else is looked up in its maker's index."""
    pip = (python, "-m", "pip", "install", "--disable-pip-version-check")
    return Step((*pip, "--no-deps", "--retries", "1", "--extra-index-url", CPU_INDEX, f"torch=={release}"))

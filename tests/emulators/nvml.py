"""GPUs that are not there: a double of NVIDIA's management library, compiled for the test that wants it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("nvml.c")


@dataclass(frozen=True)
class Gpus:
    """Put `environment` into that of a process, and it has them."""

    folder: Path

    @property
    def _faults(self) -> Path:
        return self.folder / "faults"

    def environment(self, count: int) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.folder), "NVML_GPUS": str(count), "NVML_FAULTS": str(self._faults)}

    def fault(self, *what: str) -> None:
        """From now on; see nvml.c for what there is."""
        part = self._faults.with_suffix(".part")
        part.write_text("".join(f"{line}\n" for line in what))
        part.replace(self._faults)


def gpus(folder: Path) -> Gpus:
    """Skips the test where nothing compiles C."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("NOT TESTED: the GPUs of the sampler, for there is no C compiler to make the double with")
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE)], check=True)
    return Gpus(folder)

"""Which build of xllamacpp a machine gets, without a GPU and without a network: its programs are played."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runners.onhost import cuda_xllamacpp

SAYS = "| NVIDIA-SMI 570.86.15   Driver Version: 570.86.15   CUDA Version: {}     |"
PIP = "import os, sys; open(os.environ['ASKED'], 'w').write(' '.join(sys.argv[1:])); sys.exit(int(os.environ['PIP']))"
DEVICES = (
    "def get_device_info(): return [{'type': 'CPU'}, *({'type': 'GGML_BACKEND_DEVICE_TYPE_GPU'} for _ in [0] * %d)]"
)


@dataclass(frozen=True)
class Played:
    """A machine whose nvidia-smi, pip and xllamacpp are played."""

    folder: Path

    def run(self, *, cuda: str | None, gpus: int = 1, pip: int = 0, capability: str = "8.6") -> tuple[int, str, str]:
        """Exit status, what pip was asked for, what was printed."""
        programs = self.folder / "bin"
        programs.mkdir()
        if cuda is not None:
            (programs / "nvidia-smi").write_text(
                f"#!/bin/sh\n[ $# -gt 0 ] && echo '{capability}' || echo '{SAYS.format(cuda)}'\n"
            )
            (programs / "nvidia-smi").chmod(0o755)
        modules = self.folder / "modules"
        (modules / "pip").mkdir(parents=True)
        (modules / "pip" / "__init__.py").write_text("")
        (modules / "pip" / "__main__.py").write_text(PIP)
        (modules / "xllamacpp.py").write_text(DEVICES % gpus)
        asked = self.folder / "asked"
        env = {**os.environ, "PATH": str(programs), "PYTHONPATH": str(modules)}
        ended = subprocess.run(
            [sys.executable, cuda_xllamacpp.__file__, "1.2.3"],
            env={**env, "ASKED": str(asked), "PIP": str(pip)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return ended.returncode, asked.read_text() if asked.exists() else "", ended.stdout


@pytest.fixture
def played(tmp_path: Path) -> Played:
    return Played(tmp_path)


def test_without_a_driver_the_build_for_the_cpu_stays(played: Played) -> None:
    status, asked, said = played.run(cuda=None, gpus=0)
    assert (status, asked) == (0, "")
    assert "stays" in said


@pytest.mark.parametrize(
    ("cuda", "capability"), [("12.4", "8.6"), ("12.4", "8.9"), ("12.8", "8.0"), ("13.0", "9.0"), ("13.2", "7.0")]
)
def test_a_gpu_gets_the_cuda_build(played: Played, cuda: str, capability: str) -> None:
    status, asked, _ = played.run(cuda=cuda, capability=capability)
    assert status == 0
    assert asked.endswith("--index-url https://xorbitsai.github.io/xllamacpp/whl/cu128 xllamacpp==1.2.3")


@pytest.mark.parametrize(
    ("played_as", "why"),
    [
        ({"cuda": "11.8"}, "does not run with a driver of CUDA 11.8 on compute capability 8.6"),
        ({"cuda": "12.4", "capability": "8.0"}, "does not run with a driver of CUDA 12.4 on compute capability 8.0"),
        ({"cuda": "12.8", "gpus": 0}, "sees no GPU"),
        ({"cuda": "12.8", "pip": 1}, "could not be installed"),
    ],
)
def test_a_gpu_that_would_not_be_used_is_an_error(played: Played, played_as: dict[str, Any], why: str) -> None:
    status, _, said = played.run(**played_as)
    assert status == 1
    assert why in said

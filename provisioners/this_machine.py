"""What the machine has that recipe itself runs on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psutil

from provisioners.hardware import Gpu, Hardware, cuda_of


def this_machine(home: Path) -> Hardware:
    """All but the accelerators, which take a second to ask for; the disk is the one that `home` lies on."""
    return Hardware(
        cpus=psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        disk_free_bytes=shutil.disk_usage(home if home.exists() else Path.home()).free,
    )


def accelerators_here() -> tuple[list[Gpu], str | None]:
    """NVIDIA's GPUs as their driver lists them, and the newest CUDA that it knows."""
    command = [
        "nvidia-smi",
        "--query-gpu=name,memory.total,driver_version,memory.free",
        "--format=csv,noheader,nounits",
    ]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return [], None
    rows = [[cell.strip() for cell in f"{row},".split(",")] for row in listed.splitlines() if "," in row]
    gpus = [
        Gpu(row[0], _number(row[1]) / 1024, _number(row[3]) / 1024 or None if len(row) > 4 else None) for row in rows
    ]
    return gpus, cuda_of(rows[0][2]) if rows else None


def _number(text: str) -> float:
    """0 where the driver does not say it, as for an accelerator that shares the machine's memory."""
    return float(text) if text.replace(".", "", 1).isdigit() else 0.0

"""What the name of a container image tells."""

from __future__ import annotations

import re

DEFAULT_IMAGE = "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404"
"""RunPod's own image with CUDA 12.8, Python 3.12 and an sshd, where the recipe names none."""


def min_cuda(image: str) -> str | None:
    """The CUDA, as major.minor, that a driver must know to start the image, if its tag says it: cuda11.8.0, cu1281."""
    tag = image.rpartition("/")[2]
    if spelled := re.search(r"cuda[-_:]?(\d{2})\.(\d{1,2})", tag, re.IGNORECASE):
        return f"{spelled[1]}.{spelled[2]}"
    if short := re.search(r"(?<![a-z0-9])cu(\d{2})(\d)\d?(?!\d)", tag, re.IGNORECASE):
        return f"{short[1]}.{short[2]}"
    return None

"""Where a test may end the engine: see the package's docstring."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def moment(name: str, subject: str) -> None:
    """Dies here if the test has asked for it, of this resource or of any."""
    if file := os.environ.get("ENGINE_DOUBLE_DIE_FILE"):
        _obey(_text(Path(file)), name, subject, Path(file))
    _obey(os.environ.get("ENGINE_DOUBLE_DIE", ""), name, subject, None)


def _obey(order: str, name: str, subject: str, file: Path | None) -> None:
    wanted, _, whom = order.strip().partition(":")
    if wanted != name or whom not in ("", subject):
        return
    if file is not None:
        file.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""

"""Where a test may end the engine: see the package's docstring."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path


def _end_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def moment(name: str, subject: str, end: Callable[[], None] = _end_self) -> None:
    """The engine dies here if the test has asked for it, of this resource or of any."""
    if file := os.environ.get("ENGINE_DOUBLE_DIE_FILE"):
        _obey(_text(Path(file)), name, subject, Path(file), end)
    _obey(os.environ.get("ENGINE_DOUBLE_DIE", ""), name, subject, None, end)


def _obey(order: str, name: str, subject: str, file: Path | None, end: Callable[[], None]) -> None:
    wanted, _, whom = order.strip().partition(":")
    if wanted != name or whom not in ("", subject):
        return
    if file is not None:
        file.unlink()
    end()


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""

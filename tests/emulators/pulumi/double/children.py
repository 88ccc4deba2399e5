"""Processes that the engine starts: in groups of their own, as the real one's are, and they end with it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
_STARTER = ThreadPoolExecutor(1)
"""Lives as long as the engine: PR_SET_PDEATHSIG counts the thread that starts a process as its parent."""


def start(arguments: Sequence[str], folder: Path, env: Mapping[str, str], **streams: Any) -> subprocess.Popen[bytes]:
    """The user's Python with these arguments."""
    return _STARTER.submit(
        subprocess.Popen,
        [os.environ.get("PULUMI_PYTHON_CMD") or "python3", "-u", *arguments],
        cwd=folder,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=None if os.environ.get("ENGINE_DOUBLE_LEAVES_PROVIDER") else _ends_with_its_engine,
        **streams,
    ).result()


def end(process: subprocess.Popen[bytes]) -> None:
    """Now, with whatever it started in its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ends_with_its_engine() -> None:
    """In the child: be killed when the engine ends, however it ends."""
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

"""Processes that the engine starts: in groups of their own, as the real one's are."""

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

PROVIDER = Path(__file__).parent / "pulumi-resource-pulumi-python"
OF_AN_ENGINE = "PULUMI_LOG_OTLP_ENDPOINT"
"""Whoever is started by an engine has it, for what he logs; an engine that has it as well ends in a panic."""
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
_STARTER = ThreadPoolExecutor(1)
"""Lives as long as the engine: PR_SET_PDEATHSIG counts the thread that starts a process as its parent."""


def start_program(
    arguments: Sequence[str], folder: Path, env: Mapping[str, str], **streams: Any
) -> subprocess.Popen[bytes]:
    """The user's Python with these arguments; it ends with the engine."""
    command = [os.environ.get("PULUMI_PYTHON_CMD") or "python3", "-u", *arguments]
    streams = {"stdin": subprocess.DEVNULL, "preexec_fn": _ends_with_its_engine, **streams}
    return _STARTER.submit(_start, command, folder, env, streams).result()


def start_provider(address: str, folder: Path, env: Mapping[str, str], **streams: Any) -> subprocess.Popen[bytes]:
    """Through a shell, with a pipe as its stdin. Nothing ends it with the engine, as nothing ends the real one's."""
    return _start(["sh", str(PROVIDER), address], folder, env, {"stdin": subprocess.PIPE, **streams})


def _start(
    command: Sequence[str], folder: Path, env: Mapping[str, str], streams: Mapping[str, Any]
) -> subprocess.Popen[bytes]:
    below = {**os.environ, OF_AN_ENGINE: "localhost:1", **env}
    return subprocess.Popen(command, cwd=folder, env=below, process_group=0, **streams)


def end(process: subprocess.Popen[bytes]) -> None:
    """Now, with whatever it started in its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ends_with_its_engine() -> None:
    """In the child: be killed when the engine ends, however it ends."""
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

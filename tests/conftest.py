"""What all tests share: a home of their own, the command as a user runs it, and the order from quick to slow."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Machines are slow at times, and a test that fails must fail again.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

RECIPE = Path(sys.executable).parent / "recipe"


_LAST_MOMENTS_S = 8.0
RENTING = {"runpod", "world"}
"""Fixtures of the tests that wait longest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick ones first, real engines after them, vLLM last.

    Of the real ones those first that rent a machine: none of them shall begin when the others have ended.
    """
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if item.get_closest_marker("vllm"):
        return 3
    if item.get_closest_marker("real"):
        return 1 if RENTING & set(getattr(item, "fixturenames", ())) else 2
    return 0


@dataclass
class Command:
    """Runs `recipe` in a process of its own, with a RECIPE_HOME of its own."""

    home: Path
    cwd: Path

    def environment(self, **extra: str) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if k not in ("HF_TOKEN", "RUNPOD_API_KEY", "NO_COLOR")}
        return {**inherited, "RECIPE_HOME": str(self.home), **extra}

    def __call__(
        self, *arguments: str, env: dict[str, str] | None = None, seconds: float = 240
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(RECIPE), *arguments],
            cwd=self.cwd,
            env=self.environment(**(env or {})),
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def start(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(RECIPE), *arguments],
            cwd=self.cwd,
            env=self.environment(**(env or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run_folders(self) -> list[Path]:
        return sorted((self.home / "runs").glob("*"))

    def run_folder(self) -> Path:
        (folder,) = self.run_folders()
        return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Iterator[Command]:
    """The command; when the test ends, nothing of its runs may be alive."""
    home = tmp_path / "home"
    yield Command(home, tmp_path)
    # What a killed client has left ends by itself, and what was killed may still be about to end.
    end = time.monotonic() + _LAST_MOMENTS_S
    while (left := processes_of(home)) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []


def processes_of(home: Path) -> list[str]:
    """Command lines of the processes that were started under this home."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RECIPE_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file to which another process may be writing: those that have their end."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def eventually(condition: Callable[[], Any], *, seconds: float = 150, what: str = "the condition") -> Any:
    """The condition's first true value. Fails if none comes in time, which is generous: machines are slow at times."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"{what} did not come true in {seconds} s")
        time.sleep(0.02)
    return value


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    return eventually


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A text that keeps the embedded engine busy for a minute or so."""
    return long_text(tmp_path)


def long_text(folder: Path) -> Path:
    lines = "".join(
        f"Chapter {n} of the long report begins with a plain sentence. It goes on for a while.\n\n" for n in range(9000)
    )
    path = folder / "book.txt"
    path.write_text(lines)
    return path


@dataclass(frozen=True)
class SilentServer:
    """Whoever asks it waits."""

    _socket: socket.socket

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def is_asked(self) -> bool:
        """Whether somebody has connected. The system's list of connections names others' that had this port before."""
        return bool(select.select([self._socket], [], [], 0)[0])


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    """A server on loopback that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield SilentServer(server)


def send(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    """Send a signal and wait for the end: exit status, standard output, standard error."""
    process.send_signal(number)
    out, err = process.communicate(timeout=150)
    return process.returncode, out, err

"""Calls the agent as a client does, and looks at what it has started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from provisioners import bootstrap
from tests.conftest import eventually

# Of this process alone: what ends a lease finds its processes by its name, and tests may run beside each other.
LEASE = f"recipe-ana-demo-20261121-051200-{os.getpid() % 0xFFFF:04x}-60m"
SECRET = "hf_A-secret-that-nobody-sees"
FAR = 4_000_000_000
"""A deadline that no test sees."""


def oldest_python() -> str | None:
    """A Python of this machine that is as old as scripts may meet."""
    candidates = [f"python3.{minor}" for minor in (6, 7, 8)]
    with suppress(OSError):
        listed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True).stdout.split()
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True).stdout.strip()
        old = sorted(name for name in listed if name.startswith(("3.6.", "3.7.", "3.8.")))
        candidates = [*(f"{root}/versions/{name}/bin/python" for name in old), *candidates]
    for candidate in candidates:
        with suppress(OSError, subprocess.SubprocessError):
            argv = [candidate, "-c", "import sys; print(sys.executable)"]
            return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    return None


@dataclass
class Agent:
    """Calls the agent in a state directory of its own."""

    state: Path
    python: str = sys.executable

    def install(self) -> None:
        self.state.mkdir(parents=True, mode=0o700, exist_ok=True)
        for name, text in bootstrap.scripts().items():
            (self.state / name).write_text(text)

    def argv(self, *arguments: str) -> list[str]:
        if (self.state / "agent").exists():
            return ["sh", str(self.state / "agent"), *arguments]
        return [self.python, str(self.state / "agent.py"), str(self.state), *arguments]

    def run(
        self, *arguments: str, request: Any = None, env: dict[str, str] | None = None, **more: Any
    ) -> subprocess.CompletedProcess[bytes]:
        given = b"" if request is None else json.dumps(request).encode() + b"\n"
        environment = {**os.environ, **(env or {})}
        return subprocess.run(
            self.argv(*arguments), input=given, capture_output=True, timeout=60, env=environment, **more
        )

    def __call__(self, *arguments: str, **options: Any) -> dict[str, Any]:
        ran = self.run(*arguments, **options)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        answer: dict[str, Any] = json.loads(ran.stdout)
        return answer

    def start(self, name: str, script: str, *, env: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
        """A shell script as a job."""
        return self("start", name, request={"argv": ["sh", "-c", script], "env": env or {}, **more})

    def follow(self, name: str, offset: int = 0) -> tuple[bytes, dict[str, Any]]:
        ran = self.run("follow", name, str(offset))
        return ran.stdout, json.loads(ran.stderr.splitlines()[-1])

    def recorded(self, name: str, part: str) -> Any:
        return json.loads((self.state / "jobs" / name / part).read_text())

    def beaten(self) -> str:
        return (self.state / "beat").read_text()

    def beats_since(self, before: str) -> bool:
        return self.beaten() not in ("", before)

    def boot(
        self, *jobs: tuple[str, str], volume: str | None = None, env: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """What a pod's start command does; this process stands for it."""
        plan = [{"name": name, "argv": ["sh", "-c", script]} for name, script in jobs]
        content = {"lease": self.state.name, "kind": "pod", "volume": volume, "jobs": plan}
        (self.state / "boot.json").write_text(json.dumps(content))
        return self("boot", str(os.getpid()), env=env)


def processes_of(state: Path) -> list[psutil.Process]:
    """What runs in a state directory or was started for its lease."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            ours = str(state) in process.cmdline() or process.environ().get("RECIPE_LEASE") == state.name
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def lives(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def number_in(path: Path) -> int:
    """A process number that a job writes into a file."""
    return int(eventually(lambda: path.exists() and path.read_text().strip(), what=str(path)))


@dataclass(frozen=True)
class Cut:
    """A job whose supervisor was killed; the command runs on."""

    command: int

"""A machine with a dead-man switch: the real script in a real shell."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.emulators.termination import Termination

# Of this run of the tests alone: others beside it may show theirs.
KEY = f"rpa_A-key-that-nobody-sees-{secrets.token_hex(8)}"
POD = "pod7xyz"
LEASE = f"recipe-ana-demo-20261121-0512-{os.getpid() % 0xFFFF:04x}-60m"
TICK_S = 0.02
FAR = 4_000_000_000
SHELLS = [["dash"], ["bash", "--posix"], ["busybox", "sh"]]
CALLS = "sh date sleep cat tr grep rm rmdir mv tail mktemp setsid"


@dataclass
class Machine:
    """A folder as a lease's state directory, and the switches that were started in it."""

    state: Path
    server: Termination
    shell: list[str]
    tools: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def arm(
        self,
        *,
        kind: str = "pod",
        deadline: float = FAR,
        idle_s: int = 1000,
        start_command: int | None = None,
        **more: Any,
    ) -> subprocess.Popen[bytes]:
        env = {
            "PATH": str(self.tools),
            "RUNPOD_POD_ID": POD,
            "RUNPOD_API_KEY": KEY,
            "RECIPE_API": self.server.api,
            "RECIPE_GRAPHQL": self.server.graphql,
            "RECIPE_TICK_S": str(TICK_S),
            **more.pop("env", {}),
        }
        argv = [*map(str, self.shell), str(self.state / "switch.sh"), str(self.state), kind, LEASE]
        argv += [str(int(deadline)), str(idle_s), *([str(start_command)] if start_command else [])]
        log = (self.state.parent / "switch.out").open("wb")
        with log:
            process = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **more
            )
        self.started.append(process)
        return process

    def beat(self, text: str) -> None:
        (self.state / "beat").write_text(text + "\n")

    @contextmanager
    def waiting_for_signs(self) -> Iterator[Callable[[], None]]:
        """Within this each look of the switch waits for a sign of life; yields what gives one. After it there are none.

        So nothing depends on how long a test takes to give the next.
        """
        path = self.state / "beat"
        path.unlink()
        os.mkfifo(path)
        signs = count()

        def writing() -> int | None:
            with suppress(OSError):  # nobody looks now
                return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            return None

        def give() -> None:
            pipe = eventually(writing, what="a look at the sign of life")
            with suppress(BrokenPipeError), os.fdopen(pipe, "w") as file:
                file.write(f"sign {next(signs)}\n")

        yield give
        pipe = eventually(writing, what="a look at the sign of life")
        path.unlink()
        self.beat("last")
        os.close(pipe)

    def said(self) -> dict[str, Any]:
        """What the switch says of itself, as soon as it says anything."""
        path = self.state / "switch.json"
        found: dict[str, Any] = json.loads(eventually(lambda: path.exists() and path.read_text(), what="switch.json"))
        return found

    def proof(self, wanted: str) -> dict[str, Any]:
        found: dict[str, Any] = eventually(
            lambda: (said := self.said())["proof"] == wanted and said, what=f"the proof {wanted}"
        )
        return found

    def end(self) -> None:
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def tool_folder(folder: Path, *names: str) -> Path:
    """A folder for PATH with these programs and what every image has."""
    folder.mkdir()
    for name in {*CALLS.split(), *names}:
        found = sys.executable if name == "python3" else shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed here")
        (folder / name).symlink_to(found)
    return folder

"""Pulumi's Automation API, with an engine whose end is ours to choose. Importing this imports Pulumi: late, please."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import psutil
from semver import VersionInfo

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # read when grpc is imported, which it is by the next line
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a connection that ends with the engine is no news

from pulumi.automation import CommandResult, LocalWorkspace, PulumiCommand, Stack
from pulumi.automation.errors import create_command_error

from stacks.engine import Engine

warnings.filterwarnings("ignore", message="Error in event stream", module="pulumi")  # of an engine that ended early

Output = Callable[[str], Any]


class EngineStopped(Exception):
    """No further command of the engine is begun: somebody wants it to end."""


class Command(PulumiCommand):
    """The engine in a session of its own: a Ctrl-C at the terminal is recipe's, which passes it on once."""

    def __init__(self, engine: Engine, env: Mapping[str, str], log: Callable[[str], None]) -> None:
        """`env` is the engine's whole environment; `log` is told each line that it says."""
        # Not the parent's: it would run the command once more, from this process's own PATH.
        self.command = str(engine.path)
        self.version = VersionInfo.parse(engine.version)
        self.env, self._log = dict(env), log
        self.last: CommandResult | None = None
        self._stopping = False
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Output | None = None,
        on_error: Output | None = None,
    ) -> CommandResult:
        """As the parent's. Raises EngineStopped once `interrupt` was called, unless a command is running already."""
        process = self._begin(args, cwd, additional_env)
        said: dict[str, list[str]] = {"out": [], "err": []}
        hidden = "--show-secrets" in args
        readers = [
            threading.Thread(target=self._read, args=(stream, heard, said[name], logs), daemon=True)
            for name, stream, heard, logs in (
                ("out", process.stdout, on_output, not hidden),
                ("err", process.stderr, on_error, True),
            )
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        code = process.wait()
        with self._lock:
            self._process = None
        self.last = CommandResult(stdout="\n".join(said["out"]), stderr="\n".join(said["err"]), code=code)
        if code:
            self._log(f"exit {code}")
            raise create_command_error(self.last)
        return self.last

    def _begin(self, args: list[str], cwd: str, additional_env: Mapping[str, str]) -> subprocess.Popen[str]:
        """The engine's process."""
        where = args.index("--") if "--" in args else len(args)
        argv = [*args[:where], *([] if "--non-interactive" in args[:where] else ["--non-interactive"]), *args[where:]]
        env = {**self.env, **additional_env, "PULUMI_AUTOMATION_API": "true"}
        # What belongs to the engine lies beside it: beside the command itself too, if this is a link to it.
        beside = dict.fromkeys(str(path.parent) for path in (Path(self.command), Path(self.command).resolve()))
        env["PATH"] = os.pathsep.join([*beside, env.get("PATH", os.defpath)])
        with self._lock:
            if self._stopping:
                raise EngineStopped
            self._log(f"pulumi {' '.join(argv)}")
            self._process = subprocess.Popen(
                [self.command, *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=env,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            return self._process

    def _read(self, stream: IO[str], heard: Output | None, said: list[str], logs: bool) -> None:
        for line in stream:
            stripped = line.rstrip()
            if logs:
                self._log(stripped)
            said.append(stripped)
            if heard is not None:
                heard(stripped)
        stream.close()

    def interrupt(self) -> None:
        """Ask the engine, and it alone, to finish its running step and to write its state; begin no other command."""
        with self._lock:
            self._stopping = True
            if self._process is not None:
                with suppress(ProcessLookupError):
                    self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End the engine and all that it has started, now."""
        with self._lock:
            self._stopping = True
            process = self._process
        if process is not None:
            for pid in session_of(process.pid):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def again(self) -> None:
        """Commands may be begun again."""
        with self._lock:
            self._stopping = False


def session_of(leader: int) -> list[int]:
    """The processes of a session, the leader last: resource providers have process groups of their own."""
    found = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader and pid != leader:
                found.append(pid)
    return [*found, leader]


def stack_of(
    command: Command, folder: Path, name: str, program: Callable[[], None] | None, *, create: bool
) -> tuple[Stack, bool]:
    """The stack, and whether it was made just now. Raises the SDK's StackNotFoundError unless `create`."""
    from pulumi.automation.errors import StackAlreadyExistsError, StackNotFoundError

    workspace = LocalWorkspace(work_dir=str(folder), program=program, pulumi_command=command)
    try:
        return Stack.select(name, workspace), False
    except StackNotFoundError:
        if not create:
            raise
    try:
        return Stack.create(name, workspace), True
    except StackAlreadyExistsError:  # by another one, meanwhile
        return Stack.select(name, workspace), False

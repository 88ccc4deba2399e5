"""A command that goes on in the background: a process of its own, without a terminal, that owns its runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from provisioners.site import recipe_home
from runners.cli.common import console, print_json
from runners.events import Event, RunStarted
from runners.run_folder import CLIENT_LOG
from runners.terminal.detached_view import detached_lines


class Detachment:
    """How a process in the background takes leave of the one that began it, and waits for its first run."""

    def __init__(self, waiting: int) -> None:
        self._waiting: int | None = waiting
        self._log: Path | None = None

    def leave_terminal(self, *, runs: int) -> None:
        """From now on what is printed goes to a file: everything that could be refused has passed."""
        folder = recipe_home() / "detached"
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"{os.getpid()}.log"
        sys.stdout.flush()
        sys.stderr.flush()
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        self._say({"log": str(self._log), "runs": runs})

    def heard(self, event: Event) -> None:
        """With the first run that has begun nobody waits any more. Each has the process's log among its files."""
        if not isinstance(event, RunStarted) or self._log is None:
            return
        with suppress(OSError):
            os.link(self._log, Path(event.folder) / CLIENT_LOG)
        if self._waiting is not None:
            self._say({"run_id": event.run_id, "folder": event.folder, "pid": os.getpid()})
            os.close(self._waiting)
            self._waiting = None

    def ended(self) -> None:
        """The log is with the runs; under its first name nobody looks for it."""
        if self._log is not None and self._log.stat().st_nlink > 1:
            self._log.unlink()

    def _say(self, what: dict[str, Any]) -> None:
        if self._waiting is not None:
            with suppress(OSError):  # whoever waited may have been killed; the runs go on
                os.write(self._waiting, json.dumps(what).encode() + b"\n")


def detached(work: Callable[[Detachment], int], *, as_json: bool) -> int:
    """Have the work done by a process of its own, in a session of its own; returns when its first run has begun.

    A work that ends before that ends here as well, with its exit code and with what it printed. An interruption until
    then is its own.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    # An interruption waits until it can be passed on: nobody else would end the child then.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.close(reading)
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        detachment = Detachment(writing)
        try:
            return work(detachment)
        finally:
            with suppress(OSError):
                detachment.ended()
    os.close(writing)
    with _passing_on(child), os.fdopen(reading, "rb") as said:
        told = _heard(said)
        code = 0 if "run_id" in told else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if "run_id" in told:
        _tell(told, as_json=as_json)
        return 0
    if "log" in told:
        with suppress(OSError), Path(told["log"]).open(errors="replace") as log:
            shutil.copyfileobj(log, sys.stderr)
            Path(told["log"]).unlink()
    if code < 0:
        console(stderr=True).print(f"error: the client in the background was killed by {signal.Signals(-code).name}")
        return 1
    return code


@contextmanager
def _passing_on(child: int) -> Iterator[None]:
    """While entered, an interruption is the child's."""

    def pass_on(number: int, frame: object) -> None:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(child, number)

    before = signal.signal(signal.SIGINT, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _heard(said: IO[bytes]) -> dict[str, Any]:
    """What the process says until its first run has begun, or until its end."""
    told: dict[str, Any] = {}
    while "run_id" not in told and (line := said.readline()):
        told |= json.loads(line)
    return told


def _tell(told: dict[str, Any], *, as_json: bool) -> None:
    run = {name: told[name] for name in ("run_id", "folder", "pid")}
    if as_json:
        print_json({"runs": [{**run, "detached": True}]})
        return
    for line in detached_lines(run, told["runs"]):
        console().print(line)

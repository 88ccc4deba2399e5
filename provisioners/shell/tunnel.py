"""A way to a port of a machine's loopback that heals after a cut, held by a process of its own.

That process is ssh; where there is none, or where it does not work, a forwarder over our own kind of connection.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from provisioners.shell.connection import HostKeyChanged, Lost, NotAdmitted, Shell, Target
from provisioners.shell.forwarder import forwarder_argv
from provisioners.shell.hostkeys import is_pinned
from provisioners.shell.openssh import check_argv, tunnel_argv
from recipes.errors import NoMachine

Kind = Literal["ssh -L", "forwarder"]
BOTH: tuple[Kind, ...] = ("ssh -L", "forwarder")

_PAUSES_S = (0.0, 0.1, 0.3, 1.0, 2.0, 5.0)
_END_S = 2.0
_MARK = "RECIPE_TUNNEL"
"""In the environment of what holds a tunnel."""
# Whoever started this holds the other end of its standard input: when that closes, however it came, the tunnel ends.
# The program's own input is a pipe in which nothing ever comes; it does not share ours, which it makes non-blocking.
_HELD = (
    'd=$1; shift; exec 3<&0 4<>"$d/in"; "$@" <&4 3<&- 4<&- & p=$!; '
    '{ read -r _ <&3; rm -rf "$d"; kill "$p"; } 2>/dev/null 4<&- & w=$!; '
    'exec 3<&-; wait "$p"; s=$?; kill "$w" 2>/dev/null; exit "$s"'
)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How the process of a tunnel is started and asked how it is."""

    kind: Kind
    argv: Callable[[int], Sequence[str]]
    """For a local port."""
    check: Sequence[str] | None
    folder: Path
    """For its control socket; removed with it."""
    ready_s: float
    check_s: float


class _Failed(Exception):
    """The process ended before it was ready."""


class Tunnel:
    """Held until it is closed, or this program ends in whatever way; its local port stays the same."""

    def __init__(self, plan: _Plan, port: int, process: _Holder) -> None:
        self.kind: Kind = plan.kind
        self.address = f"127.0.0.1:{port}"
        self.restarts = 0
        """How often it had to be opened again."""
        self._plan, self._port, self._process = plan, port, process
        self._supervising = asyncio.create_task(self._supervise(), name=f"tunnel {self.address}")

    @property
    def pid(self) -> int:
        """Of the process group that holds it now."""
        return self._process.pid

    async def close(self) -> None:
        self._supervising.cancel()
        with suppress(asyncio.CancelledError):
            await self._supervising
        await self._process.end()
        shutil.rmtree(self._plan.folder, ignore_errors=True)

    async def _supervise(self) -> None:
        while True:
            await self._process.ended_or_stuck(self._plan)
            self.restarts += 1
            await self._process.end()
            failures = 0
            while True:
                await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
                try:
                    self._process = await _Holder.start(self._plan, self._port)
                    break
                except _Failed:
                    failures += 1


async def open_tunnel(
    target: Target,
    remote_port: int,
    *,
    kinds: Sequence[Kind] = BOTH,
    connect_timeout_s: float = 10,
    silence_s: float = 15,
    check_s: float = 10,
) -> Tunnel:
    """A tunnel that stands. The first kind that works is taken. Raises Lost, NotAdmitted, HostKeyChanged."""
    if not is_pinned(target.known_hosts, target.alias):
        await _pin(target, connect_timeout_s)
    trouble = ""
    for kind in kinds:
        if kind == "ssh -L" and shutil.which("ssh") is None:
            trouble = "there is no ssh program here"
            continue
        folder = Path(tempfile.mkdtemp(prefix="tunnel-", dir=_short_folder()))
        plan = _plan(kind, target, remote_port, folder, connect_timeout_s, silence_s, check_s)
        try:
            return await _open(plan)
        except _Failed as error:
            trouble = str(error)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
    raise _explained(trouble, target)


async def _open(plan: _Plan) -> Tunnel:
    """On a free local port; another is tried if somebody took it in the meantime."""
    for is_last in (False, True):
        port = _free_port()
        try:
            return Tunnel(plan, port, await _Holder.start(plan, port))
        except _Failed as error:
            if is_last or str(port) not in str(error):
                raise
    raise AssertionError


class _Holder:
    """The process that holds a tunnel, in a session of its own: what happens at the terminal is not for it."""

    def __init__(self, process: Process, mark: str) -> None:
        self._process, self._mark = process, mark
        self._said: deque[str] = deque(maxlen=20)
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, plan: _Plan, port: int) -> _Holder:
        """Returns when the tunnel stands. Raises _Failed with what the process said."""
        plan.folder.mkdir(mode=0o700, exist_ok=True)
        for left in plan.folder.iterdir():
            left.unlink()
        os.mkfifo(plan.folder / "in", 0o600)
        argv = ["/bin/sh", "-c", _HELD, "sh", str(plan.folder), *plan.argv(port)]
        # ssh runs our local command, and what leads through a jump, in the user's shell.
        env = {**os.environ, "SHELL": "/bin/sh", _MARK: str(plan.folder)}
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True, cwd="/", env=env
            )
        except OSError as error:
            raise _Failed(f"it cannot be started: {error.strerror}") from error
        held = cls(process, str(plan.folder))
        try:
            async with asyncio.timeout(plan.ready_s):
                assert process.stdout is not None
                if await process.stdout.readline() == b"ready\n":
                    return held
            await held._reading
            raise _Failed(held.said or "it ended without a word")
        except TimeoutError:
            await held.end()
            raise _Failed(held.said or f"it was not ready within {plan.ready_s:g} s") from None
        except BaseException:
            await held.end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        return "\n".join(self._said)

    async def ended_or_stuck(self, plan: _Plan) -> None:
        """Wait until it is of no use any more."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(plan.check_s):
                    await self._process.wait()
                    return
            if plan.check and not await _succeeds(plan.check, plan.check_s):
                return

    async def end(self) -> None:
        """Ask it to go, then make it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await self._process.wait()
        self._kill_all()
        await self._process.wait()
        assert self._process.stdout is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await asyncio.gather(self._process.stdout.read(), self._reading)

    def _kill_all(self) -> None:
        """What is left of its group, each known by its mark: the group's number may be another's by now."""
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if os.getpgid(process.pid) == self._process.pid and process.environ().get(_MARK) == self._mark:
                    process.kill()

    async def _read(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self._said.append(line.decode(errors="replace").strip())


def _plan(
    kind: Kind,
    target: Target,
    remote_port: int,
    folder: Path,
    connect_timeout_s: float,
    silence_s: float,
    check_s: float,
) -> _Plan:
    control = folder / "c"
    timeout = connect_timeout_s
    if kind == "ssh -L":
        argv = lambda port: tunnel_argv(target, port, remote_port, control, connect_timeout_s=timeout)  # noqa: E731
    else:
        argv = lambda port: forwarder_argv(  # noqa: E731
            target, port, remote_port, connect_timeout_s=timeout, silence_s=silence_s
        )
    return _Plan(
        kind=kind,
        argv=argv,
        check=check_argv(target, control) if kind == "ssh -L" else None,
        folder=folder,
        ready_s=2 * connect_timeout_s + 5,
        check_s=check_s,
    )


async def _pin(target: Target, connect_timeout_s: float) -> None:
    """ssh refuses a machine that it does not know; ours are known from the first time that they let us in."""
    shell = Shell(target, connect_timeout_s=connect_timeout_s)
    try:
        await shell.run(["true"])
    finally:
        await shell.close()


async def _succeeds(argv: Sequence[str], timeout_s: float) -> bool:
    try:
        process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    except OSError:
        return True  # that nothing can be started here says nothing of the tunnel
    try:
        async with asyncio.timeout(timeout_s):
            return await process.wait() == 0
    except TimeoutError:
        return False
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _explained(trouble: str, target: Target) -> NoMachine:
    """The error that a process spoke of in its last line."""
    lines = trouble.splitlines() or [""]
    with suppress(ValueError, TypeError, KeyError):
        said = json.loads(lines[-1])
        kinds = {kind.__name__: kind for kind in (Lost, NotAdmitted, HostKeyChanged)}
        return kinds.get(said["error"], Lost)(said["message"], advice=said["advice"])
    return Lost(f"no tunnel to {target}: {lines[-1] or 'no reason was given'}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _short_folder() -> str | None:
    """Where a socket's path stays short enough for the system: 104 bytes on some, of which ssh needs 17 itself."""
    return None if len(tempfile.gettempdir()) <= 50 else "/tmp"  # noqa: S108

"""Leads one run of a pod's container: its start command and its sshd, and ends whatever they started.

A process of its own; standard library only, so that it starts at once. The first line on its standard input says what
to run, later words what to do (rekey, freeze, cut, end). When its standard input closes, for whatever reason,
everything is killed. Its standard output tells what happens, one JSON object a line. It ends when nothing of the pod is
alive.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from provisioners.rehearsal import isolation
from provisioners.rehearsal.processes import descendants

_DIE_WITH_PARENT, _ADOPT_ORPHANS = 1, 36  # <sys/prctl.h>
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LONGEST_LINE = 16_384
_LONGEST_WAIT_S = 3600.0
_AGAIN_S = 0.2
"""How soon an sshd that could not take its port tries again."""
PROGRAM = "import sys; sys.path.append(sys.argv[1]); from provisioners.rehearsal import container; container.main()"

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One run of a container."""

    pod: str
    """The pod's folder."""
    isolated: bool
    argv: Sequence[str]
    env: dict[str, str]
    home: str
    sshd: str
    sshd_delay_s: float
    mounts: Sequence[tuple[str, str]]
    visible: Sequence[str]
    disk_kib: int | None

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def leader_argv() -> list[str]:
    """The command that leads a container."""
    return [sys.executable, "-I", "-S", "-c", PROGRAM, str(Path(__file__).parents[2])]


def tell(event: str, **details: Any) -> None:
    """Say what happened. A reader who has gone has closed standard input as well, which ends everything."""
    with suppress(BrokenPipeError):
        os.write(1, (json.dumps({"event": event, **details}) + "\n").encode())


def log(source: str, line: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    tell("log", source=source, line=line, ts=now)


class Container:
    """The processes of one run."""

    def __init__(self, spec: Spec, orders: Sequence[str]) -> None:
        self._spec = spec
        self._orders = orders
        """What came together with the specification."""
        self._root: Path | None = None
        self._selector = selectors.DefaultSelector()
        self._main: subprocess.Popen[bytes] | None = None
        self._output: int | None = None
        """The reading end of what the start command says, until it is silent for ever."""
        self._partial = b""
        self._sshd: subprocess.Popen[bytes] | None = None
        self._sshd_due: float | None = None
        self._sshd_listened = False
        self._status: int | None = None
        self._ending = False

    def run(self) -> None:
        """Start everything; return when nothing is left. Raises OSError if no container can be made."""
        spec = self._spec
        if spec.isolated:
            plan = isolation.Plan(Path(spec.pod), spec.home, spec.mounts, spec.visible, spec.disk_kib)
            self._root = isolation.isolate(plan, lambda text: log("system", text))
        elif sys.platform == "linux":
            _libc.prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)
        wake, waker = socket.socketpair()
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(wake, selectors.EVENT_READ, lambda: self._reap(wake))
        self._selector.register(0, selectors.EVENT_READ, self._obey)
        try:
            if self._start_main():
                self._sshd_due = time.monotonic() + spec.sshd_delay_s
            for order in self._orders:
                self._follow(order)
            while self._status is None and not self._ending:
                self._step()
        finally:
            self._end()

    def _step(self) -> None:
        due = None if self._sshd_due is None else self._sshd_due - time.monotonic()
        if due is not None and due <= 0:
            self._sshd_due = due = None
            # In a namespace whose first process has just ended there is no more room for others.
            with suppress(OSError, subprocess.SubprocessError):
                self._start_sshd()
        for key, _ in self._selector.select(None if due is None else min(due, _LONGEST_WAIT_S)):
            key.data()

    def _start_main(self) -> bool:
        """The start command; False if there is no such command."""
        reading, writing = os.pipe()
        try:
            self._main = subprocess.Popen(
                self._spec.argv,
                env=self._spec.env,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
                preexec_fn=self._become_part("/" if self._root else self._spec.home, first=True),
            )
        except OSError as error:
            log("system", f"start container: exec: {self._spec.argv[0]}: {error.strerror}")
            self._status = 127
            return False
        finally:
            os.close(writing)
        self._output = reading
        self._selector.register(reading, selectors.EVENT_READ, self._hear)
        tell("started", pid=self._main.pid)
        return True

    def _start_sshd(self) -> None:
        folder = isolation.SSH_DIR if self._root else Path(self._spec.pod, "ssh")
        self._sshd = subprocess.Popen(
            [self._spec.sshd, "-D", "-e", "-f", str(folder / "sshd_config")],
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=self._become_part("/"),
        )
        errors = self._sshd.stderr
        assert errors is not None
        self._selector.register(errors, selectors.EVENT_READ, lambda: self._hear_sshd(errors.fileno()))

    def _become_part(self, directory: str, *, first: bool = False) -> Callable[[], None]:
        """What a child does before it becomes a program of the container."""

        def prepare() -> None:
            for number in _IGNORED:
                signal.signal(number, signal.SIG_DFL)
            if sys.platform == "linux":
                _libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
            if self._root is not None:
                isolation.enter(self._root, first=first)
            os.chdir(directory)

        return prepare

    def _hear(self) -> None:
        """The start command, or what it started, said something, or nobody is left who could."""
        assert self._output is not None
        data = os.read(self._output, 1 << 16)
        if not data:
            self._selector.unregister(self._output)
            self._output = None
        *lines, self._partial = (self._partial + data).split(b"\n")
        if self._partial and (not data or len(self._partial) > _LONGEST_LINE):
            lines, self._partial = [*lines, self._partial], b""
        for line in lines:
            log("container", line.decode(errors="replace").rstrip("\r"))

    def _hear_sshd(self, errors: int) -> None:
        data = os.read(errors, 1 << 16)
        for line in data.decode(errors="replace").splitlines():
            if line.startswith("Server listening on"):
                self._sshd_listened = True
                tell("sshd", listening=True)
            elif not self._sshd_listened or "error:" in line or "fatal:" in line:
                log("system", f"sshd: {line}")
        if not data:
            self._selector.unregister(errors)

    def _reap(self, wake: socket.socket | None = None) -> None:
        """Children that have ended: the command, sshd, and without namespaces also orphans."""
        if wake is not None:
            wake.recv(4096)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, code = ended[0], os.waitstatus_to_exitcode(ended[1])
                if self._main is not None and pid == self._main.pid:
                    self._main.returncode = self._status = code
                elif self._sshd is not None and pid == self._sshd.pid:
                    self._sshd.returncode = code
                    tell("sshd", listening=False, status=code)
                    if not self._sshd_listened:
                        self._sshd_due = time.monotonic() + _AGAIN_S

    def _obey(self) -> None:
        """Do what standard input says; its end is the order to end."""
        for order in os.read(0, 4096).decode().split() or ["end"]:
            self._follow(order)

    def _follow(self, order: str) -> None:
        if order == "end":
            self._ending = True
        elif order == "freeze":
            _signal(self._sshd_processes(), signal.SIGSTOP)
        elif order == "cut":
            _signal(self._sshd_processes()[1:], signal.SIGKILL)
        elif order == "rekey" and self._sshd is not None:
            _signal(self._sshd_processes(), signal.SIGKILL)
            self._sshd.wait()
            make_host_key(Path(self._spec.pod))
            self._start_sshd()

    def _sshd_processes(self) -> list[int]:
        """The listener, if it lives, and the processes of its sessions."""
        if self._sshd is None or self._sshd.returncode is not None:
            return []
        names = descendants(self._sshd.pid)
        return [self._sshd.pid, *(pid for pid, name in names.items() if name.startswith("sshd"))]

    def _end(self) -> None:
        """Kill everything that is left, wait for it, and tell how it ended."""
        by_itself = self._status is not None
        while by_itself and self._output is not None and _is_readable(self._output):
            self._hear()
        # The first process of a namespace takes all others with it, and is reaped after them.
        while left := descendants(os.getpid()):
            _signal(left, signal.SIGKILL)
            self._reap()
            time.sleep(0.002)
        tell("ended", status=self._status, by_itself=by_itself)


def make_host_key(pod: Path) -> None:
    """A new host key for the pod's sshd."""
    path = pod / "ssh" / "host_key"
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "pod", "-f", str(path)], check=True)


def _signal(pids: Sequence[int] | dict[int, str], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _is_readable(descriptor: int) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(0))


def main() -> None:
    """Run what the first line on standard input says."""
    for number in (*_IGNORED, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    first = b""
    while b"\n" not in first:
        block = os.read(0, 1 << 16)
        if not block:
            return
        first += block
    line, _, rest = first.partition(b"\n")
    spec = Spec(**json.loads(line))
    try:
        if not Path(spec.pod, "ssh", "host_key").exists():
            make_host_key(Path(spec.pod))
        Container(spec, rest.decode().split()).run()
    except (OSError, subprocess.SubprocessError) as error:
        log("system", f"no container could be made: {error}")
        tell("ended", status=None, by_itself=True)

"""The supervisor of a job. It belongs to no client: it starts the command, adopts what the command leaves behind, and
writes the exit status down. It goes when all of them have ended."""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

import agent_processes as processes
import agent_state as files

_STATUS_BYTES = 64
_STATUS_TRIES = 60
_PROGRESS_S = 1.0
_PR_SET_CHILD_SUBREAPER = 36
# Caught and let pass, not ignored: a command would inherit that.
_SURVIVED = ("SIGHUP", "SIGINT", "SIGTERM", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTSTP")


def supervise(state, name):
    """Start the command that is ordered on standard input, say {"pid"} or {"error"}, and stay until its end."""
    for number in _SURVIVED:
        signal.signal(getattr(signal, number), lambda *_: None)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing)
    _adopt_orphans()
    order = json.loads(sys.stdin.readline())
    folder = state.job(name)
    files.write_json(os.path.join(folder, "supervisor"), processes.identity(os.getpid()))
    room = _make_room(folder)
    try:
        with open(os.path.join(folder, "log"), "ab") as log:
            child = subprocess.Popen(
                order["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=state.work,
                env=order["env"],
            )
    except OSError as error:
        os.unlink(os.path.join(folder, "supervisor"))
        _say({"error": "%s: %s" % (order["argv"][0], error.strerror)})
        return
    # A command that has ended by now is a zombie, which has no identity; nobody else has its number until it is reaped.
    group = processes.identity(child.pid) or {"pid": child.pid, "started": None}
    files.write_json(os.path.join(folder, "group"), group)
    _say({"pid": child.pid})
    _let_go_of_the_caller()
    progress = _Progress(state, os.path.join(folder, "log")) if order["counts"] else None
    order.clear()
    _watch(child, reading, progress, lambda status: _write_status(folder, room, status))


def _watch(child, wakeup, progress, ended):
    """Reap the command and its orphans until none is left; tells the command's exit status when it has ended."""
    while True:
        while True:
            try:
                pid, raw = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            if pid == child.pid:
                child.returncode = -os.WTERMSIG(raw) if os.WIFSIGNALED(raw) else os.WEXITSTATUS(raw)
                ended(child.returncode)
                progress = None
        select.select([wakeup], [], [], _PROGRESS_S if progress else None)
        with contextlib.suppress(BlockingIOError):
            os.read(wakeup, 4096)
        if progress:
            progress.look()


class _Progress:
    """Whether a log says something new. A last line that only repeats the one before is nothing new: a stalled
    download says how far it is again and again."""

    def __init__(self, state, path):
        self._state, self._path = state, path
        self._size, self._line = 0, b""

    def look(self):
        size = os.path.getsize(self._path)
        if size == self._size:
            return
        self._size = size
        with open(self._path, "rb") as file:
            file.seek(max(0, size - 4096))
            lines = file.read().splitlines()
        line = lines[-1] if lines else b""
        if line != self._line:
            self._line = line
            self._state.beat()


def _let_go_of_the_caller():
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nowhere, fd)
    os.close(nowhere)


def _adopt_orphans():
    """On Linux: what the command leaves behind becomes this process's child, and so stays known as the job's."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _make_room(folder):
    """The status's file before there is one, so that it can be written down on a disk that has become full."""
    path = os.path.join(folder, "status.part")
    with open(path, "wb") as file:
        file.write(b" " * _STATUS_BYTES)
    return path


def _write_status(folder, room, status):
    for _ in range(_STATUS_TRIES):
        try:
            fd = os.open(room, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(fd, json.dumps(status).ljust(_STATUS_BYTES).encode(), 0)
            finally:
                os.close(fd)
            os.replace(room, os.path.join(folder, "status"))
            return
        except OSError:
            if not os.path.isdir(folder):
                return
            time.sleep(1)


def _say(answer):
    """To the one who asked for the start, if it is still there."""
    with contextlib.suppress(OSError):
        print(json.dumps(answer), flush=True)

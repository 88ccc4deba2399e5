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

_ROOM_BYTES = 256
_TRIES = 60
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
    for part in ("group", "status"):
        _make_room(folder, part)
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
    _put_down(folder, "group", group)
    _say({"pid": child.pid})
    _let_go_of_the_caller()
    progress = _Progress(state, os.path.join(folder, "log")) if order["counts"] else None
    order.clear()
    _watch(child, reading, progress, lambda status: _put_down(folder, "status", status))


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


def _make_room(folder, name):
    """A file before there is anything to put down: the command may fill the disk from its first moment."""
    with open(os.path.join(folder, name + ".part"), "wb") as file:
        file.write(b" " * _ROOM_BYTES)


def _put_down(folder, name, content):
    """Write it into the room that was made, and give the file its name."""
    room = os.path.join(folder, name + ".part")
    for _ in range(_TRIES):
        try:
            fd = os.open(room, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(fd, json.dumps(content).ljust(_ROOM_BYTES).encode(), 0)
            finally:
                os.close(fd)
            os.replace(room, os.path.join(folder, name))
            return
        except OSError:
            if not os.path.isdir(folder):
                return
            time.sleep(1)


def _say(answer):
    """To the one who asked for the start, if it is still there."""
    with contextlib.suppress(OSError):
        print(json.dumps(answer), flush=True)

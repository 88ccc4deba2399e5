"""What becomes of a job: how it stands, and its log as it comes."""

import contextlib
import hashlib
import json
import os
import select
import sys
import time

import agent_processes as processes
import agent_state as files

_FOLLOW_PAUSE_S = 0.05
_LOOK_PAUSE_S = 1.0
_BLOCK = 1 << 16
_MOST_BLOCKS = 16


def status(state, name, digest=True):
    """What is known of a job: {"known", "running", "lost", "status", "pid", "bytes", "sha256"}."""
    folder = state.job(name)
    known = os.path.isdir(folder)
    ended, running = _ended(folder)
    group = files.read_json(os.path.join(folder, "group")) or {}
    length, sha256 = 0, hashlib.sha256()
    with contextlib.suppress(OSError), open(os.path.join(folder, "log"), "rb") as log:
        length = os.fstat(log.fileno()).st_size
        if digest:
            length = _hash_up_to(log, sha256, length)
    return {
        "known": known,
        "running": running,
        "lost": known and ended is None and not running,
        "status": ended,
        "pid": group.get("pid"),
        "bytes": length,
        "sha256": sha256.hexdigest() if digest and known else None,
    }


def _ended(folder):
    """A job's exit status, or None; and whether it still runs."""
    running = processes.lives(files.read_json(os.path.join(folder, "supervisor")))
    # Looked at after the supervisor: one that has gone by then had written it before.
    ended = files.read_json(os.path.join(folder, "status"))
    return ended, running and ended is None


def _hash_up_to(log, sha256, length):
    """Add a file's bytes up to a length to a hash; returns how many there were."""
    done = 0
    while done < length:
        block = log.read(min(_BLOCK * 16, length - done))
        if not block:
            break
        sha256.update(block)
        done += len(block)
    return done


def follow(state, name, offset):
    """Write a job's log from an offset to standard output as it comes, and at its end what became of the job to
    standard error. Ends early, without a word, when nobody reads any more."""
    folder, sha256, out = state.job(name), hashlib.sha256(), sys.stdout.fileno()
    reader, watch = _Reader(out), _EndWatch(folder)
    with open(os.path.join(folder, "log"), "rb") as log:
        position = _hash_up_to(log, sha256, offset)
        while True:
            # Looked at before the log: what the job wrote before its end is then there to be read.
            over = watch.is_over()
            block = log.read(_BLOCK)
            while block:
                sha256.update(block)
                position += len(block)
                _write_all(out, block)
                block = log.read(_BLOCK)
            if over:
                break
            if reader.has_gone(_FOLLOW_PAUSE_S):
                return
    ended, _ = _ended(folder)
    said = {"status": ended, "lost": ended is None, "bytes": position, "sha256": sha256.hexdigest()}
    sys.stderr.write(json.dumps(said) + "\n")


class _EndWatch:
    """Whether a job has ended: its status is looked for each time, its supervisor, which costs more, once a second."""

    def __init__(self, folder):
        self._folder, self._status = folder, os.path.join(folder, "status")
        self._next = 0.0

    def is_over(self):
        if os.path.exists(self._status):
            return True
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _LOOK_PAUSE_S
        return not _ended(self._folder)[1]


def _write_all(fd, block):
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view) :]


class _Reader:
    """Whoever reads our output. The end of standard input is taken for its end, unless there never was any."""

    def __init__(self, out):
        self._poll = select.poll()
        self._poll.register(out, 0)
        self._out, self._hears = out, False
        if not self._at_end(0):
            self._poll.register(0, select.POLLIN)
            self._hears = True

    @staticmethod
    def _at_end(fd):
        """Whether a descriptor has nothing more to give; what it does give is thrown away."""
        try:
            for _ in range(_MOST_BLOCKS):
                ready, _, _ = select.select([fd], [], [], 0)
                if not ready:
                    return False
                if not os.read(fd, _BLOCK):
                    return True
        except OSError:
            return True
        return False

    def has_gone(self, seconds):
        """Wait for so long, or until it goes; returns whether it has."""
        for fd, event in self._poll.poll(seconds * 1000):
            if fd == self._out and event & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                return True
            if fd == 0 and self._hears and self._at_end(0):
                return True
        return False

"""A machine of somebody's own: taken for one lease at a time, and left as it was found."""

import contextlib
import fcntl
import getpass
import json
import os
import shutil
import signal
import stat
import subprocess
import time

import agent_processes as processes
import agent_state as files

DEFAULT_LOCK = "/var/tmp/recipe-host.lock"  # noqa: S108 (all users of the machine share it)
LOCK_VARIABLE = "RECIPE_HOST_LOCK"
_FOLDER = ".recipe"
# The switch's shell can name no descriptor above 9.
_LOCK_FD = 9
_LOCK_PATIENCE_S = 2.0
_SWITCH_PATIENCE_S = 5.0


def begin(state, request):
    """Take the machine: {"ok", "joined"}, or {"locked_by": {"lease", "since", "user"}} if another lease has it.

    `request` holds lease, deadline (epoch), idle_s and volume. The dead-man switch inherits the lock and holds it to
    its end, whatever ends it. Called again for a lease that has the machine already, it changes nothing.
    """
    lock = _open_lock(os.environ.get(LOCK_VARIABLE) or DEFAULT_LOCK)
    if not _take(lock, request["lease"]):
        holder = _holder(lock)
        if holder["lease"] == request["lease"] and switch(state).get("alive"):
            return {"ok": True, "joined": True}
        if not state.host():
            _remove_scripts(state)
        return {"locked_by": holder}
    # Before all else: whoever asks from now on is told who has it.
    _write_holder(lock, request["lease"])
    if state.host():  # a lease whose switch was killed
        processes.end(state, 10.0)
    files.set_up(state, request["lease"], "host", request.get("volume"))
    for name in ("released", "ending", "switch.json"):
        if os.path.exists(state.at(name)):
            os.unlink(state.at(name))
    state.beat()
    files.write_launcher(state)
    _start_switch(state, request, lock)
    return {"ok": True, "joined": False}


def _open_lock(path):
    """The lock's file, which is another user's if that one came first."""
    # Without O_CREAT where it exists: systems refuse that for another user's file in a folder that all may write to.
    for flags in (os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDONLY):
        try:
            fd = os.open(path, flags | os.O_NOFOLLOW, 0o666)
        except (FileNotFoundError, FileExistsError, PermissionError) as error:
            problem = error
            continue
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("%s is no file" % path)
        if flags & os.O_CREAT:
            os.fchmod(fd, 0o666)
        return fd
    raise problem


def _take(lock, lease):
    """Whether the lock could be had; a lease that is just being let go is waited for."""
    end = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
        time.sleep(0.05)


def _holder(lock):
    try:
        found = json.loads(os.pread(lock, 4096, 0).decode())
        return {"lease": found["lease"], "since": found["since"], "user": found["user"]}
    except (ValueError, KeyError, TypeError):
        return {"lease": None, "since": None, "user": None}


def _write_holder(lock, lease):
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    text = json.dumps({"lease": lease, "since": int(time.time()), "user": user}).encode()
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, text, 0)
    except OSError:  # another user's file, which can be locked but not written
        pass


def _start_switch(state, request, lock):
    """Start the dead-man switch with the lock, and wait until it says that it is armed."""
    os.dup2(lock, _LOCK_FD)
    argv = ["sh", state.at("switch.sh"), state.path, "host", request["lease"]]
    argv += [str(int(request["deadline"])), str(int(request["idle_s"]))]
    env = {key: value for key, value in os.environ.items() if key != files.MARKER and not key.startswith("RUNPOD_")}
    with open(state.at("switch.log"), "ab") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=env,
            pass_fds=(_LOCK_FD,),
        )
    end = time.monotonic() + _SWITCH_PATIENCE_S
    while not os.path.exists(state.at("switch.json")):
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            with open(state.at("switch.log")) as log:
                raise OSError("the dead-man switch did not start: %s" % log.read()[-300:].strip())
        time.sleep(0.01)
    process.returncode = 0


def switch(state):
    """What is known of the dead-man switch; empty before it was armed."""
    said = files.read_json(state.at("switch.json"))
    if not said:
        return {}
    said["alive"] = _is_switch(state, said.get("pid", 0))
    try:
        with open(state.at("ending")) as file:
            said["ending"] = file.read().strip()
    except OSError:
        said["ending"] = None
    return said


def _is_switch(state, pid):
    known = processes.identity(pid)
    if not known:
        return False
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return True
    return os.fsencode(state.path) in words


def release(state, grace_s):
    """Leave the machine: {"left", "ports_busy", "removed"}. With something left the switch stays, to try again."""
    host = state.host()
    if host.get("kind") != "host":
        raise ValueError("%s is no lease of a host" % state.path)
    left = processes.end(state, grace_s)
    busy = processes.busy_ports(state)
    if left:
        return {"left": left, "ports_busy": busy, "removed": False}
    known = switch(state)
    files.write_whole(state.at("released"), "")
    removed = remove(state)
    # It goes by itself at its next look, and may have gone already; the lock is free at once this way.
    if known.get("alive"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(known["pid"], signal.SIGKILL)
    return {"left": [], "ports_busy": busy, "removed": removed}


def remove(state):
    """Remove the state directory, and the folder around it if that is empty; returns whether it is gone."""
    for _ in range(3):  # a process that was just killed may have made another file
        shutil.rmtree(state.path, ignore_errors=True)
        if not os.path.exists(state.path):
            break
        time.sleep(0.05)
    parent = os.path.dirname(state.path)
    if os.path.basename(parent) == _FOLDER:
        with contextlib.suppress(OSError):
            os.rmdir(parent)
    return not os.path.exists(state.path)


def _remove_scripts(state):
    """What the client has put here to ask with; anything else is not ours to remove."""
    for name in os.listdir(state.path):
        if name in files.SCRIPTS or name == "__pycache__" or name.startswith(("agent_", ".part-")):
            path = state.at(name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    if not os.listdir(state.path):
        remove(state)

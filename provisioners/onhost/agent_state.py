"""Where a lease's things lie on its machine, and how files are written so that nobody ever reads half of one."""

import contextlib
import fcntl
import json
import os
import pwd
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

MARKER = "RECIPE_LEASE"
"""Every command of a lease carries its name in this variable; what left its process group is found by it."""
JOB_MARKER = "RECIPE_JOB"
SCRIPTS = ("agent", "agent.py", "bootstrap.sh", "switch.sh")
_LOGIN_PATIENCE_S = 5.0
_BEAT = "%020d\n"
_DENIED = re.compile(r"RUNPOD_.*(KEY|TOKEN|SECRET)")


class State:
    """The state directory of one lease."""

    def __init__(self, path):
        self.path = os.path.abspath(path)
        self.work = self.at("work")

    def at(self, *names):
        return os.path.join(self.path, *names)

    def host(self):
        """What was written down when the directory was made; empty before that."""
        return read_json(self.at("host.json")) or {}

    def lease(self):
        return self.host().get("lease") or os.path.basename(self.path)

    def job(self, name):
        if not re.match(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", name):
            raise ValueError("%r is no name for a job; use letters, digits, dots and dashes" % name)
        return self.at("jobs", name)

    def job_names(self):
        try:
            return sorted(name for name in os.listdir(self.at("jobs")) if os.path.isdir(self.at("jobs", name)))
        except OSError:
            return []

    def beat(self):
        """A sign of life. Written in place, at one length, because that also works on a full disk."""
        try:
            fd = os.open(self.at("beat"), os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(fd, (_BEAT % int(time.time() * 1e9)).encode(), 0)
            finally:
                os.close(fd)
        except OSError:
            pass

    @contextlib.contextmanager
    def locked(self, name):
        """Held by one process of this lease at a time; without effect where the file system knows no locks."""
        with open(self.at(name), "a") as file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def set_up(state, lease, kind, volume):
    """Make the directory's parts and write down what they are for; harmless when repeated."""
    os.makedirs(state.path, mode=0o700, exist_ok=True)
    for name in ("work", "jobs"):
        os.makedirs(state.at(name), mode=0o700, exist_ok=True)
    at = _volume_at(state, volume)
    if at and at == volume:
        cache = os.path.join(at, ".recipe-cache")
    elif kind == "host":
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        cache = os.path.join(home, "recipe")
    else:
        cache = state.at("cache")
    for path in filter(None, (at, cache)):
        os.makedirs(path, exist_ok=True)
    host = {
        "lease": lease,
        "kind": kind,
        "work": state.work,
        "cache": cache,
        "volume": {"asked": volume, "at": at},
    }
    if state.host() != host:
        write_json(state.at("host.json"), host)
    if not os.path.exists(state.at("beat")):
        state.beat()
    return host


def write_launcher(state):
    """The file that clients call; it is there only when everything else is."""
    text = "#!/bin/sh\nexec '%s' -IS '%s' '%s' \"$@\"\n" % (sys.executable, state.at("agent.py"), state.path)
    write_whole(state.at("agent"), text, mode=0o700)


def _volume_at(state, volume):
    """Where what a recipe puts on its volume goes: never into a folder that only looks like a mounted volume."""
    if not volume:
        return None
    if os.path.ismount(volume) and os.access(volume, os.W_OK | os.X_OK):
        return volume
    return state.at("volume")


def place(path, volume):
    """Where a path that a recipe names lies here: one on a volume that is not mounted, in what stands for it."""
    asked, at = volume["asked"], volume["at"]
    below = os.path.relpath(path, asked) if asked and os.path.isabs(path) else os.pardir
    return path if below.split(os.sep)[0] == os.pardir else os.path.normpath(os.path.join(at, below))


def environment(state):
    """What commands inherit: on a pod the container's own environment, on a host a login's; never a pod's key."""
    env = dict(os.environ)
    if state.host().get("kind") == "pod":
        bootstrap = read_json(state.at("bootstrap")) or {}
        env.update(environment_of(bootstrap.get("pid", 0)) or {})
    else:
        env.update(_login_environment())
    return {key: value for key, value in env.items() if not _DENIED.match(key)}


def environment_of(pid):
    """The environment with which a process was started; None if it cannot be read."""
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            parts = file.read().split(b"\0")
    except OSError:
        return None
    pairs = (part.partition(b"=") for part in parts if b"=" in part)
    return {os.fsdecode(key): os.fsdecode(value) for key, _, value in pairs}


def _login_environment():
    """The variables that a login shell of this user sets; none if its start-up files fail or take long."""
    try:
        shell = pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    except KeyError:
        shell = "/bin/sh"
    reading, writing = os.pipe()
    code = "import json, os; os.write(%d, json.dumps(dict(os.environ)).encode() + bytes([10]))" % writing
    argv = [shell, "-l", "-c", "exec '%s' -IS -c '%s'" % (sys.executable, code)]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        process = subprocess.Popen(argv, pass_fds=(writing,), start_new_session=True, cwd="/", **quiet)
    except OSError:
        os.close(reading)
        return {}
    finally:
        os.close(writing)
    text = _read_line(reading, _LOGIN_PATIENCE_S)
    os.close(reading)
    if process.poll() is None and not text:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    try:
        found = json.loads(text.decode())
    except ValueError:
        return {}
    return {key: value for key, value in found.items() if key not in ("PWD", "OLDPWD", "SHLVL", "_")}


def _read_line(fd, seconds):
    end, text = time.monotonic() + seconds, b""
    while not text.endswith(b"\n"):
        ready, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
        block = os.read(fd, 65536) if ready else b""
        if not block:
            return b""
        text += block
    return text


def read_json(path):
    """The file's content; None if there is none, or none that can be read."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read().decode())
    except (OSError, ValueError):
        return None


def write_json(path, content):
    write_whole(path, json.dumps(content))


def write_whole(path, text, mode=0o600):
    """Put a file under its name only when it is complete."""
    fd, part = tempfile.mkstemp(prefix=".part-", dir=os.path.dirname(path))
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
        os.chmod(part, mode)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise

"""What a client does on a host of somebody's own before the lease's agent is there, and when it may have gone.

It comes over standard input and leaves nothing behind: `python3 -IS -c LOADER COMMAND LEASE`. With it, on one line,
comes the request; part of that are the scripts of a state directory, whose modules are used from memory. Prints one
JSON object, last.

look     what this machine has, and whether it is taken
find     what there is of the lease
take     bring the scripts into the lease's state directory, begin, and start the boot's jobs; harmless when repeated
leave    end the lease, remove its state directory, and say what is left of it

The lease's name stands among the arguments so that `leave` finds a `take` which is still under way.
"""

import errno
import fcntl
import importlib.abc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

OLDEST = (3, 8)
"""The Python that a host must have for what is installed on it."""
_ORDERS = (b"begin", b"boot", b"take")
_END_PATIENCE_S = 3.0


class _Scripts(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules that are on no disk."""

    def __init__(self, texts):
        self._texts = texts

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name + ".py" in self._texts else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.__file__ = os.path.join(os.devnull, module.__name__ + ".py")
        exec(compile(self._texts[module.__name__ + ".py"], module.__file__, "exec"), module.__dict__)  # noqa: S102


def main(lease, command, request):
    if sys.version_info < OLDEST:
        answer = {"python": list(sys.version_info[:3]), "too_old": True}
    else:
        sys.meta_path.insert(0, _Scripts(request["scripts"]))
        try:
            answer = COMMANDS[command](lease, request)
        except Exception as error:
            answer = {"error": "%s: %s" % (type(error).__name__, error)}
    print(json.dumps(answer), flush=True)


def _state(lease):
    import agent_state

    return agent_state.State(os.path.join(os.path.expanduser("~"), ".recipe", lease))


def look(lease, request):
    """Changes nothing."""
    import agent

    disk = os.statvfs(os.path.expanduser("~"))
    return {
        "venv": _can_make_environments(),
        "cpus": agent.cpus(),
        "memory_bytes": agent.memory_bytes(),
        "disk_free_bytes": disk.f_bavail * disk.f_frsize,
        "gpus": agent.gpus(),
        "taken": _taken(),
    }


def find(lease, request):
    """Changes nothing, and is no sign of life."""
    import agent_host

    state = _state(lease)
    switch = agent_host.switch(state)
    return {
        "now": time.time(),
        "state": state.path,
        "there": os.path.isdir(state.path),
        "switch": bool(switch.get("alive")),
        "idle_s": switch.get("idle_s"),
        "ending": switch.get("ending"),
    }


def _can_make_environments():
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return False
    return True


def _taken():
    """Who has the host's lock, {} if nobody says, None if it is free."""
    import agent_host

    path = os.environ.get(agent_host.LOCK_VARIABLE) or agent_host.DEFAULT_LOCK
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        # Where its file cannot be opened it can neither be taken: begin says what is wrong.
        return None if error.errno == errno.ENOENT else {}
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except OSError:
        try:
            return json.loads(os.pread(fd, 4096, 0).decode())
        except ValueError:
            return {}
    finally:
        os.close(fd)


def take(lease, request):
    """{"state", "joined", "boot"}, or {"late"}, {"locked_by"}, {"error"}.

    After `until`, by this machine's own clock, nothing is begun: a request that was held up on its way is no lease.
    """
    import agent_host
    import agent_state

    state, now = _state(lease), time.time()
    if now > request["until"] and not agent_host.switch(state).get("alive"):
        return {"late": True}
    os.makedirs(state.path, mode=0o700, exist_ok=True)
    for name, text in request["scripts"].items():
        agent_state.write_whole(state.at(name), text)
    order = {
        "lease": lease,
        "deadline": now + request["lasts_s"],
        "idle_s": request["idle_s"],
        "volume": request["volume"],
    }
    begun = _call([sys.executable, "-IS", state.at("agent.py"), state.path, "begin"], json.dumps(order) + "\n")
    if not begun.get("ok"):
        return begun
    return {"state": state.path, "joined": begun["joined"], "boot": _boot(lease, state, request["boot"])}


def _boot(lease, state, boot):
    """Start what the machine does without a client; what goes wrong is left to the client, which does it then."""
    if not boot:
        return {}
    import agent_state

    for name, text in boot["files"].items():
        path = state.at("boot", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        agent_state.write_whole(path, text)
    plan = {"lease": lease, "kind": "host", "volume": boot["volume"], "jobs": boot["jobs"]}
    agent_state.write_json(state.at("boot.json"), plan)
    # Among what is inherited there may be secrets: they stand in no file and no argument.
    return _call(["sh", state.at("agent"), "boot", "0"], "", dict(os.environ, **boot["env"]))


def _call(argv, given, env=None):
    ran = subprocess.run(argv, input=given.encode(), capture_output=True, cwd="/", env=env, check=False)
    try:
        return json.loads(ran.stdout.decode().splitlines()[-1])
    except (ValueError, IndexError):
        said = ran.stderr.decode("utf-8", "replace").strip().splitlines()
        return {"error": "%s ended with %d: %s" % (argv[-1], ran.returncode, " ".join(said[-1:]))}


def leave(lease, request):
    """How it is now: {"existed", "ending", "left", "ports", "ports_busy", "state", "removed", "taken", "now"}."""
    import agent_host
    import agent_processes

    state = _state(lease)
    _kill(_under_way(state, lease))
    existed, ending = os.path.isdir(state.path), agent_host.switch(state).get("ending")
    ports = sorted(set(_ports(state)) | set(request["ports"]))
    if state.host():
        agent_host.release(state, request["grace_s"])
    else:
        agent_processes.end(state, request["grace_s"])
        agent_host.remove(state)
    left = _left(state)
    return {
        "existed": existed,
        "ending": ending,
        "left": left,
        "ports": ports,
        "ports_busy": [port for port in ports if agent_processes.is_taken(port)],
        "state": state.path,
        "removed": not os.path.exists(state.path),
        "taken": _taken(),
        "now": time.time(),
    }


def _ports(state):
    try:
        with open(state.at("ports")) as file:
            return [int(line) for line in file if line.strip()]
    except (OSError, ValueError):
        return []


def _left(state):
    """The lease's processes that are still there. What serves a directory that is gone has nothing more to do."""
    import agent_processes

    end = time.monotonic() + _END_PATIENCE_S
    while True:
        jobs, supervisors = agent_processes.members(state)
        scripts = _running(state)
        found = sorted(jobs | supervisors | scripts)
        if not found or time.monotonic() > end:
            return found
        if not jobs | supervisors and not os.path.exists(state.path):
            _kill(scripts)
        time.sleep(0.05)


def _running(state):
    """The lease's agents and its switch."""
    ends = tuple(b"/" + name.encode() for name in ("agent", "agent.py", "switch.sh"))
    return {pid for pid in _mentioning(state.path.encode()) if any(word.endswith(ends) for word in _words(pid))}


def _under_way(state, lease):
    """Processes that are about to take the host for this lease, such as those of a client that was killed."""
    return {
        pid
        for pid in _mentioning(lease.encode()) | _mentioning(state.path.encode())
        if any(order in _words(pid) for order in _ORDERS)
    }


def _mentioning(word):
    """Processes of which this is an argument, but for ourselves and those that called us."""
    import agent_processes

    if not os.path.isdir("/proc/self"):
        return set()
    table = agent_processes.table_of_all()
    return {pid for pid in table if word in _words(pid)} - agent_processes.ancestry(table)


def _words(pid):
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def _kill(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue


COMMANDS = {"look": look, "find": find, "take": take, "leave": leave}

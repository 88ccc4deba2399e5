"""The processes of a lease: which they are, and how all of them are ended.

A process belongs to the lease if it descends from a job's supervisor (which adopts its orphans, where the system lets
it), is in a job's session or group, or carries the lease's marker in its environment. Process numbers are used again:
one counts only together with the time at which its process was started.
"""

import collections
import os
import signal
import socket
import subprocess
import time

from agent_state import JOB_MARKER, MARKER, environment_of, read_json

_KILL_PATIENCE_S = 5.0
_PORT_PATIENCE_S = 5.0

Process = collections.namedtuple("Process", "pid parent group session started")


def identity(pid):
    """A process's number and start, as they are written down; None if there is no such living process."""
    process = _from_proc(pid) if os.path.isdir("/proc/self") else _from_ps().get(pid)
    return process and {"pid": pid, "started": process.started}


def lives(known):
    """Whether the process that was written down is still there."""
    return bool(known) and identity(known["pid"]) == known


def table_of_all():
    """All living processes by number; a zombie is none."""
    if not os.path.isdir("/proc/self"):
        return _from_ps()
    found = (_from_proc(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process}


def _from_proc(pid):
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            text = file.read().decode("latin-1")
    except OSError:
        return None
    # The name stands in brackets and may hold anything, brackets too.
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in "ZXx":
        return None
    return Process(pid, int(fields[1]), int(fields[2]), int(fields[3]), fields[19])


def _from_ps():
    argv = ["ps", "-A", "-o", "pid=,ppid=,pgid=,stat=,lstart="]
    listed = subprocess.Popen(argv, stdout=subprocess.PIPE, universal_newlines=True).communicate()[0]
    rows = (line.split(None, 4) for line in listed.splitlines())
    found = (Process(int(r[0]), int(r[1]), int(r[2]), -1, r[4]) for r in rows if len(r) == 5 and r[3][0] != "Z")
    return {process.pid: process for process in found}


def members(state, only_job=None):
    """The numbers of the living processes of the lease, or of one job of it, and of the supervisors beside them."""
    table, lease = table_of_all(), state.lease()
    supervisors, found = set(), set()
    for name in state.job_names():
        if only_job in (None, name):
            supervisor = read_json(os.path.join(state.job(name), "supervisor"))
            if supervisor and supervisor["pid"] in table and table[supervisor["pid"]].started == supervisor["started"]:
                supervisors.add(supervisor["pid"])
            found |= _session_of(state, name, table, lease)
    for pid in table:
        env = environment_of(pid) or {}
        if env.get(MARKER) == lease and only_job in (None, env.get(JOB_MARKER)):
            found.add(pid)
    found |= _descendants(supervisors, table)
    return found - supervisors - ancestry(table), supervisors


def _session_of(state, name, table, lease):
    """A job's session. It is the job's if its leader is, or without a leader one of its members."""
    leader = read_json(os.path.join(state.job(name), "group"))
    if not leader:
        return set()
    number = leader["pid"]
    inside = {pid for pid, process in table.items() if number in (process.group, process.session)}
    if number in table:
        return inside if table[number].started == leader["started"] else set()
    return inside if any(_belongs(pid, state, lease) for pid in inside) else set()


def _belongs(pid, state, lease):
    """Whether a process shows that it is the lease's: by its marker, or by its folder if it overwrote that."""
    if (environment_of(pid) or {}).get(MARKER) == lease:
        return True
    try:
        return (os.readlink("/proc/%d/cwd" % pid) + "/").startswith(state.path + "/")
    except OSError:
        return False


def _descendants(roots, table):
    children = collections.defaultdict(list)
    for process in table.values():
        children[process.parent].append(process.pid)
    found, fresh = set(), set(roots)
    while fresh:
        found |= fresh
        fresh = {child for pid in fresh for child in children[pid]} - found
    return found - set(roots)


def ancestry(table):
    """This process and those that it was called by: they must not end themselves."""
    found, pid = set(), os.getpid()
    while pid in table and pid not in found:
        found.add(pid)
        pid = table[pid].parent
    return found


def end(state, grace_s, only_job=None):
    """End every process of the lease: asked first, killed after the grace. Returns those that would not go."""
    asked, _ = members(state, only_job)
    _send(asked, signal.SIGTERM)
    _send(asked, signal.SIGCONT)
    _wait(lambda: members(state, only_job)[0], grace_s)
    limit = time.monotonic() + _KILL_PATIENCE_S
    while time.monotonic() < limit:
        left, _ = members(state, only_job)
        if not left:
            break
        _send(left, signal.SIGKILL)
        time.sleep(0.02)
    # With nothing left to watch the supervisors write what they saw and go.
    _wait(lambda: members(state, only_job)[1], _KILL_PATIENCE_S)
    left, supervisors = members(state, only_job)
    if supervisors:
        _send(supervisors, signal.SIGKILL)
        _wait(lambda: members(state, only_job)[1], _KILL_PATIENCE_S)
        left, supervisors = members(state, only_job)
    return sorted(left | supervisors)


def _send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue


def _wait(look, seconds):
    """Wait until a look finds no process. Looks again at what it knows often, at everything twice a second."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        known = [identity(pid) for pid in look()]
        if not any(known):
            return
        again = time.monotonic() + 0.5
        while any(map(lives, known)) and time.monotonic() < min(again, limit):
            time.sleep(0.02)


def busy_ports(state):
    """Of the ports that were given out, those on which somebody still listens after a moment."""
    try:
        with open(state.at("ports")) as file:
            ports = [int(line) for line in file if line.strip()]
    except OSError:
        return []
    limit = time.monotonic() + _PORT_PATIENCE_S
    while True:
        busy = [port for port in ports if is_taken(port)]
        if not busy or time.monotonic() > limit:
            return busy
        time.sleep(0.05)


def is_taken(port):
    with socket.socket() as probe:
        # As a server would bind: connections that are winding down are no hindrance, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False

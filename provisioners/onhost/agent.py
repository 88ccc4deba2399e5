"""The one program that a client calls on a machine: `agent.py STATE COMMAND …`, over SSH.

STATE is the lease's directory there. Each command prints one JSON object, unless said otherwise, and exits with 0; what
went wrong is {"error": …} and 1. A JSON object on standard input is one line.

probe                 what this machine is, where things lie, and how its dead-man switch stands
start NAME            {"argv", "env", "again", "counts"} on stdin: start a job, or join it: {"joined", "pid"}, {"error"}
follow NAME OFFSET    the job's log as it comes, raw; at its end one JSON line on stderr
status NAME           {"known", "running", "lost", "status", "pid", "bytes", "sha256"}
beat                  every line on stdin is a sign of life, until its end
port                  {"port"}: one that nobody listens on
pack [--from=N] PATTERN…   files of the work directory as a compressed tar, from byte N on; one JSON line on stderr
end [GRACE]           end every process of the lease: {"left", "ports_busy"}
begin                 on a host: take it for this lease: {"ok", "joined"} or {"locked_by"}
release [GRACE]       on a host: end everything, remove STATE, free the host: {"left", "ports_busy", "removed"}
boot PID              on a pod: start what it does by itself; PID is the start command's
"""

import json
import os
import socket
import subprocess
import sys
import sysconfig
import time

# Isolated from the machine's own Python settings, a script's folder is not on the path.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import agent_files
import agent_follow
import agent_host
import agent_jobs
import agent_processes
import agent_state
import agent_supervisor

_CGROUPS = "/sys/fs/cgroup"


def probe(state):
    """Everything that a client wants to know of the machine before it uses it."""
    host = state.host()
    if not host:
        raise ValueError("%s holds no lease yet" % state.path)
    disk = os.statvfs(host["cache"])
    switch = agent_host.switch(state) or None
    return {
        "python": sys.executable,
        "python_tag": "%s-%s" % (sys.implementation.cache_tag, sysconfig.get_platform()),
        "lease": host["lease"],
        "kind": host["kind"],
        "state": state.path,
        "work": host["work"],
        "cache": host["cache"],
        "volume": host["volume"],
        "hostname": socket.gethostname(),
        "cpus": cpus(),
        "memory_bytes": memory_bytes(),
        "disk_free_bytes": disk.f_bavail * disk.f_frsize,
        "gpus": gpus(),
        "switch": switch,
        "warnings": _warnings(host, switch),
        "now": time.time(),
        "booted": os.path.exists(state.at("booted")),
    }


def _warnings(host, switch):
    found = []
    asked, at = host["volume"]["asked"], host["volume"]["at"]
    if asked and asked != at:
        found.append("no writable volume is mounted at %s; what belongs there lies in %s" % (asked, at))
    if not switch or not switch["alive"]:
        found.append("the dead-man switch is not running: this machine does not let itself go")
    elif switch["proof"] != "allowed":
        found.append("it is not proven that the dead-man switch may end this machine: %s" % switch["said"])
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        found.append("%s cannot make environments: its venv module is not complete" % sys.executable)
    return found


def cpus():
    """The cores that may be used: fewer than the machine's in a container with a share of them."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    quota = _read("%s/cpu.max" % _CGROUPS).split() or _read("%s/cpu/cpu.cfs_quota_us" % _CGROUPS).split()
    period = quota[1:] or _read("%s/cpu/cpu.cfs_period_us" % _CGROUPS).split()
    if quota and period and quota[0].isdigit() and int(period[0]) > 0:
        count = min(count, max(1, round(int(quota[0]) / int(period[0]))))
    return count


def memory_bytes():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read("%s/memory.max" % _CGROUPS) or _read("%s/memory/memory.limit_in_bytes" % _CGROUPS)
    return min(total, int(limit)) if limit.isdigit() else total


def _read(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def whole(text):
    """0 where the driver does not say it, as for an accelerator that shares the machine's memory."""
    return int(float(text)) if text.replace(".", "", 1).isdigit() else 0


def gpus():
    argv = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version,memory.free", "--format=csv,noheader,nounits"]
    quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        listed = subprocess.check_output(argv, universal_newlines=True, timeout=20, **quiet)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = ([cell.strip() for cell in line.split(",")] for line in listed.splitlines() if "," in line)
    return [
        {
            "name": row[0],
            "memory_mib": whole(row[1]),
            "driver": row[2] if len(row) > 2 else "",
            "free_mib": whole(row[3]) or None if len(row) > 3 else None,
        }
        for row in rows
    ]


def port(state):
    with socket.socket() as sought:
        sought.bind(("127.0.0.1", 0))
        number = sought.getsockname()[1]
    with open(state.at("ports"), "a") as file:
        file.write("%d\n" % number)
    return {"port": number}


def beat(state):
    for _ in iter(sys.stdin.buffer.readline, b""):
        if not os.path.isdir(state.path):
            return
        state.beat()


def end(state, grace_s):
    return {"left": agent_processes.end(state, grace_s), "ports_busy": agent_processes.busy_ports(state)}


def _request():
    return json.loads(sys.stdin.buffer.readline().decode())


def _grace(arguments):
    return float(arguments[0]) if arguments else agent_jobs.GRACE_S


COMMANDS = {
    "probe": lambda state, _: probe(state),
    "start": lambda state, a: agent_jobs.start(state, a[0], _request()),
    "follow": lambda state, a: agent_follow.follow(state, a[0], int(a[1])),
    "status": lambda state, a: agent_follow.status(state, a[0]),
    "beat": lambda state, _: beat(state),
    "port": lambda state, _: port(state),
    "pack": lambda state, a: agent_files.pack(state, a),
    "end": lambda state, a: end(state, _grace(a)),
    "begin": lambda state, _: agent_host.begin(state, _request()),
    "release": lambda state, a: agent_host.release(state, _grace(a)),
    "boot": lambda state, a: boot(state, int(a[0])),
    "supervise": lambda state, a: agent_supervisor.supervise(state, a[0]),
}
SIGNS_OF_LIFE = frozenset({"probe", "start", "follow", "port", "pack"})


def boot(state, bootstrap_pid):
    """Start the boot's jobs; from then on clients may call."""
    plan = agent_state.read_json(state.at("boot.json"))
    if plan is None:
        raise ValueError("%s cannot be read" % state.at("boot.json"))
    said = agent_jobs.boot(state, plan, bootstrap_pid)
    agent_state.write_launcher(state)
    return said


def main():
    state, command, arguments = agent_state.State(sys.argv[1]), sys.argv[2], sys.argv[3:]
    try:
        if command in SIGNS_OF_LIFE:
            state.beat()
        answer = COMMANDS[command](state, arguments)
        if answer is not None:
            print(json.dumps(answer), flush=True)
    except BrokenPipeError:
        # Nobody listens any more; neither does anybody to the complaint that Python would make at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        print(json.dumps({"error": "%s: %s" % (type(error).__name__, error)}), flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""Jobs: commands that run on without the client that started them, and can be joined and followed by another.

A job is a folder: `spec.json` (its argv; never its environment, which may hold secrets), `log` (both streams), `group`
and `supervisor` (process numbers with their start), `status` (its exit status, when it has ended).
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys

import agent_processes as processes
import agent_state as files
from agent_follow import status

GRACE_S = 10.0


def start(state, name, request, resumes=False):
    """Start a command, or join the one that has this name already: {"joined", "pid"} or {"error"}.

    `request` holds argv, env, `again`: start anew if it was cut off, and `counts`: what it writes is a sign of life of
    the lease. `resumes`: start anew also if a signal ended it.
    """
    folder = state.job(name)
    with state.locked("jobs.lock"):
        known = status(state, name, digest=False)
        if known["known"]:
            cut_off = known["lost"] or (resumes and (known["status"] or 0) < 0)
            if not (cut_off and (resumes or request.get("again"))):
                return {"joined": True, "pid": known["pid"]}
            processes.end(state, GRACE_S, only_job=name)
            for part in ("status", "group", "supervisor"):
                if os.path.exists(os.path.join(folder, part)):
                    os.unlink(os.path.join(folder, part))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        files.write_json(os.path.join(folder, "spec.json"), {"argv": request["argv"]})
        said = _start_supervisor(state, name, request)
        if "error" in said and not known["known"]:
            shutil.rmtree(folder, ignore_errors=True)
        return said if "error" in said else {"joined": False, "pid": said["pid"]}


def _start_supervisor(state, name, request):
    """Have a supervisor start the command. The environment goes through a pipe, because it may hold secrets."""
    env = {**files.environment(state), **request.get("env", {})}
    env.update({files.MARKER: state.lease(), files.JOB_MARKER: name})
    order = {"argv": request["argv"], "env": env, "counts": bool(request.get("counts"))}
    supervisor = subprocess.Popen(
        [sys.executable, "-IS", state.at("agent.py"), state.path, "supervise", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        # RUNPOD_POD_ID tells whoever ends a pod from outside that the supervisor is of it.
        env={key: value for key, value in env.items() if key in ("PATH", "HOME", "LANG", "RUNPOD_POD_ID")},
    )
    with contextlib.suppress(OSError):
        supervisor.stdin.write(json.dumps(order).encode() + b"\n")
        supervisor.stdin.close()
    answer = supervisor.stdout.readline()
    # It is not waited for: it goes on after this process.
    supervisor.returncode = 0
    try:
        return json.loads(answer.decode())
    except ValueError:
        return {"error": "the supervisor of %s ended before it had started the command" % name}


def boot(state, plan, bootstrap_pid):
    """Start what the machine does by itself; a job that was cut off goes on, one that has ended does not."""
    host = files.set_up(state, plan["lease"], plan["kind"], plan.get("volume"))
    files.write_json(state.at("bootstrap"), processes.identity(bootstrap_pid) or {})
    _place_files(state, host)
    said = {}
    for job in plan.get("jobs", []):
        argv = [_filled(part, host) for part in job["argv"]]
        said[job["name"]] = start(state, job["name"], {"argv": argv, "counts": True}, resumes=True)
    files.write_json(state.at("booted"), said)
    return {"jobs": said}


def _place_files(state, host):
    """Copy the boot's files into the work directory; those named *.json hold placeholders."""
    source = state.at("boot")
    for folder, _, names in os.walk(source):
        for name in names:
            path = os.path.join(folder, name)
            target = os.path.join(state.work, os.path.relpath(path, source))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(path, encoding="utf-8") as file:
                text = file.read()
            files.write_whole(target, _filled(text, host) if name.endswith(".json") else text)


def _filled(text, host):
    """The text with its placeholders replaced: {python}, {work}, {cache}, and {place:PATH} for a path of a recipe."""
    for word, value in (("{python}", sys.executable), ("{work}", host["work"]), ("{cache}", host["cache"])):
        text = text.replace(word, value)
    return re.sub(r"\{place:([^{}]*)\}", lambda match: files.place(match.group(1), host["volume"]), text)

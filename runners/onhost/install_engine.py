"""Makes an engine's own environment on this machine, once: `install_engine.py DIRECTORY STEPS.json`.

STEPS.json holds {"python": path, "steps": [{"argv": […], "env": {…}}], "check": […], "present": […]}; `{env}` in an
argument is the directory, `{python_tag}` in the directory's name this Python's implementation, version and platform.
"needs": [3, 11] asks for a Python of at least so much, wherever it comes from.
If the command `present` succeeds, the machine's own Python has the engine already, and nothing is made.

Several runs may ask at once: one installs, the others wait. A directory counts only with its marker, which is written
after the check has passed; what an interrupted installation left behind is removed first. The last line is a JSON
object: {"python": the one to use, "installed": bool, "seconds": …}.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time


def call(argv, env, directory):
    argv = [part.replace("{env}", directory) for part in argv]
    print("$ " + " ".join(argv), flush=True)
    status = subprocess.run(argv, env={**os.environ, **env}).returncode
    if status != 0:
        print("failed with exit status %d: %s" % (status, " ".join(argv)), flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        sys.exit(status if 0 < status < 126 else 1)


def install(directory, plan):
    """Make the environment if it is not there. Returns its Python, and whether it was made now."""
    directory = os.path.abspath(directory.replace("{python_tag}", python_tag()))
    python = os.path.join(directory, "bin", "python")
    marker = os.path.join(directory, ".complete")
    try:
        os.makedirs(os.path.dirname(directory), exist_ok=True)
    except OSError as error:
        sys.exit("cannot write %s: %s" % (os.path.dirname(directory), error.strerror))
    with open(directory + ".lock", "w") as lock:
        # Some network volumes know no locks; there two runs that begin together would both install.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(marker):
            print("already installed: " + directory, flush=True)
            return python, False
        shutil.rmtree(directory, ignore_errors=True)
        make(directory, plan)
        for step in plan["steps"]:
            call(step["argv"], step.get("env", {}), directory)
        call(plan["check"], {}, directory)
        with open(marker, "w") as file:
            json.dump(plan, file)
        print("installed: " + directory, flush=True)
    return python, True


def make(directory, plan):
    """Make an empty environment; one of another Python, which uv finds or fetches, where this one is too old."""
    if sys.version_info[:2] >= tuple(plan.get("needs") or ()):
        call([plan["python"], "-m", "venv", directory], {}, directory)
        return
    tools = directory + ".uv"
    call([plan["python"], "-m", "venv", tools], {}, directory)
    call([tools + "/bin/python", "-m", "pip", "install", "--disable-pip-version-check", "uv"], {}, directory)
    needed = ">=" + ".".join(map(str, plan["needs"]))
    call([tools + "/bin/uv", "venv", "--seed", "--python", needed, directory], {}, directory)


def python_tag():
    return "%s-%s" % (sys.implementation.cache_tag, sysconfig.get_platform())


def is_present(plan):
    """Whether the machine's own Python has it, in exactly the release that is wanted."""
    check = plan.get("present")
    if not check or subprocess.run(check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
        return False
    print("the machine's own: " + check[0], flush=True)
    return True


def main():
    with open(sys.argv[2]) as file:
        plan = json.load(file)
    started = time.monotonic()
    python, installed = (plan["python"], False) if is_present(plan) else install(sys.argv[1], plan)
    said = {"python": python, "installed": installed, "seconds": round(time.monotonic() - started, 3)}
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()

"""Makes an engine's own environment on this machine, once: `install_engine.py DIRECTORY STEPS.json`.

STEPS.json holds {"python": path, "steps": [{"argv": […], "env": {…}}], "check": […]}; `{env}` in an argument is the
directory. Several runs may ask at once: one installs, the others wait. A directory counts only with its marker,
which is written after the check has passed; what an interrupted installation left behind is removed first.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time


def call(argv, env, directory):
    argv = [part.replace("{env}", directory) for part in argv]
    print("$ " + " ".join(argv), flush=True)
    status = subprocess.run(argv, env={**os.environ, **env}).returncode
    if status != 0:
        print("failed with exit status %d: %s" % (status, " ".join(argv)), flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        sys.exit(status if 0 < status < 126 else 1)


def main():
    directory, plan_path = os.path.abspath(sys.argv[1]), sys.argv[2]
    with open(plan_path) as file:
        plan = json.load(file)
    marker = os.path.join(directory, ".complete")
    try:
        os.makedirs(os.path.dirname(directory), exist_ok=True)
    except OSError as error:
        sys.exit("cannot write %s: %s" % (os.path.dirname(directory), error.strerror))
    with open(directory + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(marker):
            print("already installed: " + directory, flush=True)
            return
        shutil.rmtree(directory, ignore_errors=True)
        started = time.monotonic()
        call([plan["python"], "-m", "venv", directory], {}, directory)
        for step in plan["steps"]:
            call(step["argv"], step.get("env", {}), directory)
        call(plan["check"], {}, directory)
        with open(marker, "w") as file:
            json.dump(plan, file)
        print("installed in %.1f s: %s" % (time.monotonic() - started, directory), flush=True)


if __name__ == "__main__":
    main()

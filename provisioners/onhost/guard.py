"""Leads a run's process group on this machine, and ends the group when the client has gone.

The client holds the other end of standard input. When it closes, on purpose or because the client was killed,
everything in the group gets SIGTERM, then SIGKILL after the grace given as the first argument in seconds; the guard
goes last, and leaves a file that says when.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

ENDED = "guard-ended"
"""In the lease's work directory, where a guard runs: made when it ends the lease."""


def others_in_group() -> bool:
    """Whether the group still holds a living process besides this one; true as well if that cannot be told."""
    try:
        # In a session of its own, so that ps does not find itself in the group.
        listed = subprocess.run(["ps", "-A", "-o", "pgid=,pid=,stat="], capture_output=True, start_new_session=True)
    except OSError:
        return True
    if listed.returncode != 0:
        return True
    mine = os.getpid()
    rows = (row.split() for row in listed.stdout.decode().splitlines())
    return any(int(g) == mine and int(p) != mine and not s.startswith("Z") for g, p, s in rows)


def main() -> None:
    grace_s = float(sys.argv[1])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGTERM)
    end = time.monotonic() + grace_s
    while others_in_group() and time.monotonic() < end:
        time.sleep(0.1)
    with suppress(OSError):  # nobody knows when, then; what is to be ended is ended
        open(ENDED, "w").close()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()

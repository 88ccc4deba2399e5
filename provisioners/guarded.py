"""What processes of a local lease have in their environment: the lease's mark and, its guard alone, the engine's key.

Only their user and root can read it there. By the mark it is told whether anything of the lease still runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import psutil

from provisioners.contract import Lease
from provisioners.onhost.guard import ENDED
from recipes.errors import NoMachine

MARKER = "RECIPE_LEASE"
"""Names the lease in the environment of each of its processes."""
KEY_VARIABLE = "RECIPE_LEASE_KEY"
# Variables of the client's own Python that would mislead the ones that it starts.
_DROPPED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


def environment_of(lease_name: str, env: Mapping[str, str]) -> dict[str, str]:
    """Of a process of the lease: this one's, what is given, and the marker."""
    inherited = {key: value for key, value in os.environ.items() if key not in _DROPPED}
    return {**inherited, **env, MARKER: lease_name}


def key_of(lease: Lease) -> str:
    """The same for every client of the lease. Raises NoMachine if the guard has gone: then nothing of it runs."""
    environment = _of_guard(lease)
    if KEY_VARIABLE not in environment:
        raise NoMachine(f"{lease.name}: its guard has gone, and its processes with it", advice="run it again")
    return environment[KEY_VARIABLE]


def _of_guard(lease: Lease) -> Mapping[str, str]:
    """The environment of the lease's guard; empty if it has gone."""
    try:
        environment = psutil.Process(int(lease.id or -1)).environ()
    except (psutil.Error, ValueError, OSError):
        return {}
    return environment if environment.get(MARKER) == lease.name else {}


def members(lease: Lease) -> list[psutil.Process]:
    """Every living process of the lease: in its group, or started under its marker and gone from the group.

    Both signs are needed: a process may leave the group, and one that renames itself overwrites its environment. A
    group of this number is the lease's if its leader, or without a leader one of its members, carries the marker.
    """
    marked: set[int] = set()
    grouped: dict[int, psutil.Process] = {}
    group = int(lease.id) if lease.id else None
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group:
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                grouped[process.pid] = process
            if process.environ().get(MARKER) == lease.name:
                marked.add(process.pid)
                found[process.pid] = process
        except (psutil.Error, OSError):
            continue
    witnesses = {group} if group in grouped else set(grouped)
    return list({**found, **(grouped if marked & witnesses else {})}.values())


def gone_since(lease: Lease) -> datetime | None:
    """When a lease of this machine went, though nobody let it go; None if something of it runs, or nobody knows.

    Its guard notes when it ends the lease. One that was killed itself noted nothing: then the lease was last heard of
    when its client wrote down how the run stands, and cost nothing after that which anybody could know of.
    """
    work_dir = lease.details.get("work_dir")
    if lease.provider != "local" or not work_dir or not (lease.id or "").isdigit() or _of_guard(lease):
        return None
    home = Path(work_dir).parents[1]
    for path in (Path(work_dir) / ENDED, home / "runs" / lease.run_id / "live.json", Path(work_dir)):
        try:
            noted_at = path.stat().st_mtime
        except OSError:
            continue
        return None if members(lease) else datetime.fromtimestamp(noted_at, UTC)
    return None

"""What processes of a local lease have in their environment: the lease's mark and, its guard alone, the engine's key.

Only their user and root can read it there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import psutil

from provisioners.contract import Lease
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
    try:
        environment = psutil.Process(int(lease.id or -1)).environ()
    except (psutil.Error, ValueError, OSError):
        environment = {}
    if environment.get(MARKER) != lease.name or KEY_VARIABLE not in environment:
        raise NoMachine(f"{lease.name}: its guard has gone, and its processes with it", advice="run it again")
    return environment[KEY_VARIABLE]

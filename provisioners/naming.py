"""The names of rented machines: owner, run and deadline, so that each can be recognised without our files."""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil

LONGEST = 60
"""Characters that a name may have: what providers are known to keep whole."""
_PREFIX = "recipe"
_OWNER_LENGTH = 12
_NAME = re.compile(
    rf"{_PREFIX}-(?P<owner>[a-z0-9]+)-(?P<run>(?:[A-Za-z0-9._-]*-)?(?P<stamp>\d{{8}}-\d{{6}})-[0-9a-f]{{4}})-(?P<minutes>\d+)m"
)
_RUN = re.compile(r"(?P<recipe>.+)-(?P<tail>\d{8}-\d{6}-[0-9a-f]{4})")


@dataclass(frozen=True)
class LeaseName:
    """What a name says."""

    owner: str
    run: str
    """The run's id; the beginning of a long one is cut off, its unique end is always there."""
    deadline: datetime
    """When the machine lets itself go at the latest."""


def owner_name(env: Mapping[str, str]) -> str:
    """RECIPE_OWNER, or the user's name, as it stands in names: lower-case letters and digits, 12 at most."""
    try:
        given = env.get("RECIPE_OWNER") or getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        given = ""
    return re.sub(r"[^a-z0-9]", "", given.lower())[:_OWNER_LENGTH] or "nobody"


def lease_name(owner: str, run_id: str, deadline: datetime) -> str:
    """recipe-OWNER-RUN-MINUTESm, 60 characters at most; the minutes go from the run's own time to its deadline."""
    match = _RUN.fullmatch(run_id)
    if match is None:
        raise ValueError(f"{run_id} is not the id of a run")
    minutes = max(1, ceil((deadline - _started(match["tail"])).total_seconds() / 60))
    room = LONGEST - len(f"{_PREFIX}-{owner}--{match['tail']}-{minutes}m")
    recipe = re.sub(r"[^A-Za-z0-9._-]", "-", match["recipe"])[:room].rstrip("-._")
    return "-".join(filter(None, [_PREFIX, owner, recipe, match["tail"], f"{minutes}m"]))


def read_name(name: str) -> LeaseName | None:
    """What a name says; None if it is none of ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    deadline = _started(match["stamp"]) + timedelta(minutes=int(match["minutes"]))
    return LeaseName(match["owner"], match["run"], deadline)


def _started(tail: str) -> datetime:
    return datetime.strptime(tail[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)

"""The start command of a rented machine: one line that needs nothing but a shell, and brings everything else."""

from __future__ import annotations

import base64
import gzip
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from pathlib import Path, PurePosixPath

from provisioners import onhost
from provisioners.contract import Boot, Lease
from recipes.errors import Refused

LONGEST = 100_000
"""Characters that a start command may have; Linux takes 131,072 in one argument."""
DEFAULT_API = "https://api.runpod.io/v2"
DEFAULT_GRAPHQL = "https://api.runpod.io/graphql"
_FOLDER = Path(onhost.__file__).parent


@dataclass(frozen=True)
class StartCommand:
    """What a pod is created with."""

    args: str
    """The command, as a shell would read it; holds no secret, and inside its single quotes no other quote, $ or \\."""
    env: Mapping[str, str] = field(repr=False)
    """May hold secrets."""


def state_dir(lease_name: str) -> str:
    """Where a pod keeps everything of its lease."""
    return f"/tmp/{lease_name}"  # noqa: S108 (made by its owner alone, or not used)


def scripts() -> dict[str, str]:
    """The scripts that every state directory holds, by file name; they work only together."""
    paths = [*_FOLDER.glob("agent*.py"), _FOLDER / "switch.sh", _FOLDER / "bootstrap.sh"]
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(paths)}


def start_command(
    lease: Lease,
    *,
    deadline: datetime,
    idle_s: float,
    boot: Boot,
    public_key: str,
    volume: str | None,
    api_url: str = DEFAULT_API,
    graphql_url: str = DEFAULT_GRAPHQL,
) -> StartCommand:
    """The command that arms the dead-man switch, opens the way in, and starts the boot's jobs, in this order.

    It never returns, and may be run again in the same container. Raises Refused if it becomes too long.
    """
    text = _script(lease.name, deadline, idle_s, boot, volume)
    payload = base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
    # Its shell stays: what it started is the container's, and another start is not wanted at once if that ends.
    args = f"sh -c 'echo {payload} | base64 -d | gzip -dc | sh; sleep 10'"
    if len(args) >= LONGEST:
        raise Refused(
            f"the start command has {len(args):,} characters; {LONGEST:,} are too many",
            advice="let the machine load large files instead of sending them along",
        )
    urls = {"RECIPE_API": (api_url, DEFAULT_API), "RECIPE_GRAPHQL": (graphql_url, DEFAULT_GRAPHQL)}
    changed = {name: url for name, (url, default) in urls.items() if url.rstrip("/") != default}
    return StartCommand(args, {**boot.env, **changed, "PUBLIC_KEY": public_key})


def _script(name: str, deadline: datetime, idle_s: float, boot: Boot, volume: str | None) -> str:
    """What the payload unpacks to. The switch comes first; it is started before anything is done that may fail."""
    brought = scripts()
    switch, bootstrap = brought.pop("switch.sh"), brought.pop("bootstrap.sh")
    jobs = [{"name": job.name, "argv": list(job.argv)} for job in boot.jobs]
    plan = {"lease": name, "kind": "pod", "volume": volume, "jobs": jobs}
    rest = {**brought, "bootstrap.sh": bootstrap, "boot.json": json.dumps(plan)}
    rest |= {f"boot/{_checked(path)}": text for path, text in boot.files.items()}
    return _LOADER.format(
        state=shlex.quote(state_dir(name)),
        name=shlex.quote(name),
        deadline=int(deadline.timestamp()),
        idle_s=ceil(idle_s),
        switch=shlex.quote(switch),
        bootstrap=shlex.quote(bootstrap),
        rest="\n".join(f'put "$state"/{shlex.quote(path)} {shlex.quote(text)}' for path, text in rest.items()),
    )


def _checked(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise ValueError(f"{path!r} leads out of the work directory")
    return path


# A folder that somebody else has made is not used. Then, and on a full disk, the switch runs from memory.
_LOADER = """\
umask 077
state={state}
mkdir -m 700 "$state" 2> /dev/null
[ -O "$state" ] && [ ! -h "$state" ] || state=/dev/null/{name}
put() {{
  {{ mkdir -p "${{1%/*}}" && printf %s "$2" > "$1.part" && mv -f "$1.part" "$1"; }} 2> /dev/null
}}
arm() {{
  if command -v setsid > /dev/null 2>&1; then exec setsid "$@"; else exec "$@"; fi
}}
switch={switch}
put "$state/switch.sh" "$switch"
set -- "$state" pod {name} {deadline} {idle_s} $PPID
if [ -e "$state/switch.sh" ]; then
  arm sh "$state/switch.sh" "$@" < /dev/null &
else
  arm sh -c "$switch" switch.sh "$@" < /dev/null &
fi
shift 2
set -- "$state" "$@" $!
{rest}
[ -e "$state/bootstrap.sh" ] && exec sh "$state/bootstrap.sh" "$@" < /dev/null
exec sh -c {bootstrap} bootstrap.sh "$@" < /dev/null
"""

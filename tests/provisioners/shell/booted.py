"""A machine that has done what its start command does: the agent that is really used, in a state directory."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import provisioners.onhost
from provisioners.shell.connection import Shell, Target
from provisioners.shell.remote_host import RemoteHost

LEASE = f"recipe-ana-run-20261121-101500-{os.getpid() % 0xFFFF:04x}-60m"


def boot(state: Path, **plan: Any) -> None:
    """Do to the machine what its start command does: bring the agent, and have it begin."""
    state.mkdir(mode=0o700, exist_ok=True)
    for script in Path(provisioners.onhost.__file__).parent.glob("agent*.py"):
        shutil.copy(script, state)
    whole = {"lease": LEASE, "kind": "pod", "volume": None, "jobs": [], **plan}
    (state / "boot.json").write_text(json.dumps(whole))
    agent = [sys.executable, "-IS", state / "agent.py", state]
    subprocess.run([*agent, "boot", str(os.getpid())], check=True, stdout=subprocess.PIPE)


def using(target: Target, state: Path, work: Callable[[RemoteHost], Awaitable[None]], **options: float) -> None:
    async def main() -> None:
        shell = Shell(target, connect_timeout_s=30, silence_s=30)
        host = await RemoteHost.connect(shell, str(state), key="k", **{"beat_s": 0.2, "patience_s": 20, **options})
        try:
            await asyncio.wait_for(work(host), 90)
        finally:
            await host.close()

    asyncio.run(main())


def end(state: Path) -> None:
    """End everything of the lease, from the machine itself."""
    subprocess.run([state / "agent", "end", "0.1"], stdout=subprocess.PIPE, check=True)

"""What is told of a run that goes on in the background."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runners.terminal.words import plural


def detached_lines(run: Mapping[str, Any], runs: int) -> Iterator[str]:
    """Where it goes on, and the commands that say more. `runs` is how many the command line asks for."""
    others = f"; {plural(runs - 1, 'further run')} of this command will follow" if runs > 1 else ""
    yield f"{run['run_id']} goes on in the background, process {run['pid']}{others}"
    yield f"progress     recipe logs -f --client {run['run_id']}"
    yield "machines     recipe ps"
    yield f"end it       recipe down {run['run_id']}"
    yield f"files        {run['folder']}"

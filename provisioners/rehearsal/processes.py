"""Which processes there are below one. Standard library only."""

from __future__ import annotations

import subprocess
from pathlib import Path

_PROC = Path("/proc")


def descendants(ancestor: int) -> dict[int, str]:
    """Every process below this one with its name, parents first; the dead that nobody has reaped included."""
    children: dict[int, list[int]] = {}
    names = {}
    for pid, parent, name in _all():
        children.setdefault(parent, []).append(pid)
        names[pid] = name
    found: dict[int, str] = {}
    waiting = [ancestor]
    while waiting:
        below = children.get(waiting.pop(0), [])
        waiting += below
        found |= {pid: names[pid] for pid in below}
    return found


def _all() -> list[tuple[int, int, str]]:
    """Number, parent and name."""
    return _from_proc() if (_PROC / "self").exists() else _from_ps()


def _from_proc() -> list[tuple[int, int, str]]:
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                head, _, tail = (entry / "stat").read_text().rpartition(")")
            except OSError:
                continue
            found.append((int(entry.name), int(tail.split()[1]), head.partition("(")[2]))
    return found


def _from_ps() -> list[tuple[int, int, str]]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True).stdout
    rows = (line.split(None, 2) for line in listed.splitlines())
    return [(int(row[0]), int(row[1]), Path(row[2]).name) for row in rows if len(row) == 3]

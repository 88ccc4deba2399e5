"""The files that a workload's patterns stand for."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path


def expand(pattern: str) -> list[Path]:
    """The files of one absolute path or glob, sorted. Raises ValueError if there is none, or an empty one."""
    path = Path(pattern)
    if path.is_dir():
        raise ValueError(f"{pattern} is a folder; write {pattern.rstrip('/')}/*.txt")
    found = [path] if path.is_file() else [Path(p) for p in sorted(glob.glob(pattern, recursive=True))]
    files = [p for p in found if p.is_file()]
    if not files:
        what = "matches no file" if glob.has_magic(pattern) else "no such file"
        raise ValueError(f"{pattern}: {what}; write a path or a glob, relative to where it is written")
    for file in files:
        if file.stat().st_size == 0:
            raise ValueError(f"{file} is empty; remove it or give it text")
    return files


def expand_all(patterns: Iterable[str]) -> tuple[Path, ...]:
    """The files of all patterns, each once, in order. Raises ValueError as `expand` does."""
    return tuple(dict.fromkeys(file for pattern in patterns for file in expand(pattern)))

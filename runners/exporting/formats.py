"""The formats that there are, by name."""

from __future__ import annotations

from pathlib import Path

import runners.exporting.targets
from recipes.errors import UsageError
from recipes.explain import did_you_mean
from recipes.plugins import PluginNames, load_plugin
from runners.exporting.contract import FileTarget, Tracker

TARGETS = (runners.exporting.targets, "gpu_recipe.exports")
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".md": "markdown",
}
DEFAULT = "jsonl"


def names() -> PluginNames:
    """Of all formats; imports none of them."""
    return PluginNames(*TARGETS)


def format_of(path: Path | None) -> str:
    """The format that a file's name asks for; JSON lines without one. Raises UsageError for an ending of none."""
    if path is None or not path.suffix:
        return DEFAULT
    found = _SUFFIXES.get(path.suffix.lower())
    if found is None:
        what = f"-o {path}: no format has the ending {path.suffix}"
        raise UsageError(what, advice=f"one of {', '.join(_SUFFIXES)}; or say which with --format")
    return found


def target(name: str) -> FileTarget | Tracker:
    """The target of this name. Raises UsageError if there is none."""
    known = names()
    if name not in known:
        advice = did_you_mean(name, known)
        advice = advice if advice.startswith("did you mean") else f"one of {', '.join(known)}"
        raise UsageError(f"--format {name}: there is no such format", advice=advice)
    found: FileTarget | Tracker = load_plugin(*TARGETS, name)
    return found

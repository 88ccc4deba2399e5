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
    """The format that a file's name asks for, else JSON lines."""
    return _SUFFIXES.get(path.suffix.lower(), DEFAULT) if path else DEFAULT


def target(name: str) -> FileTarget | Tracker:
    """The target of this name. Raises UsageError if there is none."""
    known = names()
    if name not in known:
        advice = did_you_mean(name, known)
        advice = advice if advice.startswith("did you mean") else f"one of {', '.join(known)}"
        raise UsageError(f"--format {name}: there is no such format", advice=advice)
    found: FileTarget | Tracker = load_plugin(*TARGETS, name)
    return found

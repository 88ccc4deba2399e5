"""What a driver is told: all that its drive depends on, but for the engine's key, which is in its environment."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

KEY = "RECIPE_ENGINE_KEY"
"""The environment variable with what the engine asks of its clients."""


@dataclass(frozen=True, kw_only=True)
class DriveOrder:
    """Paths are the machine's."""

    run_id: str
    recipe: Mapping[str, Any]
    """As `Recipe.resolved` gives it."""
    tokenizer: str
    engine: str
    """The plug-in, as module:attribute."""
    engine_version: str
    workload: str
    model: str
    """The name under which the engine serves it."""
    url: str
    base: str | None
    process: int | None
    """The engine's, if the run has started it."""
    identity: str
    documents: int
    unit: str
    memory: Mapping[str, Any] | None
    """The plan's, from which it follows how many requests the engine has room for."""
    root: str
    """Where the client's files lie here, each under its own absolute path; empty where they are the client's own."""
    earlier: str | None
    """The folder with what the run and others before it have asked already."""
    ready_within_s: float | None
    """How long the engine may take until it answers."""

    def text(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def read(cls, path: Path) -> DriveOrder:
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def reference_to(package: ModuleType, group: str, name: str) -> str:
    """Where a plug-in is found, as module:attribute: of the package itself, else what its entry point says."""
    for point in entry_points(group=group, name=name):
        return point.value
    return f"{package.__name__}.{name}:PLUGIN"


def resolve(reference: str) -> Any:
    """What a reference names."""
    module, _, attribute = reference.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found

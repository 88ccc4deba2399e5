"""What an answer depends on besides its request: the model itself, and how the engine was told to change it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recipes.spec import Engine as EngineSpec
from recipes.spec import digest_of
from runners.engine import Engine
from runners.models import ModelSource


def identity_of(model: ModelSource, plugin: Engine, engine: EngineSpec) -> str:
    """A digest: two runs of the same one get the same answers to the same requests, as far as sampling allows.

    An engine's release, and the flags that only size it (`Engine.sizing`), change nothing. Of an endpoint that runs
    already the host counts, but not the port, which is another for each tunnel.
    """
    args = {name.replace("-", "_"): value for name, value in engine.args.items()}
    shaping = {name: value for name, value in args.items() if name not in plugin.sizing}
    host = urlsplit(engine.url).hostname if engine.url else None
    return digest_of([_model(model), plugin.name, host, shaping])


def _model(model: ModelSource) -> list[Any]:
    if model.hub is not None:
        return [model.identifier, model.hub.repo, model.hub.commit, sorted(file.name for file in model.hub.files)]
    if model.path is None:
        return [model.identifier]
    return [model.identifier, model.path.name, *_files(model.path)]


def _files(path: Path) -> list[list[Any]]:
    """Name, size and time of each file of a model: a new one under the same name is another."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]

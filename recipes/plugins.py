"""Finds plug-ins: the modules of a package by their file names, then entry points of a group."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from recipes.errors import UsageError
from recipes.explain import did_you_mean


def plugin_names(package: ModuleType, group: str) -> tuple[str, ...]:
    """The names of all plug-ins, without importing any of them."""
    own = {module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")}
    return tuple(sorted(own | {point.name for point in entry_points(group=group)}))


def load_plugin(package: ModuleType, group: str, name: str) -> Any:
    """The module's PLUGIN, or what the entry point names. Raises UsageError if there is none of the name."""
    own = {module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")}
    if name in own:
        return importlib.import_module(f"{package.__name__}.{name}").PLUGIN
    for point in entry_points(group=group, name=name):
        return point.load()
    known = plugin_names(package, group)
    raise UsageError(f"{name}: no such plug-in in {group}", advice=did_you_mean(name, known))

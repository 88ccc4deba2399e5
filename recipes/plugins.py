"""Finds plug-ins: the modules of a package by their file names, then entry points of a group."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Iterator
from functools import cached_property
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from recipes.errors import UsageError
from recipes.explain import did_you_mean


class PluginNames(Collection[str]):
    """The names of all plug-ins of a kind, in their order, without importing any of them.

    What other distributions bring is looked for only when it is asked for: that reads a file of each one installed.
    """

    def __init__(self, package: ModuleType, group: str) -> None:
        self._group = group
        self._own = {
            module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")
        }

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._brought

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._own | self._brought))

    def __len__(self) -> int:
        return len(self._own | self._brought)

    @property
    def own(self) -> frozenset[str]:
        """Those that are modules of the package."""
        return frozenset(self._own)

    @cached_property
    def _brought(self) -> frozenset[str]:
        return frozenset(point.name for point in entry_points(group=self._group))


def load_plugin(package: ModuleType, group: str, name: str) -> Any:
    """The module's PLUGIN, or what the entry point names. Raises UsageError if there is none of the name."""
    known = PluginNames(package, group)
    if name in known.own:
        return importlib.import_module(f"{package.__name__}.{name}").PLUGIN
    for point in entry_points(group=group, name=name):
        return point.load()
    raise UsageError(f"{name}: no such plug-in in {group}", advice=did_you_mean(name, known))

"""Reading what a result may lack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def at(result: Mapping[str, Any], *path: str) -> Any:
    """What stands at the path; None where the result, perhaps an older one, does not have it."""
    found: Any = result
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else None
    return found

"""What another wish means for a pod that runs, in the recipe's own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from recipes.units import format_duration
from runners.stacking.billing import Billing, Replaced, differences
from stacks.values import Changes

_NAMES = {"recipe": "name", "ports": "ports"}
"""Of what is not below a recipe's `resources`, and is no limit."""
_READY = "makes ready"


def replaced(
    changes: Changes, before: Mapping[str, Any] | None, inputs: Mapping[str, Any], billing: Billing | None
) -> Replaced | None:
    """Why the pod is replaced; None if it is not. One that has ended by itself, as every other, is another pod."""
    step = changes.of("GpuPod")
    if step is None or step.op != "replace" or billing is None:
        return None
    because = tuple(_told((before or {}).get("wanted") or {}, inputs["wanted"]) if before else ())
    if billing.over:
        return Replaced(because=because, ends=billing.what)
    if not because:
        because = ("it is there no more, or nobody knows what it was made for",)
    return Replaced(because=because, ends=f"{billing.what} first, with what is loaded on it")


def _told(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for path, old, new in differences(before, now):
        if path == _READY:
            yield "its engine, its model or how they are made ready"
        else:
            yield f"{_name(path)} {_value(path, old)} → {_value(path, new)}"


def _name(path: str) -> str:
    return path if path.startswith("limits.") else _NAMES.get(path, f"resources.{path}")


def _value(path: str, value: Any) -> str:
    if value is None:
        return "nothing"
    if path.endswith("_duration") and isinstance(value, int | float):
        return format_duration(value)
    if path == "limits.max_cost":
        return f"${value:,.2f}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

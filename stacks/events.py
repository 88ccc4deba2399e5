"""What the engine tells of its steps, as changes and as lines for people."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from stacks.values import INNER_KINDS, Changes, Step

if TYPE_CHECKING:
    from pulumi.automation.events import EngineEvent, StepEventMetadata

_COLOUR = re.compile(r"<\{%.*?%\}>|\x1b\[[0-9;]*m")
_OPS = {
    "create-replacement": "replace",
    "delete-replaced": "replace",
    "discard-replaced": "replace",
    "read-replacement": "replace",
    "import": "create",
    "discard": "delete",
    "refresh": "read",
    "remove-pending-replace": "delete",
}
_DOING = {
    "create": ("makes", "made"),
    "update": ("changes", "changed"),
    "delete": ("deletes", "deleted"),
    "create-replacement": ("makes a new", "made a new"),
    "delete-replaced": ("deletes the old", "deleted the old"),
}


class Steps:
    """Hears the engine's events, in whatever thread; `said` is told lines for people."""

    def __init__(self, said: Callable[[str], None]) -> None:
        self._said = said
        self._steps: dict[str, Step] = {}
        self._since_s: dict[tuple[str, str], float] = {}
        self.errors: list[str] = []
        """What was said to be wrong, in order."""

    def hear(self, event: EngineEvent) -> None:
        if event.resource_pre_event is not None:
            self._begins(event.resource_pre_event.metadata, planning=bool(event.resource_pre_event.planning))
        elif event.res_outputs_event is not None:
            self._ends(event.res_outputs_event.metadata, planning=bool(event.res_outputs_event.planning))
        elif event.res_op_failed_event is not None:
            metadata = event.res_op_failed_event.metadata
            self._say(metadata, "failed")
        elif event.diagnostic_event is not None:
            self._diagnosed(event.diagnostic_event.severity, event.diagnostic_event.message)

    @property
    def changes(self) -> Changes:
        """As far as they are known; the engine's own resources left out."""
        return Changes(tuple(self._steps.values()))

    def _begins(self, metadata: StepEventMetadata, *, planning: bool) -> None:
        if _is_engines(metadata.type):
            return
        op = str(getattr(metadata.op, "value", metadata.op))
        before = self._steps.get(metadata.urn)
        changed = _changed(metadata)
        self._steps[metadata.urn] = Step(
            op="replace" if before is not None and before.op == "replace" else _OPS.get(op, op),
            type=kind_of(metadata.type),
            name=name_of(metadata.urn),
            urn=metadata.urn,
            changed=changed or (before.changed if before is not None else ()),
        )
        if not planning and op in _DOING:
            self._since_s[metadata.urn, op] = time.monotonic()
            self._say(metadata, _DOING[op][0])

    def _ends(self, metadata: StepEventMetadata, *, planning: bool) -> None:
        op = str(getattr(metadata.op, "value", metadata.op))
        since_s = self._since_s.pop((metadata.urn, op), None)
        if not planning and since_s is not None:
            self._say(metadata, _DOING[op][1], f" in {time.monotonic() - since_s:.1f} s")

    def _say(self, metadata: StepEventMetadata, what: str, more: str = "") -> None:
        kind = kind_of(metadata.type)
        if kind not in INNER_KINDS and not _is_engines(metadata.type):
            self._said(f"{what} {kind} {name_of(metadata.urn)}{more}")

    def _diagnosed(self, severity: str, message: str) -> None:
        text = bare(message)
        if severity == "error" and text:
            self.errors.append(text)


def bare(text: str) -> str:
    """Without the engine's colours."""
    return _COLOUR.sub("", text).strip()


def last_error(texts: list[str]) -> str:
    """The line that says most: of a traceback the last one, of several errors the first."""
    for text in texts:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines:
            return lines[-1].removeprefix("error: ")
    return ""


def marked_error(said: str) -> str:
    """The line of what a command said that it marks as the error, else all of it."""
    return next((line for line in said.splitlines() if line.startswith("error: ")), said)


def kind_of(type_: str) -> str:
    """`pulumi-python:dynamic/recipe:Volume` → Volume."""
    return type_.rpartition(":")[2].rpartition("/")[2]


def name_of(urn: str) -> str:
    """The resource's own name at the end of its URN."""
    return urn.rpartition("::")[2]


def _changed(metadata: StepEventMetadata) -> tuple[str, ...]:
    """The inputs that differ: as the provider says, else as their values do. A dynamic provider need not say it."""
    keys = {*(metadata.diffs or ()), *(metadata.detailed_diff or ()), *(metadata.keys or ())}
    if not keys and metadata.old is not None and metadata.new is not None:
        old, new = metadata.old.inputs or {}, metadata.new.inputs or {}
        keys = {key for key in {*old, *new} if old.get(key) != new.get(key)}
    return tuple(sorted(key for key in keys if not key.startswith("__")))


def _is_engines(type_: str) -> bool:
    return type_.startswith("pulumi:")

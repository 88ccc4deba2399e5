"""What a person sees of an operation: the lines that the real command prints where it has no terminal."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from .project import StackName
from .resources import STACK_TYPE, Resource
from .values import Properties, masked

MARKS = {
    "create": "+ ",
    "update": "~ ",
    "delete": "- ",
    "same": "  ",
    "replace": "+-",
    "create-replacement": "++",
    "delete-replaced": "--",
    "read": "> ",
    "refresh": "~ ",
}
DOING = {
    "create": ("creating", "created"),
    "update": ("updating", "updated"),
    "delete": ("deleting", "deleted"),
    "replace": ("replacing", "replaced"),
    "create-replacement": ("creating replacement", "created replacement"),
    "delete-replaced": ("deleting original", "deleted original"),
    "read": ("reading", "read"),
    "refresh": ("refreshing", "refreshed"),
}
COUNTED = {"create": "+ {} created", "update": "~ {} updated", "delete": "- {} deleted", "replace": "+-{} replaced"}
PLANNED = {
    "create": "+ {} to create",
    "update": "~ {} to update",
    "delete": "- {} to delete",
    "replace": "+-{} to replace",
}


@dataclass
class Display:
    """Prints lines as they come; the diagnostics are told again at the end."""

    stack: StackName
    dry_run: bool = False
    quiet: bool = False
    diagnostics: dict[str, list[str]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    _lock: Lock = field(default_factory=Lock)

    def line(self, text: str = "") -> None:
        if not self.quiet:
            with self._lock:
                sys.stdout.write(text + "\n")
                sys.stdout.flush()

    def title(self, doing: str) -> None:
        self.line(f"{doing} ({self.stack.name}):")

    def begins(self, op: str, subject: Resource) -> None:
        if op in DOING and not self.dry_run:
            self.line(f" {MARKS[op]} {_who(subject)} {DOING[op][0]} (0s)")

    def ends(self, op: str, subject: Resource, changed: list[str]) -> None:
        diff = f" [diff: {','.join('~' + key for key in changed)}]" if changed else ""
        if self.dry_run and op in DOING:
            self.line(f" {MARKS[op]} {_who(subject)} {op}{diff}")
        elif op in DOING:
            self.line(f" {MARKS[op]} {_who(subject)} {DOING[op][1]} (0.00s){diff}")

    def fails(self, op: str, subject: Resource) -> None:
        self.line(f" {MARKS.get(op, '  ')} {_who(subject)} **{DOING.get(op, (op,))[0]} failed** 1 error")

    def diagnostic(self, severity: str, message: str, urn: str, *, ephemeral: bool) -> None:
        if severity == "debug" or ephemeral:
            return
        told = message if severity.startswith("info") else f"{severity}: {message}"
        self.line(f"    {_who_is(urn, self.stack)} {told.splitlines()[0] if told else ''}")
        self.diagnostics.setdefault(urn, []).append(told)

    def ending(self, outputs: Properties, changes: Mapping[str, int], *, show_outputs: bool = True) -> None:
        """Diagnostics, outputs, how many of what, and how long."""
        self._diagnostics()
        if outputs and show_outputs:
            self.line("Outputs:")
            width = max(map(len, outputs))
            for name, value in sorted(masked(outputs).items()):
                self.line(f"    {name:{width}}: {json.dumps(value)}")
            self.line()
        self.line("Resources:")
        for op, text in (PLANNED if self.dry_run else COUNTED).items():
            if changes.get(op):
                self.line(f"    {text.format(changes[op])}")
        if changes.get("same"):
            self.line(f"    {changes['same']} unchanged")
        self.line()
        if not self.dry_run:
            self.line(f"Duration: {int(time.monotonic() - self.began) or 1}s")

    def _diagnostics(self) -> None:
        if self.diagnostics:
            self.line("Diagnostics:")
        for urn, messages in self.diagnostics.items():
            kind, _, name = _who_is(urn, self.stack).rpartition(" ")
            self.line(f"  {kind} ({name}):")
            for message in messages:
                self.line(re.sub("^", "    ", message.rstrip(), flags=re.MULTILINE))
                self.line()


def _who(subject: Resource) -> str:
    return f"{subject.type} {subject.name}"


def _who_is(urn: str, stack: StackName) -> str:
    """Whom a diagnostic is about: the stack, if it is nobody else."""
    if not urn:
        return f"{STACK_TYPE} {stack.project}-{stack.name}"
    return f"{urn.split('::')[2].rsplit('$', 1)[-1]} {urn.rsplit('::', 1)[1]}"


def as_document(planned: list[dict[str, Any]], changes: Mapping[str, int], said: Mapping[str, list[str]]) -> str:
    """`preview --json`."""
    steps = [
        {
            "op": step["op"],
            "urn": step["urn"],
            "provider": step["provider"],
            **({"oldState": step["old"]} if step["old"] else {}),
            **({"newState": step["new"]} if step["new"] else {}),
            "diffReasons": step.get("diffs"),
            "replaceReasons": step.get("keys"),
            "detailedDiff": step.get("detailedDiff"),
        }
        for step in planned
    ]
    diagnostics = [{"urn": urn, "message": text} for urn, texts in said.items() for text in texts]
    return json.dumps({"steps": steps, "diagnostics": diagnostics, "changeSummary": changes}, indent=4)

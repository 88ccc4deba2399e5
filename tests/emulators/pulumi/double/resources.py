"""A resource in the state, and the names that resources have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from .project import StackName
from .values import Properties

STACK_TYPE = "pulumi:pulumi:Stack"
KEYS = {
    "property_dependencies": "propertyDependencies",
    "additional_secret_outputs": "additionalSecretOutputs",
    "retain_on_delete": "retainOnDelete",
    "pending_replacement": "pendingReplacement",
    "init_errors": "initErrors",
    "delete_with": "deletedWith",
}


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One entry of the state's `resources`."""

    urn: str
    type: str
    custom: bool = False
    delete: bool = False
    id: str = ""
    inputs: Properties = field(default_factory=dict)
    outputs: Properties = field(default_factory=dict)
    parent: str = ""
    protect: bool = False
    external: bool = False
    dependencies: Sequence[str] = ()
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    additional_secret_outputs: Sequence[str] = ()
    provider: str = ""
    retain_on_delete: bool = False
    pending_replacement: bool = False
    created: str = ""
    modified: str = ""

    @property
    def name(self) -> str:
        return self.urn.rsplit("::", 1)[1]

    @property
    def is_provider(self) -> bool:
        return self.type.startswith("pulumi:providers:")

    @property
    def leans_on(self) -> set[str]:
        """URNs of what has to be there before it, and to go after it."""
        named = {urn for urns in self.property_dependencies.values() for urn in urns}
        provider = self.provider.rsplit("::", 1)[0]
        return {urn for urn in (*self.dependencies, *named, self.parent, provider) if urn}

    def as_json(self) -> dict[str, Any]:
        """With the schema's keys; what is empty is left out, except what every entry has."""
        found = {KEYS.get(one.name, one.name): getattr(self, one.name) for one in fields(self)}
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in found.items()
            if value or key == "custom"
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Resource:
        names = {one.name for one in fields(cls)}
        back = {new: old for old, new in KEYS.items()}
        known = {back.get(key, key): value for key, value in entry.items()}
        return cls(**{key: value for key, value in known.items() if key in names})

    def but(self, **changes: Any) -> Resource:
        return replace(self, **changes)


def urn_of(stack: StackName, kind: str, name: str, parent: str) -> str:
    """`urn:pulumi:<stack>::<project>::<parent's types>$<type>::<name>`."""
    above = parent.split("::")[2] if parent else ""
    types = f"{above}${kind}" if above and not above.endswith(STACK_TYPE) else kind
    return f"urn:pulumi:{stack.name}::{stack.project}::{types}::{name}"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

"""What a program asks for: a registration, read from the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .project import StackName
from .resources import Resource, urn_of
from .values import Properties, plain_outputs
from .wire import from_struct


@dataclass(frozen=True)
class Goal:
    """A resource as the program wants it."""

    urn: str
    type: str
    name: str
    custom: bool
    inputs: Properties
    parent: str
    protect: bool
    dependencies: Sequence[str]
    property_dependencies: dict[str, list[str]]
    delete_before_replace: bool | None
    ignore_changes: Sequence[str]
    replace_on_changes: Sequence[str]
    additional_secret_outputs: Sequence[str]
    aliases: Sequence[str]
    retain_on_delete: bool

    @classmethod
    def read(cls, stack: StackName, request: Any) -> Goal:
        return cls(
            urn=urn_of(stack, request.type, request.name, request.parent),
            type=request.type,
            name=request.name,
            custom=request.custom,
            inputs=plain_outputs(from_struct(request.object)),
            parent=request.parent,
            protect=request.protect,
            dependencies=tuple(sorted(request.dependencies)),
            property_dependencies={key: sorted(one.urns) for key, one in request.propertyDependencies.items()},
            delete_before_replace=request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None,
            ignore_changes=tuple(request.ignoreChanges),
            replace_on_changes=tuple(request.replaceOnChanges),
            additional_secret_outputs=tuple(request.additionalSecretOutputs),
            aliases=tuple(request.aliasURNs),
            retain_on_delete=request.retainOnDelete,
        )

    def ignoring(self, old: Properties) -> Properties:
        """Its inputs, with the old values of those whose changes are to be ignored."""
        everything = "*" in self.ignore_changes
        kept = {key for key in {*old, *self.inputs} if everything or key in self.ignore_changes}
        return {
            **{key: value for key, value in self.inputs.items() if key not in kept},
            **{key: old[key] for key in kept if key in old},
        }

    def resource(self, inputs: Properties, *, provider: str = "", old: Resource | None = None) -> Resource:
        """Its entry in the state before anything was done, with what the old one knows of itself."""
        return Resource(
            urn=self.urn,
            type=self.type,
            custom=self.custom,
            id=old.id if old else "",
            inputs=inputs,
            outputs=old.outputs if old else {},
            parent=self.parent,
            protect=self.protect,
            dependencies=self.dependencies,
            property_dependencies=self.property_dependencies,
            additional_secret_outputs=self.additional_secret_outputs,
            provider=provider,
            retain_on_delete=self.retain_on_delete,
            created=old.created if old else "",
            modified=old.modified if old else "",
        )

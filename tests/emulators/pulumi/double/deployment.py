"""An operation on a stack: which step each registration needs, and what the program no longer has."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import TypeVar

from .errors import Canceled, UpdateFailed
from .goals import Goal
from .project import StackName
from .provider import Difference, ProviderFailed
from .resources import STACK_TYPE, Resource, urn_of
from .steps import Steps
from .values import UNKNOWN, Properties, changed_keys

T = TypeVar("T")
PACKAGE = "pulumi-python"
CANNOT_DELETE = (
    'resource "{urn}" cannot be deleted\nbecause it is protected. To unprotect the resource, either remove the '
    "`protect` flag from the resource in your Pulumi program and run `pulumi up`, or use the command:\n"
    "`pulumi state unprotect '{urn}'`"
)
CANNOT_REPLACE = (
    'unable to replace resource "{urn}"\nas it is currently marked for protection. To unprotect the resource, remove '
    "the `protect` flag from the resource in your Pulumi program and run `pulumi up`"
)


@dataclass
class Deployment:
    """Takes registrations, and at the end deletes what nobody registered."""

    stack: StackName
    steps: Steps
    config: Properties
    replace: Iterable[str] = ()
    _seen: dict[str, Resource] = field(default_factory=dict)
    _exports: Properties | None = None
    _planning: Lock = field(default_factory=Lock)

    @property
    def olds(self) -> dict[str, Resource]:
        return {one.urn: one for one in self.steps.snapshot.base if not one.delete}

    def register(self, goal: Goal) -> Resource:
        """The resource as it is now. Raises UpdateFailed if it could not be made so."""
        with self._planning:
            if self.steps.ended:
                raise Canceled
            if goal.urn in self._seen:
                self.steps.fail(goal.urn, f"Duplicate resource URN '{goal.urn}'; try giving it a unique name")
                raise UpdateFailed
            old = next((self.olds[urn] for urn in (goal.urn, *goal.aliases) if urn in self.olds), None)
            self._seen[goal.urn] = goal.resource(goal.inputs)
            act = self._plan(goal, old)
        made = act()
        self._seen[goal.urn] = made
        return made

    def read(self, goal: Goal, identity: str) -> Resource:
        """A resource that is not this stack's."""
        with self._planning:
            provider = self._default_provider()
        new = goal.resource(goal.inputs, provider=provider).but(id=identity, external=True, custom=True)
        found = self.steps.read(new, self.olds.get(goal.urn))
        self._seen[goal.urn] = found
        return found

    def outputs(self, urn: str, outputs: Properties) -> None:
        """What a component exports, at once; what the stack exports waits for the end."""
        was = self._seen[urn]
        if was.type == STACK_TYPE:
            self._exports = outputs
        else:
            self._set_outputs(was, outputs)

    def finish(self) -> None:
        """The stack's outputs; after a failure those that are missing now stay as they were."""
        stack = next((one for one in self._seen.values() if one.type == STACK_TYPE), None)
        if stack is not None and self._exports is not None:
            kept = stack.outputs if self.steps.failed or self.steps.stopping.is_set() else {}
            self._set_outputs(stack, {**kept, **self._exports})

    def _set_outputs(self, was: Resource, outputs: Properties) -> None:
        now = was.but(outputs=outputs)
        self._seen[was.urn] = now
        self.steps.snapshot.change(was, now)
        self.steps.events.ends("same", was, now)

    def exported(self) -> Properties:
        """The stack's outputs."""
        stack = [one for one in self.steps.snapshot.resources if one.type == STACK_TYPE and not one.delete]
        return stack[0].outputs if stack else {}

    def refresh_all(self) -> None:
        """Asks what became of each resource; what is gone leaves the state."""
        for one in list(self.steps.snapshot.base):
            if one.custom and not one.is_provider and not one.delete:
                self.steps.refresh(one)

    def delete_the_rest(self) -> None:
        """Deletes what was replaced or is no longer registered: first what leans on others."""
        doomed = [one for one in self.steps.snapshot.base if one.delete or one.urn not in self._seen]
        kept = [one for one in doomed if one.protect and not one.delete]
        for one in kept:
            self.steps.fail(one.urn, CANNOT_DELETE.format(urn=one.urn), ends=False)
        self._delete_all(doomed, {urn for one in kept for urn in (one.urn, *one.leans_on)})

    def _delete_all(self, doomed: list[Resource], kept: set[str]) -> None:
        while doomed and not self.steps.ended:
            leaned_on = {urn for one in doomed for urn in one.leans_on if urn != one.urn} | kept
            free = [one for one in doomed if one.urn not in leaned_on]
            if not free:
                return
            with ThreadPoolExecutor(len(free)) as pool:
                kept = kept.union(*pool.map(self._delete, free))
            doomed = [one for one in doomed if not any(one is tried for tried in free)]

    def _delete(self, old: Resource) -> set[str]:
        """URNs that have to stay because this could not be deleted."""
        try:
            if old.pending_replacement:
                self.steps.snapshot.drop(old)
            else:
                self.steps.delete(old, op="delete-replaced" if old.delete else "delete")
        except UpdateFailed:
            return {old.urn, *old.leans_on}
        return set()

    def _plan(self, goal: Goal, old: Resource | None) -> Callable[[], Resource]:
        """The step as something to call, so that others can be planned while it runs."""
        if not goal.custom:
            new = goal.resource(goal.inputs, old=old)
            return lambda: self.steps.same(old, new) if old else self.steps.create(new)
        provider = self._default_provider()
        gone = old is None or old.pending_replacement
        inputs = self._checked(goal, None if gone else old)
        if old is None:
            return lambda: self.steps.create(goal.resource(inputs, provider=provider))
        if gone:
            return lambda: self._create_again(old, goal.resource(inputs, provider=provider), [])
        return self._plan_change(goal, old, goal.resource(inputs, provider=provider, old=old))

    def _plan_change(self, goal: Goal, old: Resource, new: Resource) -> Callable[[], Resource]:
        difference = self._difference(goal, old, new)
        if not difference.changes and not difference.replaces:
            return lambda: self.steps.same(old, new)
        if not difference.replaces:
            return lambda: self.steps.update(old, new, difference.keys)
        if old.protect and new.protect:
            self.steps.fail(goal.urn, CANNOT_REPLACE.format(urn=goal.urn))
            raise UpdateFailed
        replacement = goal.resource(self._checked(goal, None), provider=new.provider)
        wish = goal.delete_before_replace
        if difference.delete_before_replace if wish is None else wish:
            return lambda: self._delete_then_create(old, replacement, difference.replaces)
        return lambda: self._create_then_delete(old, replacement, difference.replaces)

    def _create_then_delete(self, old: Resource, new: Resource, keys: list[str]) -> Resource:
        """The old one, now marked, is deleted at the end with the rest."""
        made = self.steps.replace(old, new, keys)
        self.steps.told("replace", old, made, keys)
        return made

    def _delete_then_create(self, old: Resource, new: Resource, keys: list[str]) -> Resource:
        for dependent in self._falls_with(old):
            self.steps.delete(dependent, op="delete-replaced", keep=True)
        gone = self.steps.delete(old, op="delete-replaced", keep=True)
        return self._create_again(gone, new, keys)

    def _create_again(self, gone: Resource, new: Resource, keys: list[str]) -> Resource:
        self.steps.told("replace", gone, new, keys)
        return self.steps.create(new, old=gone, op="create-replacement", keys=keys)

    def _falls_with(self, old: Resource) -> list[Resource]:
        """What would have to be replaced if the values from `old` were not known, the last one first."""
        falling: list[Resource] = []
        for one in self.steps.snapshot.base:
            above = {old.urn, *(other.urn for other in falling)}
            if one.delete or not one.custom or one.is_provider or one is old or not above & one.leans_on:
                continue
            hidden = {key for key, urns in one.property_dependencies.items() if above & set(urns)}
            inputs = {key: UNKNOWN if key in hidden else value for key, value in one.inputs.items()}
            if hidden and self._diff(one, inputs).replaces:
                falling.append(one)
        return falling[::-1]

    def _diff(self, old: Resource, inputs: Properties) -> Difference:
        return self._asked(old.urn, lambda: self.steps.provider.diff(old.urn, old.id, old.inputs, old.outputs, inputs))

    def _checked(self, goal: Goal, old: Resource | None) -> Properties:
        olds = old.inputs if old else {}
        inputs, wrong = self._asked(goal.urn, lambda: self.steps.provider.check(goal.urn, olds, goal.ignoring(olds)))
        for problem in wrong:
            self.steps.fail(goal.urn, f"{goal.type} resource '{goal.name}'{problem}")
        if wrong:
            raise UpdateFailed
        return inputs

    def _difference(self, goal: Goal, old: Resource, new: Resource) -> Difference:
        found = self._diff(old, new.inputs)
        if goal.urn in self.replace:
            return Difference(True, ["id"], found.delete_before_replace, found.keys)
        changed = changed_keys(old.inputs, new.inputs)
        on = [key for key in changed if key in goal.replace_on_changes or "*" in goal.replace_on_changes]
        return Difference(found.changes or bool(on), [*found.replaces, *on], found.delete_before_replace, found.keys)

    def _asked(self, urn: str, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except ProviderFailed as error:
            self.steps.fail(urn, str(error))
            raise UpdateFailed from None

    def _default_provider(self) -> str:
        """The reference of the package's provider, which has an entry of its own in the state."""
        kind = f"pulumi:providers:{PACKAGE}"
        urn = urn_of(self.stack, kind, "default", "")
        if urn not in self._seen:
            old = self.olds.get(urn)
            identity = old.id if old else UNKNOWN if self.steps.dry_run else str(uuid.uuid4())
            entry = Resource(urn=urn, type=kind, custom=True, id=identity, inputs=self.config, outputs=self.config)
            begun = None if old else self.steps.snapshot.begin("creating", entry)
            self.steps.snapshot.put(entry, instead_of=old, ends=begun)
            self._seen[urn] = entry
        return f"{urn}::{self._seen[urn].id}"

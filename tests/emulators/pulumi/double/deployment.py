"""An operation on a stack: which step each registration needs, and what the program no longer has."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock

from .errors import Canceled, UpdateFailed
from .goals import Goal
from .project import StackName
from .provider import Difference, ProviderFailed
from .resources import STACK_TYPE, Resource, urn_of
from .steps import Steps
from .values import UNKNOWN, Properties, changed_keys

PACKAGE = "pulumi-python"
PROTECTED = (
    'unable to delete resource "{urn}"\nas it is currently marked for protection. To unprotect the resource, either '
    "remove the `protect` flag from the resource in your Pulumi program and run `pulumi up`, or use the command:\n"
    "`pulumi state unprotect '{urn}'`"
)


@dataclass
class Deployment:
    """Takes registrations, and at the end deletes what nobody registered."""

    stack: StackName
    steps: Steps
    config: Properties
    replace: Iterable[str] = ()
    _seen: dict[str, Resource] = field(default_factory=dict)
    _ahead: set[str] = field(default_factory=set)
    """URNs of what was deleted because something that it leans on is deleted before its replacement is made."""
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
        old = self.olds.get(goal.urn)
        new = goal.resource(goal.inputs, provider=self._default_provider()).but(id=identity, external=True, custom=True)
        found = self.steps.read(new.but(outputs={}), old)
        self._seen[goal.urn] = found
        return found

    def outputs(self, urn: str, outputs: Properties) -> None:
        """What a component or the stack exports."""
        was = self._seen[urn]
        now = was.but(outputs=outputs)
        self._seen[urn] = now
        self.steps.snapshot.change(was, now)
        self.steps.events.ends("same", was, now)

    def exported(self) -> Properties:
        """The stack's outputs."""
        stack = [one for one in self.steps.snapshot.resources if one.type == STACK_TYPE and not one.delete]
        return stack[0].outputs if stack else {}

    def delete_the_rest(self) -> None:
        """Deletes what was replaced or is no longer registered: first what leans on others."""
        doomed = [one for one in self.steps.snapshot.base if one.delete or one.urn not in self._seen]
        for one in doomed:
            if one.protect and not one.delete:
                self.steps.fail(one.urn, PROTECTED.format(urn=one.urn))
        self._delete_all(doomed)

    def refresh_all(self) -> None:
        """Asks what became of each resource; what is gone leaves the state."""
        mine = [one for one in self.steps.snapshot.base if one.custom and not one.is_provider and not one.delete]
        for one in mine:
            try:
                self.steps.refresh(one)
            except UpdateFailed:
                return

    def _delete_all(self, doomed: list[Resource]) -> None:
        while doomed and not self.steps.ended:
            leaned_on = {urn for one in doomed for urn in one.leans_on if urn != one.urn}
            free = [one for one in doomed if one.urn not in leaned_on] or doomed[-1:]
            with ThreadPoolExecutor(max(len(free), 1)) as pool:
                list(pool.map(self._delete_quietly, free))
            doomed = [one for one in doomed if not any(one is gone for gone in free)]

    def _delete_quietly(self, old: Resource) -> None:
        try:
            if old.pending_replacement:
                self.steps.snapshot.drop(old)
            else:
                self.steps.delete(old, op="delete-replaced" if old.delete else "delete")
        except UpdateFailed:
            pass

    def _plan(self, goal: Goal, old: Resource | None):  # type: ignore[no-untyped-def]
        """The step as something to call, so that others can be planned while it runs."""
        if not goal.custom:
            new = goal.resource(goal.inputs, old=old)
            return lambda: self.steps.same(old, new) if old else self.steps.create(new)
        provider = self._default_provider()
        inputs = self._checked(goal, old)
        if old is None or old.pending_replacement:
            new = goal.resource(inputs, provider=provider)
            return lambda: self.steps.create(new, old=old, op="create" if old is None else "create-replacement")
        return self._plan_change(goal, old, goal.resource(inputs, provider=provider, old=old))

    def _plan_change(self, goal: Goal, old: Resource, new: Resource):  # type: ignore[no-untyped-def]
        difference = self._difference(goal, old, new)
        changed = difference.keys or changed_keys(old.inputs, new.inputs)
        if not difference.changes and not difference.replaces:
            return lambda: self.steps.same(old, new)
        if not difference.replaces:
            return lambda: self.steps.update(old, new, changed)
        if old.protect:
            self.steps.fail(goal.urn, f'unable to replace resource "{goal.urn}"\n{PROTECTED.split(chr(10))[1]}')
            raise UpdateFailed
        new = goal.resource(self._checked(goal, None), provider=new.provider)
        first = goal.delete_before_replace
        if difference.delete_before_replace if first is None else first:
            return lambda: self._delete_then_create(old, new, difference.replaces)
        return lambda: self._create_then_delete(old, new, difference.replaces)

    def _create_then_delete(self, old: Resource, new: Resource, keys: list[str]) -> Resource:
        made, _ = self.steps.replace(old, new)
        self.steps.told("replace", old, made, keys)
        return made

    def _delete_then_create(self, old: Resource, new: Resource, keys: list[str]) -> Resource:
        for dependent in self._falls_with(old):
            self._seen.pop(dependent.urn, None)
            self.steps.delete(dependent, op="delete-replaced", keep=True)
        gone = self.steps.delete(old, op="delete-replaced", keep=True)
        self.steps.told("replace", old, new, keys)
        return self.steps.create(new, old=gone, op="create-replacement")

    def _falls_with(self, old: Resource) -> list[Resource]:
        """What has to be replaced because this is: what would be, if the values from it were not known."""
        falling: list[Resource] = []
        for one in self.steps.snapshot.base:
            above = {old.urn, *(other.urn for other in falling)}
            if one.delete or not one.custom or one.is_provider or one is old or not above & one.leans_on:
                continue
            hidden = {key for key, urns in one.property_dependencies.items() if above & set(urns)}
            inputs = {key: UNKNOWN if key in hidden else value for key, value in one.inputs.items()}
            if hidden and self.steps.provider.diff(one.urn, one.id, one.inputs, one.outputs, inputs).replaces:
                falling.append(one)
        return falling[::-1]

    def _checked(self, goal: Goal, old: Resource | None) -> Properties:
        olds = old.inputs if old else {}
        inputs, wrong = self._asked(goal.urn, lambda: self.steps.provider.check(goal.urn, olds, goal.ignoring(olds)))
        for reason in wrong:
            self.steps.fail(goal.urn, f"{goal.type} resource '{goal.name}' has a problem: {reason}")
        if wrong:
            raise UpdateFailed
        return inputs

    def _difference(self, goal: Goal, old: Resource, new: Resource) -> Difference:
        found: Difference = self._asked(
            goal.urn, lambda: self.steps.provider.diff(old.urn, old.id, old.inputs, old.outputs, new.inputs)
        )
        if goal.urn in self.replace:
            return Difference(True, ["id"], found.delete_before_replace, found.keys)
        changed = changed_keys(old.inputs, new.inputs)
        on = [key for key in changed if key in goal.replace_on_changes or "*" in goal.replace_on_changes]
        return Difference(found.changes or bool(on), [*found.replaces, *on], found.delete_before_replace, found.keys)

    def _asked(self, urn: str, ask):  # type: ignore[no-untyped-def]
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
            identity = UNKNOWN if self.steps.dry_run else str(uuid.uuid4())
            entry = Resource(urn=urn, type=kind, custom=True, id=old.id if old else identity, inputs=self.config)
            entry = entry.but(outputs=self.config)
            self._seen[urn] = self.steps.same(old, entry) if old else self._first(entry)
        return f"{urn}::{self._seen[urn].id}"

    def _first(self, provider: Resource) -> Resource:
        self.steps.snapshot.put(provider)
        return provider

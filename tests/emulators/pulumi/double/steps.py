"""The steps themselves: each tells, asks the provider, and has the state written before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, Event
from typing import Any, TypeVar

from .errors import Canceled, UpdateFailed
from .events import Events
from .moments import moment
from .provider import DynamicProvider, ProviderFailed
from .resources import Resource, now
from .snapshot import Operation, Snapshot
from .values import Properties

T = TypeVar("T")
NOT_COUNTED = ("create-replacement", "delete-replaced")


@dataclass
class Steps:
    """Runs steps, several at once; after one has failed, or after a signal, none begins."""

    snapshot: Snapshot
    provider: DynamicProvider
    events: Events
    dry_run: bool
    continue_on_error: bool = False
    changes: Counter[str] = field(default_factory=Counter)
    stopping: Event = field(default_factory=Event)
    failed: bool = False
    _broken: bool = False
    _running: int = 0
    _idle: Condition = field(default_factory=Condition)

    def same(self, old: Resource, new: Resource) -> Resource:
        with self._step("same", old, new):
            self.snapshot.put(new, instead_of=old)
        return new

    def create(
        self, new: Resource, *, old: Resource | None = None, op: str = "create", keys: list[str] | None = None
    ) -> Resource:
        """A new resource. `old` is what it replaces and what is gone already."""
        with self._step(op, old, new, keys=keys) as step:
            if not new.custom:
                step.operation = self.snapshot.begin("creating", new)
                made = new.but(created=now(), modified=now())
            elif self.dry_run:
                made = new.but(outputs=new.inputs)
            else:
                identity, outputs = self._asked(step, "create", new, lambda: self._create(new))
                made = new.but(id=identity, outputs=outputs, created=now(), modified=now())
            step.end(made, lambda: self.snapshot.put(made, instead_of=old, ends=step.operation))
        return made

    def replace(self, old: Resource, new: Resource, keys: list[str]) -> Resource:
        """The replacement beside the old one, which is marked for deletion."""
        with self._step("create-replacement", old, new, keys=keys) as step:
            if self.dry_run:
                made = new.but(outputs=new.inputs, id="")
            else:
                identity, outputs = self._asked(step, "create", new, lambda: self._create(new))
                made = new.but(id=identity, outputs=outputs, created=now(), modified=now())
            step.end(made, lambda: self.snapshot.put_beside(made, old, ends=step.operation))
        return made

    def update(self, old: Resource, new: Resource, changed: list[str]) -> Resource:
        with self._step("update", old, new, changed) as step:
            if self.dry_run:
                made = new.but(outputs=new.inputs)
            else:
                made = new.but(outputs=self._asked(step, "update", new, lambda: self._update(old, new)), modified=now())
            step.end(made, lambda: self.snapshot.put(made, instead_of=old, ends=step.operation))
        return made

    def delete(self, old: Resource, *, op: str = "delete", keep: bool = False) -> Resource:
        """Deletes it. With `keep` the entry stays, as one whose replacement is still to be made."""
        with self._step(op, old, None) as step:
            needs_provider = old.custom and not old.is_provider and not old.external and not old.retain_on_delete
            if needs_provider and not self.dry_run:
                self._asked(step, "delete", old, lambda: self._delete(old))
            if keep:
                gone = old.but(pending_replacement=True)
                step.end(None, lambda: self.snapshot.change(old, gone, ends=step.operation))
                return gone
            step.end(None, lambda: self.snapshot.drop(old, ends=step.operation))
        return old

    def refresh(self, old: Resource) -> Resource | None:
        """What it is now, or None if it is gone."""
        with self._step("refresh", old, old) as step:
            identity, inputs, outputs = self._asked(step, "read", old, lambda: self._read(old))
            if not identity:
                step.end(None, lambda: self.snapshot.drop(old, ends=step.operation))
                return None
            found = old.but(id=identity, inputs=inputs, outputs=outputs)
            step.end(found, lambda: self.snapshot.change(old, found, ends=step.operation))
        return found

    def read(self, new: Resource, old: Resource | None) -> Resource:
        """What another has made, and this program only looks at."""
        with self._step("read", old, new) as step:
            identity, _, outputs = self._asked(step, "read", new, lambda: self._read(new))
            if not identity:
                raise ProviderFailed(f"resource '{new.id}' does not exist")
            found = new.but(id=identity, outputs=outputs)
            step.end(found, lambda: self.snapshot.put(found, instead_of=old, ends=step.operation))
        return found

    def told(self, op: str, old: Resource, new: Resource, keys: list[str]) -> None:
        """A step in name only: that a resource is replaced is made of its creation and its deletion."""
        with self._step(op, old, new, keys=keys):
            pass

    def fail(self, urn: str, text: str, *, ends: bool = True) -> None:
        """What went wrong is told, and with `ends` nothing new begins."""
        self.failed = True
        self._broken |= ends
        self.events.diagnostic("error", text, urn)

    @property
    def ended(self) -> bool:
        return self.stopping.is_set() or (self._broken and not self.continue_on_error)

    def settle(self) -> None:
        """Waits for the steps that run."""
        with self._idle:
            self._idle.wait_for(lambda: self._running == 0)

    @contextmanager
    def _step(
        self,
        op: str,
        old: Resource | None,
        new: Resource | None,
        changed: list[str] | None = None,
        keys: list[str] | None = None,
    ) -> Iterator[_Step]:
        with self._idle:
            if self.ended:
                raise Canceled
            self._running += 1
        step = _Step(new)
        more = _differences(changed or [], keys or [])
        internal = (new or old).is_provider  # type: ignore[union-attr]
        try:
            if not internal:
                self.events.begins(op, old, new, **more)
            yield step
            if not internal:
                self.events.ends(op, old, step.result, **more)
                self.changes[op] += op not in NOT_COUNTED
            if step.write is not None:  # only now, as the real engine does: what people see comes first
                step.write()
        except ProviderFailed as error:
            self.fail((new or old).urn, str(error))  # type: ignore[union-attr]
            self.events.fails(op, old, new)
            raise UpdateFailed from None
        finally:
            self.snapshot.abandon(step.operation)
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _asked(self, step: _Step, what: str, subject: Resource, ask: Callable[[], T]) -> T:
        doing = {"create": "creating", "update": "updating", "delete": "deleting", "read": "reading"}[what]
        step.operation = self.snapshot.begin(doing, subject)
        moment(f"before-{what}", subject.name)
        answer = ask()
        moment(f"after-{what}", subject.name)
        return answer

    def _create(self, new: Resource) -> tuple[str, Properties]:
        return self.provider.create(new.urn, new.inputs, list(new.additional_secret_outputs))

    def _update(self, old: Resource, new: Resource) -> Properties:
        secrets = list(new.additional_secret_outputs)
        return self.provider.update(new.urn, old.id, old.inputs, old.outputs, new.inputs, secrets)

    def _delete(self, old: Resource) -> None:
        self.provider.delete(old.urn, old.id, old.inputs, old.outputs)

    def _read(self, old: Resource) -> tuple[str, Properties, Properties]:
        secrets = list(old.additional_secret_outputs)
        return self.provider.read(old.urn, old.id, old.inputs, old.outputs, secrets)


def _differences(changed: list[str], keys: list[str]) -> dict[str, Any]:
    """What an event says of them: the inputs that differ, and those that a replacement is for."""
    if not changed:
        return {"keys": keys} if keys else {}
    return {"diffs": changed, "detailedDiff": {key: {"diffKind": "update", "inputDiff": True} for key in changed}}


@dataclass
class _Step:
    result: Resource | None
    operation: Operation | None = None
    write: Callable[[], None] | None = None

    def end(self, result: Resource | None, write: Callable[[], None]) -> None:
        """What has become of it, and how the state hears of that."""
        self.result, self.write = result, write

"""The state during an operation: what is there already, what was done, what is being done; written at each change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from .backend import VERSION, Backend
from .project import StackName, is_on
from .resources import Resource, now
from .secrets import Crypter

Operation = dict[str, Any]


@dataclass
class Snapshot:
    """The entries of the last state that are still there (`base`), and those of this operation (`news`)."""

    backend: Backend
    stack: StackName
    crypter: Crypter
    base: list[Resource]
    pending: list[Operation]
    """Creates that an earlier operation began and never ended: nobody knows whether they happened."""
    writes: bool = True
    """False in a preview."""
    news: list[Resource] = field(default_factory=list)
    _running: list[Operation] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def load(cls, backend: Backend, stack: StackName, crypter: Crypter, *, writes: bool = True) -> Snapshot:
        latest = crypter.opened(backend.load(stack) or {})
        base = [Resource.from_json(entry) for entry in latest.get("resources", [])]
        begun = latest.get("pending_operations") or []
        return cls(backend, stack, crypter, base, [one for one in begun if one["type"] == "creating"], writes)

    @property
    def resources(self) -> list[Resource]:
        return [*self.news, *self.base]

    def begin(self, kind: str, resource: Resource) -> Operation:
        """The state says from now on that this runs: what is killed in it stays as a pending operation."""
        operation = {"resource": resource.as_json(), "type": kind}
        with self._changing(None):
            self._running.append(operation)
        return operation

    def abandon(self, operation: Operation | None) -> None:
        """The operation has failed: nothing came of it."""
        if operation is not None and self._is_running(operation):
            with self._changing(operation):
                pass

    def put(self, new: Resource, *, instead_of: Resource | None = None, ends: Operation | None = None) -> None:
        """A new entry; the old one goes, if there is one. That the operation has ended is written with it."""
        with self._changing(ends):
            self.news.append(new)
            if instead_of is not None:
                self._drop(instead_of)

    def put_beside(self, new: Resource, old: Resource, *, ends: Operation | None) -> None:
        """A replacement: the old entry stays, marked for deletion."""
        with self._changing(ends):
            self.news.append(new)
            self.base[self._index(old)] = old.but(delete=True)

    def change(self, old: Resource, new: Resource, *, ends: Operation | None = None) -> None:
        with self._changing(ends):
            entries = self.news if any(one is old for one in self.news) else self.base
            entries[[one is old for one in entries].index(True)] = new

    def drop(self, old: Resource, *, ends: Operation | None = None) -> None:
        with self._changing(ends):
            self._drop(old)

    def clear_pending(self) -> None:
        with self._changing(None):
            self.pending.clear()

    @contextmanager
    def _changing(self, ends: Operation | None) -> Iterator[None]:
        with self._lock:
            yield
            if ends is not None:
                self._running = [one for one in self._running if one is not ends]
            if not is_on("PULUMI_SKIP_CHECKPOINTS"):
                self._save()

    def close(self) -> None:
        """What was not written at each step."""
        if is_on("PULUMI_SKIP_CHECKPOINTS"):
            self._save()

    def _save(self) -> None:
        if self.writes:
            self.backend.save(self.stack, self.crypter.sealed(self.deployment()))

    def _is_running(self, operation: Operation) -> bool:
        return any(one is operation for one in self._running)

    def _drop(self, old: Resource) -> None:
        del self.base[self._index(old)]

    def _index(self, old: Resource) -> int:
        return [one is old for one in self.base].index(True)

    def deployment(self) -> dict[str, Any]:
        """What `pulumi stack export` calls the deployment, with secrets in clear (`sealed` hides them)."""
        return deployment_of(self.crypter.state, self.resources, [*self.pending, *self._running])


def deployment_of(salt: str, resources: list[Resource], operations: list[dict[str, Any]]) -> dict[str, Any]:
    at = now()
    entries = {"resources": [one.as_json() for one in resources], "pending_operations": operations}
    return {
        "manifest": {"time": at, "magic": hashlib.sha256(at.encode()).hexdigest(), "version": VERSION},
        "secrets_providers": {"type": "passphrase", "state": {"salt": salt}},
        **{key: several for key, several in entries.items() if several},
        "metadata": {},
    }

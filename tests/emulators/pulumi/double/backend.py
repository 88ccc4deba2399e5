"""The state's store in a folder (file://): checkpoints, locks and history, laid out as the real one does.

Beside each of its files lies one with its attributes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CommandFailed, NoSuchStack
from .project import Project, StackName, is_on, pulumi_home, user, write_whole
from .resources import now

VERSION = "v" + os.environ.get("ENGINE_DOUBLE_VERSION", "3.0.0")
LOCKED = (
    "the stack is currently locked by {count} lock(s). Either wait for the other process(es) to end or delete the lock "
    "file with `pulumi cancel`."
)


@dataclass(frozen=True)
class Backend:
    """A folder's `.pulumi`."""

    root: Path

    @classmethod
    def current(cls, project: Project | None) -> Backend:
        """What PULUMI_BACKEND_URL, the project or the last login names."""
        url = os.environ.get("PULUMI_BACKEND_URL") or (project and project.backend_url()) or _logged_in()
        if not url or not url.startswith("file://"):
            raise CommandFailed(f"the double keeps states in file:// only, not in {url or 'Pulumi Cloud'}")
        folder = Path(url.removeprefix("file://")).expanduser()
        if not folder.is_dir():
            raise CommandFailed(f"unable to open bucket {url}: stat {folder}: no such file or directory")
        return cls(folder)

    @property
    def url(self) -> str:
        return f"file://{self.root}"

    @property
    def _folder(self) -> Path:
        return self.root / ".pulumi"

    @property
    def is_legacy(self) -> bool:
        """From before stacks had projects: two projects' stacks of one name are the same."""
        return not (self._folder / "meta.yaml").is_file() and any((self._folder / "stacks").glob("*.json"))

    def file(self, stack: StackName) -> Path:
        project = "" if self.is_legacy else stack.project
        return self._folder / "stacks" / project / f"{stack.name}.json"

    def stacks(self, project: str | None) -> list[StackName]:
        files = sorted((self._folder / "stacks").glob(f"{project or '*'}/*.json"))
        return [StackName(file.parent.name, file.stem) for file in files]

    def exists(self, stack: StackName) -> bool:
        return self.file(stack).is_file()

    def create(self, stack: StackName) -> None:
        """Its file; the caller saves an empty state into it."""
        if self.exists(stack):
            raise CommandFailed(f"stack '{stack.full}' already exists")
        meta = self._folder / "meta.yaml"
        if not meta.is_file():
            _put(meta, "version: 1\n")
        self.save(stack, None)

    def load(self, stack: StackName) -> dict[str, Any] | None:
        """The last deployment, or None if nothing was ever deployed."""
        try:
            checkpoint: dict[str, Any] = json.loads(self.file(stack).read_text())["checkpoint"]
        except FileNotFoundError:
            raise NoSuchStack(f"no stack named '{stack.name}' found") from None
        return checkpoint.get("latest")

    def save(self, stack: StackName, deployment: dict[str, Any] | None) -> None:
        """Replaces the state in one move; the one before stays beside it as .bak."""
        latest = {} if deployment is None else {"latest": deployment}
        text = json.dumps({"version": 3, "checkpoint": {"stack": stack.full, **latest}}, separators=(",", ":"))
        file = self.file(stack)
        if file.is_file():
            _put(file.with_name(f"{file.name}.bak"), file.read_text())
        _put(file, text)

    def back_up(self, stack: StackName) -> None:
        """A copy of the state before an update; no removal of the stack takes it away."""
        if not is_on("PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS"):
            folder = self._folder / "backups" / stack.project / stack.name
            _put(folder / f"{stack.name}.{time.time_ns()}.json", self.file(stack).read_text())

    def remove(self, stack: StackName) -> None:
        _put(self.file(stack).with_name(f"{stack.name}.json.bak"), self.file(stack).read_text())
        delete(self.file(stack))
        for file in self._history(stack).glob("*.json"):
            delete(file)

    def _history(self, stack: StackName) -> Path:
        return self._folder / "history" / stack.project / stack.name

    def record(self, stack: StackName, update: dict[str, Any]) -> None:
        """What an update was, and the state that it left."""
        name = f"{stack.name}-{time.time_ns()}"
        _put(self._history(stack) / f"{name}.history.json", json.dumps(update, indent=4))
        _put(self._history(stack) / f"{name}.checkpoint.json", self.file(stack).read_text())

    def history(self, stack: StackName) -> list[dict[str, Any]]:
        """Newest first."""
        return [
            json.loads(file.read_text()) for file in sorted(self._history(stack).glob("*.history.json"), reverse=True)
        ]

    def _locks(self, stack: StackName) -> Path:
        return self._folder / "locks" / "organization" / stack.project / stack.name

    def locks(self, stack: StackName) -> list[Path]:
        return sorted(self._locks(stack).glob("*.json"))

    @contextmanager
    def locked(self, stack: StackName) -> Iterator[None]:
        """Writes a lock of its own and goes on only if there is no other: of two at once, both may be refused."""
        mine = self._locks(stack) / f"{uuid.uuid4()}.json"
        self._refuse_if_locked(stack, mine)
        holder = {"pid": os.getpid(), "username": user(), "hostname": socket.gethostname(), "timestamp": now()}
        _put(mine, json.dumps(holder))
        try:
            self._refuse_if_locked(stack, mine)
            yield
        finally:
            delete(mine)

    def _refuse_if_locked(self, stack: StackName, mine: Path) -> None:
        others = [lock for lock in self.locks(stack) if lock != mine]
        held = {lock: json.loads(text) for lock in others if (text := _text(lock)) is not None}
        if not held:
            return
        lines = [LOCKED.format(count=len(held))]
        for lock, by in held.items():
            who = f"created by {by['username']}@{by['hostname']} (pid {by['pid']}) at {by['timestamp']}"
            lines.append(f"  {self.url}/{lock.relative_to(self.root)}: {who}")
        raise CommandFailed("\n".join(lines))


def _text(file: Path) -> str | None:
    """None where another has taken it away since it was listed."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return None


def delete(file: Path) -> None:
    """With its attributes; whether it is there or not."""
    file.unlink(missing_ok=True)
    _attributes(file).unlink(missing_ok=True)


def _put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    digest = base64.b64encode(hashlib.md5(text.encode(), usedforsecurity=False).digest()).decode()
    write_whole(_attributes(file), json.dumps({"user.content_type": "text/plain; charset=utf-8", "md5": digest}))
    write_whole(file, text)


def _attributes(file: Path) -> Path:
    return file.with_name(f"{file.name}.attrs")


def _logged_in() -> str | None:
    try:
        return json.loads((pulumi_home() / "credentials.json").read_text()).get("current")
    except FileNotFoundError:
        return None

"""What every command of a stack needs: the project, its backend, which stack, its key and its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .backend import Backend
from .errors import CommandFailed, NoSuchStack
from .project import Project, StackName, is_on, parse_name
from .secrets import Crypter
from .snapshot import deployment_of
from .values import Properties, secret

NOTHING_SELECTED = "no stack selected; please use `pulumi stack select` or `pulumi stack init` to choose one"
NO_STACK_NAME = "a stack name may only contain alphanumeric, hyphens, underscores, or periods"


@dataclass(frozen=True)
class Context:
    project: Project | None
    backend: Backend

    @classmethod
    def here(cls, folder: Path) -> Context:
        project = Project.find(folder)
        return cls(project, Backend.current(project))

    @property
    def the_project(self) -> Project:
        if self.project is None:
            raise CommandFailed("no Pulumi.yaml project file found (searching upwards from the current directory)")
        return self.project

    def new_stack(self, name: str) -> StackName:
        """Makes it. Raises CommandFailed if there is one of this name."""
        stack = self._named(name)
        crypter = self.crypter(stack)
        with self.backend.locked(stack):
            self.backend.create(stack)
            self.backend.save(stack, deployment_of(crypter.state, [], []))
        return stack

    def stack(self, given: str | None) -> StackName:
        """The stack that is named, or the selected one. Raises CommandFailed if there is no such."""
        name = given or (self.project and self.project.selected())
        if not name:
            raise NoSuchStack(NOTHING_SELECTED)
        stack = self._named(name)
        if not self.backend.exists(stack):
            raise NoSuchStack(f"no stack named '{stack.name}' found")
        return stack

    def _named(self, name: str) -> StackName:
        if self.backend.is_legacy and "/" in name:
            raise CommandFailed(f"{NO_STACK_NAME}: invalid character '/'")
        return parse_name(name, self.project)

    def crypter(self, stack: StackName) -> Crypter:
        """The configuration's: the salt is the settings', else (if that is switched on) the state's, else a new one.

        It is kept in the settings.
        """
        project = self.project if self.project and self.project.name == stack.project else None
        settings = project.stack_settings(stack) if project else {}
        if salt := settings.get("encryptionsalt"):
            return Crypter(salt).check()
        falls_back = is_on("PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER")
        crypter = (self._of_state(stack) if falls_back else None) or Crypter.new()
        if project:
            project.save_stack_settings(stack, {"encryptionsalt": crypter.state, **settings})
        return crypter

    def state_crypter(self, stack: StackName) -> Crypter:
        """The state's own, which need not be that of the settings: another folder may have made the state.

        As with the real engine nobody asks whether the passphrase fits before something is decrypted with it.
        """
        return self._of_state(stack) or self.crypter(stack)

    def _of_state(self, stack: StackName) -> Crypter | None:
        latest = (self.backend.load(stack) if self.backend.exists(stack) else None) or {}
        salt = (latest.get("secrets_providers") or {}).get("state", {}).get("salt")
        return Crypter(salt) if salt else None

    def config(self, stack: StackName, crypter: Crypter) -> Properties:
        """The stack's configuration, secrets marked as such."""
        found = self.the_project.stack_settings(stack).get("config") or {}
        return {key: _opened(value, crypter) for key, value in found.items()}


def _opened(value: Any, crypter: Crypter) -> Any:
    if isinstance(value, dict) and list(value) == ["secure"]:
        return secret(crypter.decrypt(value["secure"]))
    return value

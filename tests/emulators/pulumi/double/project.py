"""A project's folder: Pulumi.yaml, Pulumi.<stack>.yaml, and which stack is selected."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import CommandFailed


@dataclass(frozen=True)
class StackName:
    project: str
    name: str

    @property
    def full(self) -> str:
        return f"organization/{self.project}/{self.name}"


@dataclass(frozen=True)
class Project:
    """A folder with a Pulumi.yaml."""

    folder: Path

    @classmethod
    def find(cls, start: Path) -> Project | None:
        for folder in (start, *start.parents):
            if (folder / "Pulumi.yaml").is_file():
                return cls(folder)
        return None

    @cached_property
    def settings(self) -> dict[str, Any]:
        return _yaml(self.folder / "Pulumi.yaml")

    @property
    def name(self) -> str:
        return str(self.settings["name"])

    def backend_url(self) -> str | None:
        return (self.settings.get("backend") or {}).get("url")

    def stack_file(self, stack: StackName) -> Path:
        return self.folder / f"Pulumi.{stack.name}.yaml"

    def stack_settings(self, stack: StackName) -> dict[str, Any]:
        file = self.stack_file(stack)
        return _yaml(file) if file.is_file() else {}

    def save_stack_settings(self, stack: StackName, settings: dict[str, Any]) -> None:
        import yaml

        write_whole(self.stack_file(stack), yaml.safe_dump(settings, sort_keys=False))

    @property
    def _workspace(self) -> Path:
        digest = hashlib.sha1(str(self.folder / "Pulumi.yaml").encode()).hexdigest()
        return pulumi_home() / "workspaces" / f"{self.name}-{digest}-workspace.json"

    def selected(self) -> str | None:
        try:
            return json.loads(self._workspace.read_text()).get("stack")
        except FileNotFoundError:
            return None

    def select(self, stack: StackName | None) -> None:
        if stack is None:
            self._workspace.unlink(missing_ok=True)
            return
        self._workspace.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._workspace, json.dumps({"stack": stack.full}))


def pulumi_home() -> Path:
    return Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")


def parse_name(text: str, project: Project | None) -> StackName:
    """ "main", "project/main" or "organization/project/main"."""
    parts = text.split("/")
    if len(parts) == 1:
        if project is None:
            raise CommandFailed(
                f"if you're using the --stack flag, pass the fully qualified name (organization/project/stack): "
                f"no Pulumi.yaml project file found for {text!r}"
            )
        return StackName(project.name, text)
    if len(parts) == 3 and parts[0] != "organization":
        raise CommandFailed("organization name must be 'organization'")
    return StackName(*parts[-2:])


def is_on(name: str) -> bool:
    """Whether a variable of Pulumi's is switched on."""
    return os.environ.get(name, "").lower() in ("1", "true")


def user() -> str:
    return getpass.getuser()


def write_whole(file: Path, text: str) -> None:
    """The file has the old text or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".")
    with os.fdopen(handle, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    Path(name).replace(file)


def _yaml(file: Path) -> dict[str, Any]:
    import yaml

    return yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}

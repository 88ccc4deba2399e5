"""What a cache holds, and what it is asked to hold, as plain data that travels through Pulumi."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

_LONGEST = 60
_PREFIX = "recipe-cache-"
_NAME = re.compile(rf"{_PREFIX}(?P<stack>.+)-(?P<stamp>\d{{8}}-\d{{6}})-(?P<suffix>[0-9a-f]{{4}})")


def volume_name(stack: str, stamp: str, suffix: str) -> str:
    """What a stack's volume is called; of a long name of a stack only the beginning is in it."""
    tail = f"-{stamp}-{suffix}"
    return f"{_PREFIX}{stack}"[: _LONGEST - len(tail)] + tail


def stack_in(name: str) -> str | None:
    """The name of the stack for which a volume of this name was made, as far as it says; None if it is no cache's."""
    found = _NAME.fullmatch(name)
    return found["stack"] if found else None


def is_of(name: str, stack: str) -> bool:
    """Whether a volume of this name was made for a stack of that name."""
    found = _NAME.fullmatch(name)
    return found is not None and name == volume_name(stack, found["stamp"], found["suffix"])


def named(model: Mapping[str, Any]) -> str:
    """A model of the inputs, or one that lies on a volume, as people know it."""
    return f"{model['repo']}: {model['file']}" if model.get("file") else str(model["repo"])


def resource_name(model: Mapping[str, Any]) -> str:
    """What Pulumi calls a model of the inputs; never the same for two models of a cache."""
    name = f"{model['repo']}@{model['commit'][:7]} {model['files'][:6]} {model['place']}"
    return name.replace("/", ".").removesuffix(" .").replace(" ", "-")


@dataclass(frozen=True, kw_only=True)
class Held:
    """A model that lies on a volume."""

    repo: str
    commit: str
    files: str
    """Which of the repository's files, as a digest: engines load different ones."""
    bytes: int
    place: str
    """The folder of the Hub's library, from where the volume is mounted on: ".", or a path below."""
    by: str
    """Who brought it: a run, or the machine that filled the volume."""
    at: datetime
    file: str = ""
    """Its name, where one file of the repository is the model."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """What `data` gave. Raises KeyError, TypeError or ValueError for what is none."""
        return cls(
            repo=str(data["repo"]),
            commit=str(data["commit"]),
            files=str(data["files"]),
            bytes=int(data["bytes"]),
            place=str(data["place"]),
            by=str(data["by"]),
            at=datetime.fromisoformat(data["at"]),
            file=str(data.get("file") or ""),
        )

    def data(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "at": self.at.isoformat(timespec="seconds")}

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes it this model."""
        return self.repo, self.commit, self.files, self.place


def merged(*several: Held) -> list[Held]:
    """Each model once, as it was brought first."""
    found: dict[tuple[str, str, str, str], Held] = {}
    for one in sorted(several, key=lambda held: held.at):
        found.setdefault(one.key, one)
    return list(found.values())

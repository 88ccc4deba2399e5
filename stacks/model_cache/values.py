"""What a cache holds, and what it is asked to hold, as plain data that travels through Pulumi."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self


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

"""What resource providers tell `recipe`, beside Pulumi, which only hands a traceback on.

The provider's process appends a line of JSON to the file that RECIPE_STACK_REPORT names; without it nothing is written,
as in a plain `pulumi up`. Nothing of a secret is in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import time
from typing import Any

import recipes.errors
from provisioners.contract import Gone
from provisioners.processes import this_one
from recipes.errors import RecipeError
from stacks.masks import mask_of
from stacks.values import StackFailed

VARIABLE = "RECIPE_STACK_REPORT"
CLIENT = "RECIPE_STACK_CLIENT"
"""The process that hears it, and minds what is made until the update has come to its end."""
_KEPT_S = 86400.0
"""After so long a report is of a client that has died: no update takes as long."""
_released: set[str] = set()
"""What this process has told to be gone."""


def tell_created(resource: str, lease: Mapping[str, Any]) -> None:
    """Something exists from now on, and may bill. `resource` is its unique name; `lease` is plain JSON."""
    _append({"kind": "created", "resource": resource, "lease": dict(lease)})


def tell_failed(error: BaseException) -> None:
    """Why an operation fails; call it before the error is handed to Pulumi."""
    message = error.message if isinstance(error, RecipeError) else f"{type(error).__name__}: {error}"
    advice = error.advice if isinstance(error, RecipeError) else ""
    _append({"kind": "failed", "error": type(error).__name__, "message": message, "advice": advice})


def tell_released(resource: str, proof: str, at: datetime | None = None) -> None:
    """Something is gone, with the proof; `at`: when it was first seen to be."""
    _released.add(resource)
    _append({"kind": "released", "resource": resource, "proof": proof, "at": at.isoformat() if at else None})


def is_released(resource: str) -> bool:
    """Whether this process has let go of it, with proof."""
    return resource in _released


def say(text: str) -> None:
    """A line for whoever watches."""
    _append({"kind": "says", "text": text})


def this_client() -> str:
    """For CLIENT."""
    return json.dumps(this_one())


def client() -> tuple[int, float] | None:
    """The number of the process that hears this one, and when it began; None if nobody does."""
    try:
        pid, since = json.loads(os.environ[CLIENT])
        return int(pid), float(since)
    except (KeyError, TypeError, ValueError):
        return None


def sweep(folder: Path) -> None:
    """Take away what clients that have died left there."""
    for left in folder.glob("*"):
        with suppress(OSError):  # another client may be faster
            if left.stat().st_mtime < time() - _KEPT_S:
                left.unlink()


def _append(note: dict[str, Any]) -> None:
    """One write, so that the lines of several resources do not mix. A full disk stops nothing.

    Who hears it has made the file: without it nobody does any more.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return
    line = json.dumps(_masked(note, mask_of(os.environ)), ensure_ascii=False) + "\n"
    with suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(handle, line.encode("utf-8", "surrogatepass"))
        finally:
            os.close(handle)


def _masked(data: Any, mask: Callable[[str], str]) -> Any:
    """Plain data whose texts hold no secret; what it says besides is as it was, whatever a secret looks like."""
    if isinstance(data, str):
        return mask(data)
    if isinstance(data, Mapping):
        return {name: _masked(value, mask) for name, value in data.items()}
    return [_masked(value, mask) for value in data] if isinstance(data, list | tuple) else data


@dataclass
class Report:
    """The client's side: what was told so far."""

    path: Path | None = None
    """None: nobody tells anything."""
    notes: list[dict[str, Any]] = field(default_factory=list)
    _read: int = 0

    def hear(self, says: Callable[[str], None] | None = None) -> None:
        """Take in what is new; what is meant for people is passed on. A line that is not whole yet waits."""
        if self.path is None:
            return
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                self._take(line, says)

    def _take(self, line: bytes, says: Callable[[str], None] | None) -> None:
        try:
            note = json.loads(line)
        except ValueError:
            return
        if isinstance(note, dict):
            self.notes.append(note)
            if says is not None and note.get("kind") == "says":
                says(str(note.get("text", "")))

    @property
    def created(self) -> list[dict[str, Any]]:
        """The leases of what was created, in order."""
        return [note["lease"] for note in self.notes if note.get("kind") == "created"]

    @property
    def released(self) -> list[Gone]:
        """What was let go, in order."""
        notes = [note for note in self.notes if note.get("kind") == "released"]
        return [Gone(note["proof"], datetime.fromisoformat(note["at"]) if note.get("at") else None) for note in notes]

    @property
    def proofs(self) -> list[str]:
        """Of what was let go, in order."""
        return [note["proof"] for note in self.notes if note.get("kind") == "released"]

    @property
    def error(self) -> RecipeError | None:
        """What failed, as what it was; the gravest if several did, then the first."""
        errors = [error_of(note) for note in self.notes if note.get("kind") == "failed"]
        return max(errors, key=lambda error: error.exit_code) if errors else None


def error_of(note: Mapping[str, Any]) -> RecipeError:
    """The error that a "failed" note tells of; one that is none of recipe's is a StackFailed."""
    kind = getattr(recipes.errors, str(note.get("error")), None)
    message, advice = str(note.get("message", "")), str(note.get("advice", ""))
    if isinstance(kind, type) and issubclass(kind, RecipeError) and kind is not recipes.errors.InvalidRecipe:
        return kind(message, advice=advice)
    return StackFailed(message, advice=advice)

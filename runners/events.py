"""What happens in a run, as values: written to events.jsonl, shown in the terminal, kept in the ledger."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from runners.records import RequestRecord


@dataclass(frozen=True)
class Event:
    """Something that happened; `lasting` ones are written down, the others only shown."""

    lasting: ClassVar[bool] = True

    def row(self, at: datetime) -> dict[str, Any]:
        kind = re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()
        return {"at": at.isoformat(timespec="milliseconds"), "event": kind, **asdict(self)}


@dataclass(frozen=True)
class RunStarted(Event):
    run_id: str
    recipe: str
    folder: str
    max_cost_usd: float | None
    deadline: str | None


@dataclass(frozen=True)
class PhaseStarted(Event):
    phase: str


@dataclass(frozen=True)
class PhaseEnded(Event):
    phase: str
    seconds: float
    usd: float | None
    ok: bool
    note: str = ""


@dataclass(frozen=True)
class Noted(Event):
    """Something worth knowing, in a few words."""

    phase: str
    message: str


@dataclass(frozen=True)
class Warned(Event):
    phase: str
    message: str


@dataclass(frozen=True)
class Interrupted(Event):
    signal: str
    second: bool


@dataclass(frozen=True)
class LeaseChanged(Event):
    name: str
    state: str
    proof: str = ""


@dataclass(frozen=True)
class Advanced(Event):
    """How far a phase is; shown, not kept."""

    lasting: ClassVar[bool] = False
    phase: str
    message: str


@dataclass(frozen=True)
class Driven(Event):
    """How far the workload is; shown, not kept."""

    lasting: ClassVar[bool] = False
    done: int
    expected: int
    level: int
    documents_done: int
    documents: int
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    running: float | None
    waiting: float | None
    kv_usage: float | None
    usd: float | None
    unit: str = "document"


@dataclass(frozen=True)
class Answered(Event):
    """A request has ended; it is in requests.jsonl already."""

    lasting: ClassVar[bool] = False
    record: RequestRecord


@dataclass(frozen=True)
class Sampled(Event):
    """A row of telemetry.jsonl."""

    lasting: ClassVar[bool] = False
    sample: Mapping[str, Any]


@dataclass(frozen=True)
class PageRead(Event):
    """The engine's own metrics page as it stands, in Prometheus' text format."""

    lasting: ClassVar[bool] = False
    text: str


@dataclass(frozen=True)
class RunEnded(Event):
    run_id: str
    status: str
    exit_code: int


Listener = Callable[[Event], None]


class EventLog:
    """Writes lasting events to events.jsonl and hands every event to the listeners.

    Never raises: a full disk or a broken view must not keep a machine from being let go.
    """

    def __init__(self, path: Path, *listeners: Listener) -> None:
        # Half a character, which a message can carry and UTF-8 can't, is written as its number.
        self._file = path.open("a", encoding="utf-8", errors="backslashreplace")
        self._listeners = [self._write, *listeners]
        self._full = False
        """Whether it was told that the disk is full."""

    def __call__(self, event: Event) -> None:
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception as error:
                if no_room(error):  # there may be room again before the run ends
                    self._tell_once(error)
                    continue
                logging.getLogger(__name__).exception("a listener failed, and is not told any more")
                self._listeners = [other for other in self._listeners if other != listener]

    def _tell_once(self, error: Exception) -> None:
        if not self._full:
            self._full = True
            logging.getLogger(__name__).warning("warning: the disk is full (%s): make room", error)

    def _write(self, event: Event) -> None:
        if event.lasting:
            self._file.write(json.dumps(event.row(datetime.now(UTC)), ensure_ascii=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written is tried once more here
            self._file.close()


def no_room(error: BaseException | None) -> bool:
    """Whether an error comes from a full disk, or a quota that is used up."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            return True
        error = error.__cause__
    return False

"""What happens, for people (stdout, or one JSON document) and for programs (--event-log)."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from .display import Display
from .resources import Resource
from .values import masked

Event = dict[str, Any]


class Log(Protocol):
    def send(self, event: Event) -> None: ...
    def close(self) -> None: ...


class FileLog:
    """One JSON line per event."""

    def __init__(self, file: str) -> None:
        self._out = Path(file).open("a")  # noqa: SIM115 - closed with the operation

    def send(self, event: Event) -> None:
        self._out.write(json.dumps(event) + "\n")
        self._out.flush()

    def close(self) -> None:
        self._out.close()


class StreamLog:
    """A stream to the Events service of the Automation API (tcp://host:port)."""

    def __init__(self, address: str) -> None:
        from .wire import OPTIONS, events_pb2, events_pb2_grpc, grpc

        self._request = events_pb2.EventRequest
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._channel = grpc.insecure_channel(address.removeprefix("tcp://"), options=OPTIONS)
        self._call = events_pb2_grpc.EventsStub(self._channel).StreamEvents.future(self._stream())

    def _stream(self) -> Iterator[Any]:
        while (event := self._events.get()) is not None:
            yield self._request(event=json.dumps(event))

    def send(self, event: Event) -> None:
        self._events.put(event)

    def close(self) -> None:
        """Waits until the other side has heard all of it, or is gone."""
        self._events.put(None)
        self._call.exception()
        self._channel.close()


@dataclass
class Events:
    """Numbers the events and hands them to whoever listens."""

    display: Display
    logs: list[Log] = field(default_factory=list)
    dry_run: bool = False
    planned: list[Event] = field(default_factory=list)
    _sent: int = 0
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def to(cls, display: Display, log: str | None, *, dry_run: bool) -> Events:
        logs: list[Log] = []
        if log:
            logs.append(StreamLog(log) if log.startswith("tcp://") else FileLog(log))
        return cls(display, logs, dry_run)

    def send(self, **event: Any) -> None:
        with self._lock:
            whole = {"sequence": self._sent, "timestamp": int(time.time()), **event}
            self._sent += 1
            for log in self.logs:
                log.send(whole)

    def prelude(self, config: Mapping[str, str]) -> None:
        self.send(preludeEvent={"config": dict(config)})

    def begins(self, op: str, old: Resource | None, new: Resource | None, **more: Any) -> None:
        metadata = _metadata(op, old, new, **more)
        self.planned.append(metadata)
        self.send(resourcePreEvent={"metadata": metadata, "planning": self.dry_run})
        self.display.begins(op, _subject(old, new))

    def ends(self, op: str, old: Resource | None, new: Resource | None, **more: Any) -> None:
        self.send(resOutputsEvent={"metadata": _metadata(op, old, new, **more), "planning": self.dry_run})
        self.display.ends(op, _subject(old, new), more.get("diffs") or [])

    def fails(self, op: str, old: Resource | None, new: Resource | None) -> None:
        self.send(resOpFailedEvent={"metadata": _metadata(op, old, new), "status": 0, "steps": 0})
        self.display.fails(op, _subject(old, new))

    def diagnostic(self, severity: str, message: str, urn: str = "", *, ephemeral: bool = False) -> None:
        prefix = f"{severity}: "
        told = {"severity": severity, "message": f"{message}\n", "prefix": prefix, "color": "never", "urn": urn}
        self.send(diagnosticEvent={key: part for key, part in {**told, "ephemeral": ephemeral}.items() if part != ""})
        self.display.diagnostic(severity, message, urn, ephemeral=ephemeral)

    def summary(self, changes: Mapping[str, int], seconds: float) -> None:
        self.send(summaryEvent={"maybeCorrupt": False, "durationSeconds": int(seconds), "resourceChanges": changes})

    def close(self) -> None:
        self.send(cancelEvent={})
        for log in self.logs:
            log.close()


def _subject(old: Resource | None, new: Resource | None) -> Resource:
    subject = new or old
    assert subject is not None
    return subject


def _metadata(op: str, old: Resource | None, new: Resource | None, **more: Any) -> Event:
    subject = _subject(old, new)
    named = {"op": op, "urn": subject.urn, "type": subject.type, "provider": subject.provider}
    states = {"old": old and _state(old), "new": new and _state(new)}
    return {**named, **states, "logical": True, **more}


def _state(resource: Resource) -> Event:
    """Nothing that is secret leaves the engine in an event."""
    keys = ("type", "urn", "id", "parent", "provider", "custom", "delete", "protect")
    shown = {key: getattr(resource, key) for key in keys}
    return {**shown, "inputs": masked(resource.inputs), "outputs": masked(resource.outputs)}

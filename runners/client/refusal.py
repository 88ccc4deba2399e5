"""Why an endpoint did not answer, and whether asking again may help."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Literal

_RETRIED = (408, 409, 425, 429)
_CONTEXT_WORDS = ("maximum context length", "exceeds the available context", "context window", "max_model_len")

Kind = Literal["context", "refused", "given-up"]


class RequestFailed(Exception):
    """A request that will not succeed. `kind` says why: context, refused, or given-up after the last try."""

    def __init__(self, kind: Kind, message: str, *, tries: int, started_at: datetime, e2e_s: float) -> None:
        super().__init__(message)
        self.kind, self.message, self.tries = kind, message, tries
        self.started_at, self.e2e_s = started_at, e2e_s


class Unsuccessful(Exception):
    """One try that failed; `again` tells whether another may succeed."""

    def __init__(self, message: str, *, again: bool, after_s: float | None = None, kind: Kind = "refused") -> None:
        super().__init__(message)
        self.message, self.again, self.after_s, self.kind = message, again, after_s, kind


def refusal(status: int, body: str, retry_after: str | None, *, where: str = "") -> Unsuccessful:
    """What an HTTP status and its body mean; `where`, if it was not the status that said it."""
    message = f"{where or f'HTTP {status}'}: {_message_in(body)}"
    if status >= 500 or status in _RETRIED:
        after = float(retry_after) if retry_after and retry_after.replace(".", "", 1).isdigit() else None
        return Unsuccessful(message, again=True, after_s=after)
    kind: Kind = "context" if any(words in body for words in _CONTEXT_WORDS) else "refused"
    return Unsuccessful(message, again=False, kind=kind)


def _message_in(body: str) -> str:
    try:
        data = json.loads(body)
    except ValueError:
        return " ".join(body.split())[:300] or "no reason given"
    found = data.get("error", data) if isinstance(data, dict) else data
    if isinstance(found, dict):
        found = found.get("message") or found.get("detail") or found
    return " ".join(str(found).split())[:500]

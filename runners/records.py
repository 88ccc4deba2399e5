"""What was measured, raw: one record per request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

EMPTY = "empty answer"
"""The error of a request whose answer was white space alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestRecord:
    """A row of requests.jsonl: one request and how it went. Times are those of the last try."""

    id: str
    document: str
    level: int
    """1 for the chunks of a document, 2 for their summaries, and so on."""
    index: int
    status: Literal["ok", "failed"]
    tries: int
    started_at: datetime
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the engine took from its prefix cache; part of prompt_tokens."""
    tokens_from: Literal["engine", "client"] = "engine"
    """Who counted: the engine's usage report, or the client's tokenizer where it sends none."""
    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float = 0.0
    send_s: float = 0.0
    """What handing the request to the kernel took; part of ttft_s and e2e_s."""
    itl_s: Sequence[float] = ()
    """The gaps between the arrivals of pieces of text, after the first."""
    finish_reason: str | None = None
    error: str | None = None

    @property
    def first_token_at(self) -> datetime:
        return self.started_at + timedelta(seconds=self.e2e_s if self.ttft_s is None else self.ttft_s)

    @property
    def ended_at(self) -> datetime:
        return self.started_at + timedelta(seconds=self.e2e_s)

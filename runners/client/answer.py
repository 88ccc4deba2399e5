"""From the blocks of a stream to an answer: its text, when its pieces arrived, why it ended, and the usage."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import sub
from typing import Any

import orjson

from runners.client.refusal import Unsuccessful, refusal
from runners.http.response import Response


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One finished request. Token counts are None where the engine reported no usage.

    Times are in seconds from just before the request's first byte was handed to the kernel.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    output_tokens: int | None
    cached_tokens: int
    started_at: datetime
    send_s: float = 0.0
    """Until the last byte of the request had been handed over."""
    ttft_s: float | None
    """Until the block arrived that completed the first piece of text."""
    itl_s: Sequence[float] = field(default=(), repr=False)
    """The gaps between the arrivals of pieces of text, after the first; 0 for those that came in one block."""
    e2e_s: float
    """Until the end of the answer arrived."""
    tries: int


class Stream:
    """Reads server-sent events, which blocks may cut anywhere."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._arrivals: list[float] = []
        self._rest = b""
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] = {}

    def whole(self, body: bytes) -> None:
        """An answer that came in one piece, as one event; when its first token was there nobody can say."""
        self._event(body, 0.0)
        self._arrivals.clear()

    def feed(self, moments: Iterable[float], blocks: Iterable[bytes]) -> None:
        """Blocks in the order of their arrival. Raises Unsuccessful for an error that the endpoint reports in them."""
        for moment, block in zip(moments, blocks, strict=True):
            *lines, self._rest = (self._rest + block).split(b"\n")
            for line in lines:
                if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
                    self._event(data, moment)

    def answer(self, response: Response, started_at: datetime, tries: int) -> Answer:
        """What was read of the response, which is complete. Raises Unsuccessful if the answer is not."""
        if self._finish_reason is None:
            raise Unsuccessful("the stream ended before the answer did", again=True)
        assert response.ended is not None
        started, arrivals = response.started, self._arrivals
        return Answer(
            # Half a character, which JSON can carry and UTF-8 can't, would make every file after it fail.
            text="".join(self._pieces).encode("utf-8", "replace").decode("utf-8"),
            finish_reason=self._finish_reason,
            prompt_tokens=self._usage.get("prompt_tokens"),
            output_tokens=self._usage.get("completion_tokens"),
            cached_tokens=(self._usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            started_at=started_at,
            send_s=(response.ended if response.sent is None else response.sent) - started,
            ttft_s=arrivals[0] - started if arrivals else None,
            itl_s=array("f", map(sub, arrivals[1:], arrivals)),
            e2e_s=response.ended - started,
            tries=tries,
        )

    def _event(self, data: bytes, moment: float) -> None:
        event = _event_in(data)
        if error := event.get("error"):
            code = error.get("code") if isinstance(error, dict) else None
            status = code if isinstance(code, int) and 400 <= code < 600 else 500
            raise refusal(status, json.dumps(event), None, where="an error in the stream")
        if usage := event.get("usage"):
            self._usage = usage
        for choice in event.get("choices") or ():
            text = choice.get("text") or (choice.get("delta") or choice.get("message") or {}).get("content")
            if text:
                self._pieces.append(text)
                self._arrivals.append(moment)
            if reason := choice.get("finish_reason"):
                self._finish_reason = reason


def _event_in(data: bytes) -> dict[str, Any]:
    try:
        event = orjson.loads(data)
    except ValueError:
        event = _leniently(data)
    if not isinstance(event, dict):
        raise Unsuccessful(f"the stream holds no event: {data[:100].decode('utf-8', 'replace')}", again=True)
    return event


def _leniently(data: bytes) -> Any:
    """The standard library's reading, which takes half characters."""
    try:
        return json.loads(data)
    except ValueError:
        return None

"""A finished request: what was said, and when."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import sub

from runners.client.refusal import Unsuccessful
from runners.client.stream import Stream
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


def answer_of(stream: Stream, response: Response, started_at: datetime, tries: int) -> Answer:
    """What was read of a response that is complete. Raises Unsuccessful if the answer is not."""
    if stream.finish_reason is None:
        raise Unsuccessful("the stream ended before the answer did", again=True)
    assert response.ended is not None
    started, arrivals, usage = response.started, stream.arrivals, stream.usage
    return Answer(
        # Half a character, which JSON can carry and UTF-8 can't, would make every file after it fail.
        text="".join(stream.pieces).encode("utf-8", "replace").decode("utf-8"),
        finish_reason=stream.finish_reason,
        prompt_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens"),
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        started_at=started_at,
        send_s=(response.ended if response.sent is None else response.sent) - started,
        ttft_s=arrivals[0] - started if arrivals else None,
        itl_s=array("f", map(sub, arrivals[1:], arrivals)),
        e2e_s=response.ended - started,
        tries=tries,
    )

"""What was measured of a request, as a row of requests.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runners.client import Answer, RequestFailed
from runners.records import EMPTY, RequestRecord
from runners.text.tokens import TokenCounter


def answered(
    answer: Answer, prompt: str, place: Mapping[str, Any], counter: TokenCounter, *, may_be_empty: bool = False
) -> RequestRecord:
    """Of a request that was answered. One of white space alone has failed, if it may not be empty.

    Tokens that the engine did not report are counted: of the answer its own, of the prompt the special ones as well.
    """
    reported = answer.prompt_tokens is not None and answer.output_tokens is not None
    prompt_tokens = answer.prompt_tokens if answer.prompt_tokens is not None else counter.count(prompt)
    output_tokens = (
        answer.output_tokens if answer.output_tokens is not None else counter.count(answer.text) - counter.count("")
    )
    streamed_s = None if answer.ttft_s is None else answer.e2e_s - answer.ttft_s
    empty = not may_be_empty and not answer.text.strip()
    return RequestRecord(
        **place,
        status="failed" if empty else "ok",
        error=EMPTY if empty else None,
        tries=answer.tries,
        started_at=answer.started_at,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        cached_tokens=answer.cached_tokens,
        tokens_from="engine" if reported else "client",
        ttft_s=answer.ttft_s,
        tpot_s=streamed_s / (output_tokens - 1) if streamed_s is not None and output_tokens > 1 else None,
        e2e_s=answer.e2e_s,
        send_s=answer.send_s,
        itl_s=answer.itl_s,
        finish_reason=answer.finish_reason,
    )


def failed(error: RequestFailed, place: Mapping[str, Any]) -> RequestRecord:
    """Of a request that was given up."""
    return RequestRecord(
        **place, tries=error.tries, started_at=error.started_at, e2e_s=error.e2e_s, status="failed", error=error.message
    )

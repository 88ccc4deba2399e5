"""Sends requests to one endpoint, and tries again where it helps."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from recipes.spec import Workload, digest_of
from runners.client.answer import Answer, answer_of
from runners.client.endpoint import Endpoint
from runners.client.refusal import RequestFailed, Unsuccessful, refusal
from runners.client.stream import Stream
from runners.http.errors import Disconnected, HttpFailed, Unusable
from runners.http.pool import Transport
from runners.http.response import Response
from runners.http.target import Target, target

_LONGEST_PAUSE_S = 300.0
_MOST_STALE = 1000
"""So many connections may have been kept, and closed by the server meanwhile."""
_OVERLOADED = (429, 503)
_MOST_REFUSAL_BYTES = 1024 * 1024
_MOST_WHOLE_BYTES = 64 * 1024 * 1024


class Client:
    """Sends requests to one endpoint, at once as many as it is asked to."""

    def __init__(
        self,
        transport: Transport,
        endpoint: Endpoint,
        workload: Workload,
        *,
        mask: Callable[[str], str] = str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._transport, self._endpoint, self._workload = transport, endpoint, workload
        self._mask, self._sleep, self._jitter = mask, sleep, jitter
        self._path = "/chat/completions" if workload.api == "chat" else "/completions"
        self._target: Target | None = None
        self._usage_wanted = True
        self.on_refused: Callable[[], None] = lambda: None
        """Called when the endpoint refuses a request because it has too many."""

    async def complete(
        self, prompt: str, *, max_tokens: int | None = None, extra: Mapping[str, Any] | None = None
    ) -> Answer:
        """The answer to a prompt; `extra` are further fields of the request. Raises RequestFailed."""
        tries, stale = 0, _MOST_STALE
        while True:
            tries += 1
            began, clock_s = time.monotonic(), time.time()
            try:
                async with asyncio.timeout(self._workload.request_timeout):
                    stream, response = await self._try(self._body(prompt, max_tokens, extra))
                started_at = datetime.fromtimestamp(clock_s + response.started - began, UTC)
                return answer_of(stream, response, started_at, tries)
            except Unsuccessful as error:
                failed = error
            except TimeoutError:
                failed = Unsuccessful(f"no answer in {self._workload.request_timeout:g} s", again=True)
            except (HttpFailed, OSError) as error:
                if isinstance(error, Disconnected) and error.stale and stale:
                    tries, stale = tries - 1, stale - 1  # no try was made
                    continue
                failed = Unsuccessful(str(error) or type(error).__name__, again=not isinstance(error, Unusable))
            if not failed.again or tries > self._workload.retries:
                raise RequestFailed(
                    "given-up" if failed.again else failed.kind,
                    self._mask(failed.message),
                    tries=tries,
                    started_at=datetime.fromtimestamp(clock_s, UTC),
                    e2e_s=time.monotonic() - began,
                )
            await self._sleep(self._pause_s(tries, failed.after_s))

    def key(self, prompt: str, *, max_tokens: int | None = None, extra: Mapping[str, Any] | None = None) -> str:
        """Stands for everything that an answer depends on: model, prompt, sampling, and the extra fields."""
        body = self._body(prompt, max_tokens, extra)
        return digest_of([self._path, {k: v for k, v in body.items() if not k.startswith("stream")}])

    def _pause_s(self, tries: int, after_s: float | None) -> float:
        """What the server asked for, five minutes at most; else exponential back-off with jitter, 30 s at most."""
        backoff: float = min(30.0, 0.25 * 2**tries * (0.5 + self._jitter()))
        return backoff if after_s is None else min(after_s, _LONGEST_PAUSE_S) + 0.1 * self._jitter()

    def _body(self, prompt: str, max_tokens: int | None, extra: Mapping[str, Any] | None) -> dict[str, Any]:
        settings = self._workload
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "max_tokens": max_tokens or settings.max_tokens,
            "temperature": settings.temperature,
            "stream": True,
        }
        if self._usage_wanted:
            body["stream_options"] = {"include_usage": True}
        if settings.seed is not None:
            body["seed"] = settings.seed
        asked = {"messages": [{"role": "user", "content": prompt}]} if settings.api == "chat" else {"prompt": prompt}
        return {**body, **asked, **(extra or {})}

    async def _try(self, body: dict[str, Any]) -> tuple[Stream, Response]:
        """What was read, and the response, which is complete."""
        if self._target is None:
            headers = {"Content-Type": "application/json", **self._endpoint.headers}
            self._target = target("POST", self._endpoint.api_url + self._path, headers)
        stream = Stream()
        async with self._transport.send(self._target, _encoded(body)) as response:
            await response.begun()
            response.check()
            if response.status != 200:
                raise self._refused(response, await response.read(_MOST_REFUSAL_BYTES))
            if response.content_type == "application/json":
                stream.whole(await response.read(_MOST_WHOLE_BYTES))  # a server that does not stream
            while (batch := await response.batch())[1]:
                stream.feed(*batch)
        return stream, response

    def _refused(self, response: Response, body: bytes) -> Unsuccessful:
        """Why the endpoint refused; one that does not know `stream_options` is asked again without."""
        text, status = body.decode("utf-8", "replace"), response.status
        if self._usage_wanted and status in (400, 422) and "stream_options" in text:
            self._usage_wanted = False
            return Unsuccessful(f"HTTP {status}: stream_options is not known", again=True, after_s=0.0)
        if status in _OVERLOADED:
            self.on_refused()
        return refusal(status, text, response.headers.get("retry-after"))


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # half a character, or a number beyond 64 bits: the standard library can say it
        return json.dumps(body).encode()

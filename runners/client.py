"""The load's client: streams completions from an OpenAI-compatible endpoint, and tries again where it helps."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from recipes.spec import Workload, digest_of
from runners.lines import LineBuffer

if TYPE_CHECKING:
    import aiohttp

_LONGEST_PAUSE_S = 300.0
_MOST_STALE = 1000
"""So many connections may have been kept, and closed by the server meanwhile."""
_RETRIED = (408, 409, 425, 429)
_CONTEXT_WORDS = ("maximum context length", "exceeds the available context", "context window", "max_model_len")


@dataclass(frozen=True)
class Endpoint:
    """Where an engine answers. `url` is its root; its API lies at /v1 below, if `base` does not say where else."""

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    base: str | None = None

    @property
    def api_url(self) -> str:
        return self.base or f"{self.url}/v1"

    @property
    def headers(self) -> dict[str, str]:
        """What shows the key, if there is one."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One finished request. Token counts are None where the engine reported no usage."""

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    output_tokens: int | None
    cached_tokens: int
    started_at: datetime
    ttft_s: float | None
    e2e_s: float
    tries: int


@dataclass
class _Wire:
    """What happened to one try's connection."""

    reused: bool = False


def open_session() -> aiohttp.ClientSession:
    """A session for clients: connections are kept, and as many are opened as the client's own slots ask for."""
    import aiohttp  # slow to load, and a plan does not need it

    async def on_reuse(_: aiohttp.ClientSession, context: Any, __: object) -> None:
        if isinstance(context.trace_request_ctx, _Wire):
            context.trace_request_ctx.reused = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(on_reuse)
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, trace_configs=[trace])


class RequestFailed(Exception):
    """A request that will not succeed. `kind` says why: context, refused, or given-up after the last try."""

    def __init__(
        self,
        kind: Literal["context", "refused", "given-up"],
        message: str,
        *,
        tries: int,
        started_at: datetime,
        e2e_s: float,
    ) -> None:
        super().__init__(message)
        self.kind, self.message, self.tries = kind, message, tries
        self.started_at, self.e2e_s = started_at, e2e_s


class _Unsuccessful(Exception):
    """One try that failed; `again` tells whether another may succeed."""

    def __init__(self, message: str, *, again: bool, after_s: float | None = None, kind: Any = "refused") -> None:
        super().__init__(message)
        self.message, self.again, self.after_s, self.kind = message, again, after_s, kind


class Client:
    """Sends requests to one endpoint."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: Endpoint,
        workload: Workload,
        *,
        mask: Callable[[str], str] = str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._session, self._endpoint, self._workload = session, endpoint, workload
        self._mask, self._sleep, self._jitter = mask, sleep, jitter
        self._path = "/chat/completions" if workload.api == "chat" else "/completions"
        self._usage_wanted = True

    async def complete(self, prompt: str, *, max_tokens: int | None = None) -> Answer:
        """The answer to a prompt. Raises RequestFailed when it cannot be had."""
        import aiohttp

        tries = 0
        stale = _MOST_STALE
        while True:
            tries += 1
            started_at, started, wire = datetime.now(UTC), time.monotonic(), _Wire()
            try:
                async with asyncio.timeout(self._workload.request_timeout):
                    return await self._try(self._body(prompt, max_tokens), started_at, tries, wire)
            except _Unsuccessful as error:
                failed = error
            except TimeoutError:
                failed = _Unsuccessful(f"no answer in {self._workload.request_timeout:g} s", again=True)
            except (aiohttp.ClientError, OSError) as error:
                if wire.reused and stale and isinstance(error, aiohttp.ClientConnectionError):
                    # The server had closed a kept connection meanwhile (RFC 9112, 9.3.1): no try was made.
                    tries, stale = tries - 1, stale - 1
                    continue
                failed = _Unsuccessful(str(error) or type(error).__name__, again=True)
            if not failed.again or tries > self._workload.retries:
                raise RequestFailed(
                    "given-up" if failed.again else failed.kind,
                    self._mask(failed.message),
                    tries=tries,
                    started_at=started_at,
                    e2e_s=time.monotonic() - started,
                )
            await self._sleep(self._pause_s(tries, failed.after_s))

    def key(self, prompt: str) -> str:
        """Stands for everything that an answer depends on: model, prompt, sampling."""
        body = {k: v for k, v in self._body(prompt, None).items() if not k.startswith("stream")}
        return digest_of([self._path, body])

    def _pause_s(self, tries: int, after_s: float | None) -> float:
        """What the server asked for, five minutes at most; else exponential back-off with jitter, 30 s at most."""
        backoff: float = min(30.0, 0.25 * 2**tries * (0.5 + self._jitter()))
        return backoff if after_s is None else min(after_s, _LONGEST_PAUSE_S) + 0.1 * self._jitter()

    def _body(self, prompt: str, max_tokens: int | None) -> dict[str, Any]:
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
        if settings.api == "chat":
            return {**body, "messages": [{"role": "user", "content": prompt}]}
        return {**body, "prompt": prompt}

    async def _try(self, body: dict[str, Any], started_at: datetime, tries: int, wire: _Wire) -> Answer:
        stream = _Stream()
        url, headers = self._endpoint.api_url + self._path, self._endpoint.headers
        async with self._session.post(url, json=body, headers=headers, trace_request_ctx=wire) as response:
            if response.status != 200:
                raise self._refused(response, await response.text(errors="replace"))
            if response.content_type == "application/json":
                stream.whole(await response.read())  # a server that does not stream
            else:
                async for block in response.content.iter_any():
                    stream.feed(block)
        ended = time.monotonic()
        if stream.finish_reason is None:
            raise _Unsuccessful("the stream ended before the answer did", again=True)
        return Answer(
            # Half a character, which JSON can carry and UTF-8 can't, would make every file after it fail.
            text="".join(stream.texts).encode("utf-8", "replace").decode("utf-8"),
            finish_reason=stream.finish_reason,
            prompt_tokens=stream.usage.get("prompt_tokens"),
            output_tokens=stream.usage.get("completion_tokens"),
            cached_tokens=(stream.usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            started_at=started_at,
            ttft_s=None if stream.first_at is None else stream.first_at - stream.started,
            e2e_s=ended - stream.started,
            tries=tries,
        )

    def _refused(self, response: aiohttp.ClientResponse, body: str) -> _Unsuccessful:
        """Why the endpoint refused; one that does not know `stream_options` is asked again without."""
        if self._usage_wanted and response.status in (400, 422) and "stream_options" in body:
            self._usage_wanted = False
            return _Unsuccessful(f"HTTP {response.status}: stream_options is not known", again=True, after_s=0.0)
        return _refusal(response.status, body, response.headers.get("Retry-After"))


class _Stream:
    """Reads server-sent events as they come: the text, when its first piece arrived, why it ended, and the usage."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.first_at: float | None = None
        self.texts: list[str] = []
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] = {}
        self._lines = LineBuffer()

    def whole(self, body: bytes) -> None:
        """An answer that came in one piece, as one event; when its first token was there nobody can say."""
        self._event(_event_in(body))
        self.first_at = None

    def feed(self, block: bytes) -> None:
        for line in self._lines.feed(block):
            if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
                self._event(_event_in(data))

    def _event(self, event: dict[str, Any]) -> None:
        if error := event.get("error"):
            code = error.get("code") if isinstance(error, dict) else None
            status = code if isinstance(code, int) and 400 <= code < 600 else 500
            raise _refusal(status, json.dumps(event), None, where="an error in the stream")
        self.usage = event.get("usage") or self.usage
        for choice in event.get("choices") or ():
            said = choice.get("delta") or choice.get("message") or {}
            text = choice.get("text") or said.get("content") or ""
            if text:
                if self.first_at is None:
                    self.first_at = time.monotonic()
                self.texts.append(text)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason


def _event_in(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise _Unsuccessful(f"the stream holds no event: {data[:100].decode('utf-8', 'replace')}", again=True)
    return event


def _refusal(status: int, body: str, retry_after: str | None, *, where: str = "") -> _Unsuccessful:
    message = f"{where or f'HTTP {status}'}: {_message_in(body)}"
    if status >= 500 or status in _RETRIED:
        after = float(retry_after) if retry_after and retry_after.replace(".", "", 1).isdigit() else None
        return _Unsuccessful(message, again=True, after_s=after)
    kind = "context" if any(words in body for words in _CONTEXT_WORDS) else "refused"
    return _Unsuccessful(message, again=False, kind=kind)


def _message_in(body: str) -> str:
    try:
        data = json.loads(body)
    except ValueError:
        return " ".join(body.split())[:300] or "no reason given"
    found = data.get("error", data) if isinstance(data, dict) else data
    if isinstance(found, dict):
        found = found.get("message") or found.get("detail") or found
    return " ".join(str(found).split())[:500]

"""One conversation over HTTP: requests with a deadline each, tried again where that is safe, errors mapped once."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlencode

from provisioners.light_http import Answer, Connections, NeverSent
from provisioners.providers.runpod.answers import (
    TRANSIENT,
    ApiError,
    Lost,
    RateLimited,
    ServerError,
    Unreachable,
    from_status,
)
from provisioners.providers.runpod.pace import Pace
from provisioners.threads import in_thread

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")
_RESERVE = 10
"""Requests of each minute that are kept for letting go."""


@dataclass(frozen=True)
class Request:
    """What is asked. `hide` are values of the body that no error may repeat."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = field(default=None, repr=False)
    answer_s: float | None = None
    hide: tuple[str, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Http:
    """A client of one address with one key. The key is in no error and no repr."""

    def __init__(self, address: str, key: str, pace: Pace, *, jitter: Callable[[], float] = random.random) -> None:
        self._address, self._key, self._pace, self._jitter = address.rstrip("/"), key, pace, jitter
        self._session: aiohttp.ClientSession | None = None
        self._scarce_until = 0.0

    @property
    def scarce_s(self) -> float:
        """For how long only what is urgent should be asked: nearly all requests of this minute are used up."""
        return max(0.0, self._scarce_until - time.monotonic())

    def __repr__(self) -> str:
        return f"Http({self._address})"

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}", "Accept": "application/json", "User-Agent": "gpu-recipe"}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, request: Request, *, again_s: float = 0.0) -> Any:
        """The answer's JSON; None if it has no content. Raises ApiError.

        With `again_s`, a failure that may pass is tried again until so much time has gone; a wait that RunPod asks
        for is kept.
        """
        return await repeated(lambda: self._once(request), self._pace, again_s, jitter=self._jitter)

    async def _once(self, request: Request) -> Any:
        answer = await (self._read(request) if request.method == "GET" else self._done(request))
        self._scarce_until = time.monotonic() + seconds_of_scarcity(answer.headers.get("ratelimit", ""))
        said = _json_or_none(answer.body)
        if not 200 <= answer.status < 300:
            raise self._refusal(request, answer, said)
        if said is None and answer.body.strip():
            raise ServerError(f"{request} → {answer.status}, but no JSON", short=f"{answer.status} without JSON")
        return said

    async def _read(self, request: Request) -> Answer:
        """A question that changes nothing, with the standard library: what loads no client starts sooner."""
        url = f"{self._address}{request.path}" + (f"?{urlencode(request.query)}" if request.query else "")
        limit_s = request.answer_s or self._pace.request_s

        def get() -> Answer:
            connections = Connections(limit_s)
            try:
                return connections.get(url, {**self._headers, "Accept-Encoding": "identity"})
            finally:
                connections.close()

        try:
            async with asyncio.timeout(limit_s):
                return await in_thread(get)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _lost(str(request), error, sent=not isinstance(error, NeverSent | ValueError)) from error

    async def _done(self, request: Request) -> Answer:
        async with self._sent(request) as response:
            return _answer_of(response, await response.read())

    async def events(self, request: Request, *, quiet_s: float, most_s: float) -> list[Any]:
        """The JSON data of a stream of server-sent events: until it pauses for `quiet_s`, and for `most_s` at most."""
        found: list[Any] = []
        async with self._sent(request) as response:
            if response.status != 200:
                answer = _answer_of(response, await response.read())
                raise self._refusal(request, answer, _json_or_none(answer.body))
            with suppress(TimeoutError):
                async with asyncio.timeout(most_s):
                    while line := await asyncio.wait_for(response.content.readline(), quiet_s):
                        if line.startswith(b"data:") and (data := _json_or_none(line[5:])) is not None:
                            found.append(data)
        return found

    @asynccontextmanager
    async def _sent(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        import aiohttp  # slow to load

        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers)
        timeout = aiohttp.ClientTimeout(total=request.answer_s or self._pace.request_s, connect=self._pace.connect_s)
        with _mapped(request):
            async with self._session.request(
                request.method,
                self._address + request.path,
                params=request.query,
                json=request.body,
                timeout=timeout,
                allow_redirects=False,  # a POST would come out as a GET, and the key at another place
            ) as response:
                yield response

    def _refusal(self, request: Request, answer: Answer, said: Any) -> ApiError:
        """The answer as an error, without the key and other secrets, should it repeat them."""
        text = json.dumps(said, ensure_ascii=False)
        for secret in filter(None, (self._key, *request.hide)):
            text = text.replace(json.dumps(secret, ensure_ascii=False)[1:-1], "***")
        return from_status(
            str(request),
            answer.status,
            _json_or_none(text.encode()),
            retry_after=answer.headers.get("retry-after"),
            now=datetime.now(UTC),
        )


async def repeated(
    call: Callable[[], Awaitable[T]], pace: Pace, again_s: float, *, jitter: Callable[[], float] = random.random
) -> T:
    """The call's result; what may pass is tried again for `again_s`, after the wait that RunPod asks for, or ours."""
    began = time.monotonic()
    pause_s = pace.backoff_first_s
    while True:
        try:
            return await call()
        except TRANSIENT as error:
            wait_s = pause_s * (1 - jitter() / 4) if error.retry_after_s is None else error.retry_after_s
            limited = again_s and isinstance(error, RateLimited)
            if time.monotonic() + wait_s > began + (max(again_s, pace.again_limited_s) if limited else again_s):
                raise
        await asyncio.sleep(wait_s)
        pause_s = min(2 * pause_s, pace.backoff_most_s)


def seconds_of_scarcity(header: str) -> float:
    """Until the minute is over of which a RateLimit header, as in "minute";r=3;t=12, says that little is left."""
    found = re.search(r'"minute"((?:;\w+=\d+)*)', header)
    figures = dict(part.split("=") for part in found[1].split(";")[1:]) if found else {}
    left, seconds = int(figures.get("r", _RESERVE)), int(figures.get("t", 0))
    return min(60.0, seconds) if left < _RESERVE else 0.0


def _answer_of(response: aiohttp.ClientResponse, body: bytes) -> Answer:
    return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, body)


@contextmanager
def _mapped(request: Request) -> Iterator[None]:
    """What aiohttp raises becomes ApiError."""
    import aiohttp

    never_sent = (
        aiohttp.ClientConnectorError,
        aiohttp.ClientProxyConnectionError,
        aiohttp.ConnectionTimeoutError,
        aiohttp.InvalidURL,
    )
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _lost(str(request), error, sent=not isinstance(error, never_sent)) from error


def _lost(asked: str, error: Exception, *, sent: bool) -> ApiError:
    """What a failed exchange is, by whether the request can have arrived."""
    why = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return Lost(f"{asked}: {why}", short=why) if sent else Unreachable(f"{asked}: {why}", short=why)


def _json_or_none(content: bytes) -> Any:
    try:
        return json.loads(content) if content.strip() else None
    except ValueError:
        return None

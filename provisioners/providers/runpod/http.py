"""One conversation over HTTP: requests with a deadline each, tried again where that is safe, errors mapped once."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp

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

T = TypeVar("T")
_RESERVE = 10
"""Requests of each minute that are kept for letting go."""
_NEVER_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientProxyConnectionError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)


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

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._key}", "Accept": "application/json", "User-Agent": "gpu-recipe"}
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def ask(self, request: Request, *, again_s: float = 0.0) -> Any:
        """The answer's JSON; None if it has no content. Raises ApiError.

        With `again_s`, a failure that may pass is tried again until so much time has gone; a wait that RunPod asks
        for is kept.
        """
        return await repeated(lambda: self._once(request), self._pace, again_s, jitter=self._jitter)

    async def _once(self, request: Request) -> Any:
        async with self._sent(request) as response:
            content = await response.read()
        self._scarce_until = time.monotonic() + seconds_of_scarcity(response.headers.get("RateLimit", ""))
        answer = _json_or_none(content)
        if not 200 <= response.status < 300:
            raise self._refusal(request, response, answer)
        if answer is None and content.strip():
            raise ServerError(f"{request} → {response.status}, but no JSON", short=f"{response.status} without JSON")
        return answer

    async def events(self, request: Request, *, quiet_s: float, most_s: float) -> list[Any]:
        """The JSON data of a stream of server-sent events: until it pauses for `quiet_s`, and for `most_s` at most."""
        found: list[Any] = []
        async with self._sent(request) as response:
            if response.status != 200:
                raise self._refusal(request, response, _json_or_none(await response.read()))
            with suppress(TimeoutError):
                async with asyncio.timeout(most_s):
                    while line := await asyncio.wait_for(response.content.readline(), quiet_s):
                        if line.startswith(b"data:") and (data := _json_or_none(line[5:])) is not None:
                            found.append(data)
        return found

    @asynccontextmanager
    async def _sent(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None
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

    def _refusal(self, request: Request, response: aiohttp.ClientResponse, answer: Any) -> ApiError:
        """The answer as an error, without the key and other secrets, should it repeat them."""
        text = json.dumps(answer, ensure_ascii=False)
        for secret in filter(None, (self._key, *request.hide)):
            text = text.replace(json.dumps(secret, ensure_ascii=False)[1:-1], "***")
        return from_status(
            str(request),
            response.status,
            _json_or_none(text.encode()),
            retry_after=response.headers.get("Retry-After"),
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


@contextmanager
def _mapped(request: Request) -> Iterator[None]:
    """What aiohttp raises becomes ApiError."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _lost(str(request), error) from error


def _lost(asked: str, error: Exception) -> ApiError:
    """What a failed exchange is, by whether the request can have arrived."""
    why = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    if isinstance(error, _NEVER_SENT):
        return Unreachable(f"{asked}: {why}", short=why)
    return Lost(f"{asked}: {why}", short=why)


def _json_or_none(content: bytes) -> Any:
    try:
        return json.loads(content) if content.strip() else None
    except ValueError:
        return None
